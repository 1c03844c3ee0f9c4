"""Reading msgpack and JSON that a store gave us: whatever is wrong with it is one typed error."""

from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from typing_extensions import Buffer

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its offset from UTC: one without could not be compared with others."""

Content = TypeVar("Content")


def decode_msgpack(data: Buffer, kind: type[Content]) -> Content:
    """Read msgpack. Raises ``msgspec.DecodeError`` when it is no such thing, or nested without end."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


def decode_json(data: Buffer, kind: type[Content]) -> Content:
    """Read JSON. Raises ``msgspec.DecodeError`` when it is no such thing, or nested without end."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error
