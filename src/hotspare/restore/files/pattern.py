"""Patterns of file names, compared with one name, or with thousands of them at once."""

import re
from dataclasses import dataclass
from functools import cached_property

from hotspare.errors import UsageError

_ONE = "[^/\0]"


@dataclass(frozen=True)
class PathPattern:
    """A pattern such as ``*.conf``, ``nginx/*.conf`` or ``/etc/**/passwd``.

    ``*`` and ``?`` stand for letters of one name, ``[…]`` for one of those letters, ``**`` for any number
    of folders. A pattern without ``/`` fits names in every folder, one with it the end of a path, one that
    begins with it whole paths.
    """

    text: str
    ignore_case: bool = False

    def matches(self, folder: str, name: str) -> bool:
        """Tell whether it fits."""
        return bool(self.name_expression.fullmatch(f"\0{name}\0")) and self.fits_folder(folder)

    def fits_folder(self, folder: str) -> bool:
        """Tell whether names in that folder can fit."""
        return self._folder_expression is None or bool(self._folder_expression.fullmatch(folder.rstrip("/")))

    @cached_property
    def name_expression(self) -> re.Pattern[str]:
        """Finds names in a text with a zero character before and after each, both of which it takes in."""
        return self._compile("\0" + _translate(self.text.rpartition("/")[2]) + "\0")

    @cached_property
    def name_finder(self) -> re.Pattern[str]:
        """The same, but for the zero character after a name, which belongs to the next one as well."""
        return self._compile("\0" + _translate(self.text.rpartition("/")[2]) + "(?=\0)")

    @cached_property
    def _folder_expression(self) -> re.Pattern[str] | None:
        folder, slash, _ = self.text.rpartition("/")
        if not slash:
            return None
        parts = [part for part in folder.split("/") if part]
        expression = "" if self.text.startswith("/") else f"(?:/{_ONE}+)*"
        for part in parts:
            expression += f"(?:/{_ONE}+)*" if part == "**" else "/" + _translate(part)
        return self._compile(expression)

    def _compile(self, expression: str) -> re.Pattern[str]:
        try:
            return re.compile(expression, re.IGNORECASE if self.ignore_case else 0)
        except re.error as error:
            raise UsageError(f"'{self.text}' is no pattern of file names: {error}") from error


def parse_pattern(text: str, *, ignore_case: bool = False) -> PathPattern:
    """Read a pattern. Raises ``UsageError`` when it can fit nothing."""
    last = text.rpartition("/")[2]
    if not last or "\0" in text or last == "**":
        raise UsageError(
            f"'{text}' is no pattern of file names",
            hint="Say it like '*.conf', 'nginx/*.conf' or '/etc/**/*.conf'",
        )
    pattern = PathPattern(text, ignore_case)
    pattern.matches("/", "name")  # raises for what cannot be understood
    return pattern


def _translate(glob: str) -> str:
    """Turn a pattern of one name into an expression, in which stars never try again what they gave up.

    Each but the last star takes as little as lets what follows it fit, for good (an atomic group): so hostile
    names cannot make a search take for ever.
    """
    pieces = [""]
    at = 0
    while at < len(glob):
        letter = glob[at]
        at += 1
        if letter == "*":
            pieces.append("")
        elif letter == "?":
            pieces[-1] += _ONE
        elif letter == "[" and (end := glob.find("]", at + (2 if glob[at : at + 1] == "!" else 1))) > 0:
            pieces[-1] += _letters(glob[at:end])
            at = end + 1
        else:
            pieces[-1] += re.escape(letter)
    first, *others = pieces
    if not others:
        return first
    middle = "".join(f"(?>{_ONE}*?{piece})" for piece in others[:-1] if piece)
    return f"{first}{middle}{_ONE}*{others[-1]}"


def _letters(inside: str) -> str:
    """Turn what stands between brackets into a class of letters."""
    negated = inside.startswith("!")
    escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", inside[negated:])
    return f"[^/\0{escaped}]" if negated else f"[{escaped}]"
