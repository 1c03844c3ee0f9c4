"""Which version of an object is the one that Hotspare stored.

Who may write to the store may put anything over an object. Nothing can be put *below* it: while its lock
lasts, the oldest version that proves to be genuine is what was stored first.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence

import msgspec
from blake3 import blake3

from hotspare.errors import ObjectNotFound, RepositoryDamaged
from hotspare.repository.decode import decode_json
from hotspare.repository.format import (
    BOOT,
    CONDEMNED,
    CONFIG,
    FORGOTTEN,
    INDEX,
    KEPT,
    KEYS,
    LOCKS,
    PARITY,
    POINTS,
    SCANS,
    SCREENS,
    SETTLED,
    parse_pack_name,
)
from hotspare.repository.keys import Keyring
from hotspare.repository.keys.slot import KeySlot
from hotspare.repository.parity import read_parity
from hotspare.repository.point import open_point
from hotspare.repository.record import open_record
from hotspare.storage.backend import ObjectLocks, ObjectVersion

_RECORDS = (CONDEMNED, SETTLED, KEPT, LOCKS, FORGOTTEN, BOOT, SCREENS, SCANS)


class Judge:
    """Tells from its content whether an object is what its name says."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def knows(self, name: str) -> bool:
        """Tell whether objects of this name prove themselves."""
        return (
            name == CONFIG
            or parse_pack_name(name) is not None
            or name.startswith((KEYS, INDEX, POINTS, PARITY, *_RECORDS))
        )

    def is_genuine(self, name: str, data: bytes) -> bool:
        """Tell whether this is what was stored under the name."""
        if parsed := parse_pack_name(name):
            return blake3(data).digest() == parsed[1]
        if name.startswith(INDEX):
            return blake3(data).hexdigest() == name.removeprefix(INDEX)
        if name == CONFIG:
            line, _, mac = data.partition(b"\n")
            return self._keyring.config_mac(line).encode() == mac.strip()
        if name.startswith(KEYS):
            return self._is_trusted_slot(name, data)
        try:
            if name.startswith(POINTS):
                open_point(self._keyring, name, data)
            elif name.startswith(PARITY):
                read_parity(name, data)
            else:
                open_record(self._keyring, name, data, msgspec.Raw)
        except RepositoryDamaged:
            return False
        return True

    def _is_trusted_slot(self, name: str, data: bytes) -> bool:
        try:
            slot = decode_json(data, KeySlot)
        except msgspec.DecodeError:
            return False
        public = self._keyring.secrets.slots.get(name.removeprefix(KEYS).partition("-")[0])
        return public is not None and slot.public == b64encode(public).decode()


def versions_by_name(locks: ObjectLocks, prefix: str) -> dict[str, list[ObjectVersion]]:
    """Give all versions below a prefix by the objects' names, the newest first."""
    found: dict[str, list[ObjectVersion]] = {}
    for one in locks.versions(prefix):
        found.setdefault(one.name, []).append(one)
    return found


def contents(versions: Iterable[ObjectVersion]) -> list[ObjectVersion]:
    """Give the versions that are no markers, the oldest first."""
    return [one for one in versions if not one.marker][::-1]


def genuine_version(
    locks: ObjectLocks, judge: Judge, name: str, versions: Sequence[ObjectVersion]
) -> ObjectVersion | None:
    """Give the oldest genuine version. An only one is not read: nobody can have replaced it."""
    candidates = contents(versions)
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    for one in candidates:
        try:
            data = locks.get_version(name, one.version)
        except ObjectNotFound:
            continue  # its lock had ended, and a collector has removed it
        if judge.is_genuine(name, data):
            return one
    return None
