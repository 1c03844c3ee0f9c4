"""What a form holds, and its turning into what handlers of the HTTP interface take."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qs

import msgspec
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from hotspare.errors import UsageError

Body = TypeVar("Body", bound=BaseModel)
_BYTES_MAX = 1024 * 1024


class Form:
    """Fields of a form, as a browser sends them without files."""

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        self._fields = fields

    def text(self, name: str, default: str = "") -> str:
        """Give one field, without white space around it."""
        return self._fields.get(name, [default])[0].strip()

    def secret(self, name: str) -> str:
        """Give one field just as it is."""
        return self._fields.get(name, [""])[0]

    def texts(self) -> dict[str, str]:
        """Give all fields, of each the first value, to be shown again."""
        return {name: values[0] for name, values in self._fields.items()}

    def optional(self, name: str) -> str | None:
        """Give one field; None when it is empty."""
        return self.text(name) or None

    def many(self, name: str) -> list[str]:
        """Give all values of a field, those that are not empty."""
        return [value.strip() for value in self._fields.get(name, []) if value.strip()]

    def lines(self, name: str) -> tuple[str, ...]:
        """Give the lines of a text, or what stands between commas, those that are not empty."""
        raw = self._fields.get(name, [""])[0].replace(",", "\n")
        return tuple(line.strip() for line in raw.splitlines() if line.strip())

    def document(self, name: str) -> dict[str, Any]:
        """Give what a script of ours put into a field as JSON. Raises ``UsageError``."""
        try:
            return msgspec.json.decode(self.secret(name), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise UsageError(
                "The browser did not say what it was asked for",
                meaning="Nothing was done",
                hint="Permit scripts of this server, and try again",
            ) from error

    def flag(self, name: str) -> bool:
        """Tell whether a box is ticked."""
        return bool(self.text(name))

    def number(self, name: str) -> int:
        """Give a number that is not negative, 0 for an empty field. Raises ``UsageError``."""
        text = self.text(name)
        if not text:
            return 0
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise UsageError(f"'{text}' is no number", meaning="Nothing was changed", hint=f"See '{name}'")
        return int(text)


async def form_in(request: Request) -> Form:
    """Read the form that a request brings. Raises ``UsageError`` when it is none."""
    known: Form | None = getattr(request.state, "form", None)
    if known is not None:
        return known
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _BYTES_MAX:
            raise UsageError("The form is too long", meaning="Nothing was done")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=5000)
    except ValueError as error:
        raise UsageError("This is no form", meaning="Nothing was done") from error
    # Kept: a body can be read once, and the guard looks into it before the handler does.
    request.state.form = form = Form(fields)
    return form


FormHere = Annotated[Form, Depends(form_in)]


def body_of(kind: type[Body], **fields: object) -> Body:
    """Make what a handler of the HTTP interface takes. Raises ``UsageError``, naming the field."""
    try:
        return kind(**fields)
    except ValidationError as error:
        said = [f"{'.'.join(str(step) for step in one['loc'])}: {one['msg']}" for one in error.errors()]
        raise UsageError(
            "The form is not as it has to be: " + "; ".join(said),
            meaning="Nothing was changed",
            hint="Go back and mend it",
        ) from error
