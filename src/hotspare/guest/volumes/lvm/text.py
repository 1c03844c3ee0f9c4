"""The text in which LVM2 keeps a volume group: sections, and names with numbers, strings and lists.

Grammar: lvm.conf(5). Whatever is not of it, is too deep or says a name twice is refused.
"""

import re
from collections.abc import Iterator

Value = int | str | list[int | str]
Section = dict[str, "Value | Section"]
"""What is between braces, in its order."""

_DEPTH_MAX = 8
_DIGITS_MAX = 19
_TOKEN = re.compile(
    r"(?:\s++|\#[^\n]*+)*+"
    r'(?:(?P<string>"(?:[^"\\]|\\.)*+")|(?P<mark>[][{}=,])|(?P<word>[A-Za-z0-9_.+\-]++))?+',
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class BadText(Exception):
    """It cannot be understood; the reason is for people."""


def parse(text: str) -> Section:
    """Read all of a text, in time proportional to its length. Raises ``BadText``."""
    tokens = _tokens(text)
    top: Section = {}
    open_sections = [top]
    for token in tokens:
        section = open_sections[-1]
        if token == "}" and len(open_sections) > 1:  # noqa: S105
            open_sections.pop()
            continue
        if not _is_word(token) or token in section:
            raise BadText(f"{token[:40]!r} stands where a new name should")
        mark = next(tokens, "")
        if mark == "=":
            section[token] = _value(tokens)
        elif mark == "{" and len(open_sections) <= _DEPTH_MAX:
            inner: Section = {}
            section[token] = inner
            open_sections.append(inner)
        else:
            raise BadText(f"{token[:40]!r} is followed by {mark[:40]!r}")
    if len(open_sections) > 1:
        raise BadText("it ends too early")
    return top


def _tokens(text: str) -> Iterator[str]:
    """Yield words, marks, and strings with their first quote left on."""
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.end() == position:
            raise BadText(f"{text[position : position + 20]!r} is no part of it")
        position = match.end()
        if match["string"]:
            yield _ESCAPE.sub(r"\1", match["string"][:-1])
        elif match.lastgroup:
            yield match[match.lastgroup]
    return


def _value(tokens: Iterator[str]) -> Value:
    token = next(tokens, "")
    if token != "[":  # noqa: S105
        return _scalar(token)
    found: list[int | str] = []
    token = next(tokens, "")
    while token != "]":  # noqa: S105
        found.append(_scalar(token))
        token = next(tokens, "")
        if token == ",":  # noqa: S105
            token = next(tokens, "")
        elif token != "]":  # noqa: S105
            raise BadText("a list does not end")
    return found


def _scalar(token: str) -> int | str:
    if token.startswith('"'):
        return token[1:]
    if re.fullmatch(r"-?[0-9]+", token) and len(token) <= _DIGITS_MAX:
        return int(token)
    raise BadText(f"{token[:40]!r} is no value")


def _is_word(token: str) -> bool:
    return token[:1] not in {'"', "[", "]", "{", "}", "=", ",", ""}
