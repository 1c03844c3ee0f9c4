"""What one signature says of the volume it lies in."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Found:
    """One signature."""

    content: str
    """See ``Volume.content``."""
    offset: int
    """Where in the volume the signature lies."""
    label: str = ""
    uuid: str = ""
    opaque: str | None = None
    """Why nothing can be known of what is inside: encrypted, a part of something larger."""


def printable(text: str) -> str:
    """Take from a name of the guest's what would do something to a terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
