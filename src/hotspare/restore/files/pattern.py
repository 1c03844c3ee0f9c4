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
        return re.compile(expression, re.IGNORECASE if self.ignore_case else 0)


def parse_pattern(text: str, *, ignore_case: bool = False) -> PathPattern:
    """Read a pattern. Raises ``UsageError`` when it can fit nothing."""
    last = text.rpartition("/")[2]
    if not last or "\0" in text or last == "**":
        raise UsageError(
            f"'{text}' is no pattern of file names",
            hint="Say it like '*.conf', 'nginx/*.conf' or '/etc/**/*.conf'",
        )
    return PathPattern(text, ignore_case)


def _translate(glob: str) -> str:
    expression, at = "", 0
    while at < len(glob):
        letter = glob[at]
        at += 1
        if letter == "*":
            # Stars in a row are one: otherwise they would take time that grows with each of them.
            if not expression.endswith(f"{_ONE}*"):
                expression += f"{_ONE}*"
        elif letter == "?":
            expression += _ONE
        elif letter == "[" and (end := glob.find("]", at + (2 if glob[at : at + 1] == "!" else 1))) > 0:
            inside = (
                glob[at:end].replace("\\", r"\\").replace("[", r"\[").replace("&", r"\&").replace("~", r"\~")
            )
            inside = inside.replace("|", r"\|")
            negated = inside.startswith("!")
            inside = inside[1:] if negated else inside
            inside = "\\" + inside if inside.startswith("^") else inside
            expression += f"[^/\0{inside}]" if negated else f"[{inside}]"
            at = end + 1
        else:
            expression += re.escape(letter)
    return expression
