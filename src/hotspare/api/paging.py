"""Long lists in pages: an answer names where the next one begins, and nothing is left out when lists grow."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import msgspec
from fastapi import Query

from hotspare.errors import UsageError

Item = TypeVar("Item")
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
After = Annotated[
    str | None, Query(description="`next` of the answer before; without it the list begins.", max_length=2000)
]
Key = Sequence[str]


def cursor_of(key: Key) -> str:
    """Write the place behind an item, so that it can be a part of a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(key))).decode().rstrip("=")


def key_of(cursor: str, parts: int) -> Key:
    """Read it again. Raises ``UsageError`` for one that is none."""
    try:
        key = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=list[str])
    except (ValueError, binascii.Error) as error:
        raise _foreign() from error
    if len(key) != parts:
        raise _foreign()
    return key


def page_of(
    items: Sequence[Item], key: Callable[[Item], Key], limit: int, after: str | None
) -> tuple[list[Item], str | None]:
    """Give a page of a list that is in the order of ``key``, and where the next begins; None at its end."""
    if after is not None and items:
        begin = list(key_of(after, len(key(items[0]))))
        items = [item for item in items if list(key(item)) > begin]
    page = list(items[:limit])
    return page, cursor_of(key(page[-1])) if len(items) > limit else None


def _foreign() -> UsageError:
    return UsageError(
        "What 'after' says is no place in this list",
        meaning="Nothing was done",
        hint="Give what 'next' of the answer before says, or leave it out",
    )
