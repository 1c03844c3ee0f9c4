"""What was found damaged and could not be made good: chunks that nobody may count on any more.

    a sealed record (``record.py``): {digest of a pack: 16-byte id prefixes, concatenated}

The objects ``damaged/<16 hex>`` together are taken out of the index as it is loaded. So such a chunk is
unknown: the next backup that meets its content stores it again, which heals every restore point that
needs it, and a copy of the chunk in another pack is what readers get.
"""

import secrets
import sys
from collections.abc import Mapping

import numpy as np

from hotspare.errors import ObjectNotFound, RepositoryDamaged
from hotspare.repository.format import DAMAGED
from hotspare.repository.index.table import Table
from hotspare.repository.keys import Keyring
from hotspare.repository.record import RecordForm, open_record, seal_record
from hotspare.storage.backend import Backend

FORM = RecordForm(b"HSDAMG\x00\x01", b"damaged", size_max=sys.maxsize)
"""As long as it has to be: what it lists must not be counted on again."""
PREFIX = 16

DamagedChunks = Mapping[bytes, frozenset[bytes]]
"""By the digest of a pack, the first 16 bytes of the ids of its chunks that are not to be counted on."""


def load_damaged(backend: Backend, keyring: Keyring) -> dict[bytes, frozenset[bytes]]:
    """Join all records of damage. One that is damaged itself is passed over: repair writes it anew."""
    joined: dict[bytes, frozenset[bytes]] = {}
    for item in backend.list(DAMAGED):
        try:
            for digest, prefixes in open_damaged(keyring, item.name, backend.get(item.name)).items():
                joined[digest] = joined.get(digest, frozenset()) | prefixes
        except (RepositoryDamaged, ObjectNotFound):
            continue
    return joined


def store_damaged(backend: Backend, keyring: Keyring, damaged: DamagedChunks) -> None:
    """Make this the repository's only record of damage; with nothing in it, there is none."""
    before = [item.name for item in backend.list(DAMAGED)]
    if damaged:
        name = DAMAGED + secrets.token_hex(8)
        backend.put(name, [seal_damaged(keyring, name, damaged)])
    for old in before:
        backend.delete(old)


def seal_damaged(keyring: Keyring, name: str, damaged: DamagedChunks) -> bytes:
    """Give the bytes of a record."""
    listed = {digest: b"".join(sorted(prefixes)) for digest, prefixes in sorted(damaged.items())}
    return seal_record(keyring, name, listed, FORM)


def open_damaged(keyring: Keyring, name: str, data: bytes) -> dict[bytes, frozenset[bytes]]:
    """Read a record. Raises ``RepositoryDamaged``."""
    damage = RepositoryDamaged(
        f"The record of damage {name} is not what was written",
        meaning="What it lists may be counted on again until the next repair",
        hint="Run 'hotspare repo repair'",
    )
    listed = open_record(keyring, name, data, dict[bytes, bytes], FORM, damage)
    return {
        digest: frozenset(prefixes[at : at + PREFIX] for at in range(0, len(prefixes), PREFIX))
        for digest, prefixes in listed.items()
    }


def without_damaged(table: Table, damaged: DamagedChunks) -> Table:
    """Give a table without the rows of damaged chunks, and without packs that no row is left of."""
    keep = np.ones(len(table), dtype=np.bool_)
    for number, pack in enumerate(table.packs):
        listed = damaged.get(pack.digest)
        if listed is None:
            continue
        for row in np.flatnonzero(table.pack == number).tolist():
            keep[row] = table.prefix(row) not in listed
    return table if keep.all() else table.only(np.flatnonzero(keep))


def rows_in(table: Table, digest: bytes) -> Table:
    """Give a table of the rows that point into one pack."""
    numbers = [number for number, pack in enumerate(table.packs) if pack.digest == digest]
    return table.only(np.flatnonzero(np.isin(table.pack, numbers)))
