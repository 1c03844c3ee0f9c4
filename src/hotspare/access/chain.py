"""A record that tells when somebody has tampered with it: each entry holds the hash of the one before.

Who can write the database can write the whole chain anew, or cut off its end. What shows that is a hash that
was noted elsewhere: ``verified`` takes one, and every entry is told to the log of the system as well.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from hotspare.errors import AuditBroken

BEGINNING = "0" * 64


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done or tried."""

    number: int
    """1, 2, 3 and so on."""
    at: str
    """RFC 3339, UTC."""
    actor: str
    """Name of a user, ``user!token``, or empty where nobody was known."""
    action: str
    """``delete /api/v1/points/{point}``."""
    target: str
    """What it was done to."""
    outcome: str
    """``ok``, or the code of an error."""
    address: str
    """Where it came from."""
    detail: dict[str, Any]
    previous: str
    """Hash of the entry before."""
    hash: str = ""


def sealed(entry: AuditEntry) -> AuditEntry:
    """Give the entry with its hash, over all of its fields."""
    unsealed = msgspec.structs.replace(entry, hash="")
    encoded = msgspec.json.encode(unsealed, order="deterministic")
    return msgspec.structs.replace(entry, hash=hashlib.sha256(encoded).hexdigest())


def verified(entries: Iterable[AuditEntry], known: tuple[int, str] | None = None) -> tuple[int, str]:
    """Follow the chain from its first entry; gives number and hash of the last.

    Args:
        entries: in their order.
        known: number and hash of an entry, as they were noted elsewhere.

    Raises:
        AuditBroken: an entry was changed, removed or put in.
    """
    number, previous = 0, BEGINNING
    met = known is None
    for entry in entries:
        number += 1
        if entry.number != number:
            raise broken(f"Entry {number} is missing")
        if entry.previous != previous:
            raise broken(f"Entry {number} does not follow the one before it")
        if sealed(entry).hash != entry.hash:
            raise broken(f"Entry {number} was changed")
        if known and known[0] == number:
            if known[1] != entry.hash:
                raise broken(f"Entry {number} is not the one whose hash was noted")
            met = True
        previous = entry.hash
    if not met and known:
        raise broken(f"Entry {known[0]}, whose hash was noted, is missing: the record ends with {number}")
    return number, previous


def broken(what: str) -> AuditBroken:
    """Give the error of a record that is not what was written."""
    return AuditBroken(
        what,
        meaning="Somebody has tampered with the record of what was done, or its file was damaged",
        hint="Compare it with the entries in the system's log and in a copy of access.sqlite",
    )
