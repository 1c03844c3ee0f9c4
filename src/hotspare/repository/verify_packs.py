"""Verifying all packs, the longest unverified first, within bounds, going on where the last run was stopped.

Each pack is read once, in one piece: its bytes are compared with its name, and every chunk in it is
deciphered, decompressed and compared with its id.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import numpy as np
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hotspare import events
from hotspare.block.pipeline import WORKERS, ordered_map
from hotspare.cancellation import Cancellation
from hotspare.errors import ObjectNotFound, RepositoryDamaged, StorageError
from hotspare.repository import codec
from hotspare.repository.format import parse_pack_name
from hotspare.repository.pack import HEAD, Entry, open_entry, pack_cipher, read_head, read_table
from hotspare.repository.point import RestorePoint
from hotspare.repository.reader import ChunkReader
from hotspare.repository.repository import Repository
from hotspare.repository.scrub import SUBJECT, list_packs
from hotspare.repository.survey import Problem, Survey, slots_without_holes
from hotspare.repository.verify_log import VerifyLog
from hotspare.storage.backend import ObjectInfo

_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of the packs is verified in one run, and how quickly."""

    bytes_max: int | None = None
    seconds_max: float | None = None
    bytes_per_second: int | None = None
    clock: Callable[[], float] = time.monotonic


class PacksReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was read, what is left, and what is wrong."""

    packs: int
    packs_left: int
    """That the bounds left for the next run."""
    chunks: int
    bytes: int
    """Plaintext of the chunks."""
    bytes_read: int
    problems: list[Problem]


class BadPack(NamedTuple):
    """A pack that is not what was written."""

    name: str
    detail: str
    good: frozenset[bytes]
    """Ids of the chunks in it that can be read all the same."""
    bad: frozenset[bytes]
    """Ids of those that cannot; chunks in neither set are not known to the table, or the table is lost."""


class _Verified(NamedTuple):
    item: ObjectInfo
    chunks: int
    bytes: int
    bad: BadPack | None


def verify_packs(
    repository: Repository,
    points: list[RestorePoint],
    log: VerifyLog,
    bounds: Bounds,
    listener: events.Listener,
    cancellation: Cancellation,
) -> PacksReport:
    """Verify packs, and name what of the points is hit by those that are damaged.

    Raises:
        RepositoryDamaged: an index segment cannot be used, so that nothing can be said.
        Interrupted: ``cancellation`` was requested; what was verified is remembered.
    """
    listener(events.PhaseStarted(SUBJECT, "verify"))
    repository.index()
    items = {item.name: item for item in list_packs(repository.backend)}
    log.keep_only(items)
    chosen = [items[name] for name in log.by_need(items)]
    total = min(sum(item.size for item in chosen), bounds.bytes_max or 1 << 62)
    listener(events.DiskStarted(SUBJECT, "packs", total, total, "verify"))
    counted = {"packs": 0, "chunks": 0, "bytes": 0, "read": 0}
    bad: list[BadPack] = []
    readers = [repository.reader() for _ in range(WORKERS)]

    def work(reader: ChunkReader, item: ObjectInfo) -> _Verified:
        return _verify_pack(repository, reader, item)

    with closing(ordered_map(work, _paced(chosen, bounds, cancellation), readers)) as verified:
        for one in verified:
            counted["packs"] += 1
            counted["chunks"] += one.chunks
            counted["bytes"] += one.bytes
            counted["read"] += one.item.size
            if one.bad is None:
                log.note(one.item.name, datetime.now(UTC))
            else:
                bad.append(one.bad)
            listener(events.Progress(SUBJECT, "packs", counted["read"], counted["read"]))
            cancellation.check()
    listener(events.DiskFinished(SUBJECT, "packs"))
    return PacksReport(
        packs=counted["packs"],
        packs_left=len(chosen) - counted["packs"],
        chunks=counted["chunks"],
        bytes=counted["bytes"],
        bytes_read=counted["read"],
        problems=problems_of(repository, points, bad),
    )


def examine_pack(repository: Repository, reader: ChunkReader, name: str, data: bytes, detail: str) -> BadPack:
    """Tell the readable chunks of a damaged pack from the others."""
    try:
        entries, cipher = _open_pack(repository, name, data)
    except RepositoryDamaged:
        return BadPack(name, detail, frozenset(), frozenset())
    sizes = {entry.id: check_entry(repository, reader, cipher, data, entry) for entry in entries}
    good = frozenset(chunk_id for chunk_id, size in sizes.items() if size is not None)
    return BadPack(name, detail, good, frozenset(entry.id for entry in entries) - good)


def problems_of(
    repository: Repository, points: list[RestorePoint], bad_packs: list[BadPack]
) -> list[Problem]:
    """Name the disks and ranges of the points that need what cannot be read in damaged packs."""
    if not bad_packs:
        return []
    index = repository.index()
    by_number = {
        number: bad for number, pack in enumerate(index.packs) for bad in bad_packs if bad.name == pack.name
    }
    survey = Survey(repository, points)
    for bad in bad_packs:
        survey.damage.on_object(bad.name, bad.detail)
    for _, _, disk_map in survey.disks():
        for number, page_id, chunk_ids in survey.new_pages(disk_map):
            positions = index.positions(chunk_ids)
            known = positions >= 0
            packs = np.full(len(positions), -1, dtype=np.int64)
            packs[known] = index.pack_numbers(positions[known])
            for hit in np.intersect1d(packs, list(by_number)).tolist():
                bad = by_number[hit]
                slots = slots_without_holes(disk_map.leaf(number))
                lost = [
                    int(slots[at])
                    for at in np.flatnonzero(packs == hit).tolist()
                    if chunk_ids[at * 32 : at * 32 + 32] not in bad.good
                ]
                if lost:
                    survey.damage.on_page(bad.name, bad.detail, page_id, lost)
    return survey.problems()


def _paced(items: list[ObjectInfo], bounds: Bounds, cancellation: Cancellation) -> Iterator[ObjectInfo]:
    """Yield items as long as the bounds allow, and not sooner than the rate does. Always yields the first."""
    began = bounds.clock()
    begun = 0
    for item in items:
        elapsed = bounds.clock() - began
        if begun and (
            (bounds.bytes_max is not None and begun + item.size > bounds.bytes_max)
            or (bounds.seconds_max is not None and elapsed >= bounds.seconds_max)
        ):
            return
        if bounds.bytes_per_second:
            due = began + begun / bounds.bytes_per_second
            while bounds.clock() < due:
                cancellation.check()
                time.sleep(min(_LOOK_SECONDS, max(0.0, due - bounds.clock())))
        cancellation.check()
        yield item
        begun += item.size


def _verify_pack(repository: Repository, reader: ChunkReader, item: ObjectInfo) -> _Verified:
    parsed = parse_pack_name(item.name)
    detail = ""
    data = b""
    try:
        data = repository.backend.get(item.name)
    except ObjectNotFound:
        return _Verified(item, 0, 0, None)  # collected since it was listed; whether it is needed, check tells
    except StorageError as error:
        detail = f"cannot be read: {error.what}"
    if not detail and (parsed is None or blake3(data).digest() != parsed[1]):
        detail = "has other bytes than were written"
    if detail:
        return _Verified(item, 0, 0, examine_pack(repository, reader, item.name, data, detail))
    try:
        entries, cipher = _open_pack(repository, item.name, data)
    except RepositoryDamaged as error:
        return _Verified(item, 0, 0, BadPack(item.name, error.what, frozenset(), frozenset()))
    sizes = {entry.id: check_entry(repository, reader, cipher, data, entry) for entry in entries}
    lost = frozenset(chunk_id for chunk_id, size in sizes.items() if size is None)
    bad = None
    if lost:
        detail = f"has {len(lost)} chunks that are not what their ids say"
        bad = BadPack(item.name, detail, frozenset(sizes) - lost, lost)
    return _Verified(item, len(entries), sum(size or 0 for size in sizes.values()), bad)


def _open_pack(repository: Repository, name: str, data: bytes) -> tuple[list[Entry], AESGCM]:
    """Give a pack's entries and their cipher. Raises ``RepositoryDamaged``."""
    epoch, seed = read_head(data[: HEAD.size], name)
    return list(read_table(repository.keyring, name, data)), pack_cipher(repository.keyring, epoch, seed)


def check_entry(
    repository: Repository, reader: ChunkReader, cipher: AESGCM, data: bytes, entry: Entry
) -> int | None:
    """Give the bytes of a chunk's plaintext, or None when it cannot be read or is not what its id says.

    Args:
        repository: opened.
        reader: gives the bases of deltas.
        cipher: of the pack.
        data: the pack's bytes.
        entry: one of the pack's.
    """
    sealed = memoryview(data)[entry.offset : entry.offset + entry.length]
    try:
        payload = open_entry(cipher, repository.keyring, entry, sealed)
        base = reader.read_base(entry.base) if entry.base else None
        plaintext = memoryview(codec.decode(entry.codec, payload, repository.chunk_size_max, base))
    except (RepositoryDamaged, StorageError, InvalidTag, ValueError):
        return None
    return len(plaintext) if repository.keyring.chunk_id(plaintext) == entry.id else None
