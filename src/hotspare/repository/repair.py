"""Making good what can be made good, and telling who is hit by the rest.

    damaged pack -> parity gives it back? it is put again under its name, when it hashes to it
                 -> else its damaged chunks are noted: the next backup stores them again

Nothing is removed but notes of damage that are no longer true. A run is a writer to collectors of garbage:
a pack that it looks at does not go away, but for those that were condemned before, which it passes over.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
from blake3 import blake3

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, StorageError
from hotspare.repository.check import check_structure
from hotspare.repository.damaged import PREFIX, rows_in, store_damaged
from hotspare.repository.disk_map import DiskMap, chunk_count, without_holes
from hotspare.repository.format import CHUNK_ID_SIZE, HOLE, PARITY, check_may_write
from hotspare.repository.gc.state import read_garbage_state
from hotspare.repository.index import ChunkIndex
from hotspare.repository.index.cache import SegmentSource
from hotspare.repository.index.table import Table
from hotspare.repository.pack import pack_cipher
from hotspare.repository.parity import build_parity, parity_name
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.scrub import SUBJECT, ScrubbedPack, list_packs, scrub_packs
from hotspare.repository.session import session_held
from hotspare.repository.survey import Problem, leaf_ids
from hotspare.repository.verify_packs import check_entry, examine_pack


class RepairReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found and done; with ``dry_run``, what would be done."""

    packs: int
    bytes: int
    """Of packs that were read."""
    healed: tuple[str, ...]
    """Packs that parity gave back."""
    parity_renewed: tuple[str, ...]
    """Packs whose parity was damaged or missing, and made anew."""
    dropped: dict[str, int]
    """Packs that stay damaged: how many chunks of each are not counted on any more."""
    problems: list[Problem]
    """What restore points lack after the repair, until a backup heals it."""


@dataclass
class _Found:
    """What the packs are like."""

    damaged: dict[str, str] = field(default_factory=dict)
    healed: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    bytes: int = 0


def repair_repository(
    repository: Repository, listener: events.Listener, cancellation: Cancellation, *, dry_run: bool
) -> RepairReport:
    """Read all packs and repair what is damaged.

    Raises:
        RepositoryDamaged: an index segment cannot be used.
        Interrupted: ``cancellation`` was requested; packs that were healed stay healed.
    """
    check_may_write(repository.config, repository.backend.url)
    if dry_run:
        return _repair(repository, listener, cancellation, dry_run=True)
    with session_held(repository.backend, repository.keyring, repository.surroundings.heart):
        return _repair(repository, listener, cancellation, dry_run=False)


def _repair(
    repository: Repository, listener: events.Listener, cancellation: Cancellation, *, dry_run: bool
) -> RepairReport:
    going = read_garbage_state(repository.backend, repository.keyring).condemned_packs
    listener(events.PhaseStarted(SUBJECT, "repair"))
    repository.count_on_all_but({})
    known_packs = {pack.name: pack.digest for pack in repository.index().packs if pack.name not in going}
    items = [item for item in list_packs(repository.backend) if item.name not in going]
    found = _Found()
    with_parity = {item.name for item in repository.backend.list(PARITY)}
    for pack in scrub_packs(repository.backend, items, with_parity, listener, cancellation):
        _take_in(repository, pack, found, has_parity=parity_name(pack.name) in with_parity, dry_run=dry_run)
    there = {item.name for item in items}
    found.damaged |= {name: "is missing" for name in known_packs if name not in there}
    damaged = _damaged_chunks(repository, found.damaged, known_packs, cancellation)
    if not dry_run:
        store_damaged(repository.backend, repository.keyring, damaged)
    repository.count_on_all_but(damaged)
    problems = [
        problem
        for problem in check_structure(repository, events.ignore, cancellation).problems
        if problem.object not in found.healed  # in a dry run they are still as they were
    ]
    names = {digest: name for name, digest in known_packs.items()}
    return RepairReport(
        packs=len(items),
        bytes=found.bytes,
        healed=tuple(found.healed),
        parity_renewed=tuple(found.renewed),
        dropped={names[digest]: len(prefixes) for digest, prefixes in damaged.items()},
        problems=problems,
    )


def _take_in(
    repository: Repository, pack: ScrubbedPack, found: _Found, *, has_parity: bool, dry_run: bool
) -> None:
    """Heal one pack, or its parity, or note that it is damaged."""
    found.bytes += pack.size
    backend = repository.backend
    if pack.detail and pack.whole is None:
        found.damaged[pack.name] = pack.detail
        return
    if pack.whole is not None:
        found.healed.append(pack.name)
        if not dry_run:
            backend.put(pack.name, [pack.whole])
    if pack.parity or (repository.config.parity and not has_parity):
        found.renewed.append(pack.name)
        if not dry_run:
            data = backend.get(pack.name)
            parts = build_parity(memoryview(data), blake3(data).digest(), repository.config.parity or 1)
            backend.put(parity_name(pack.name), parts)


def _damaged_chunks(
    repository: Repository,
    packs: Mapping[str, str],
    digests: Mapping[str, bytes],
    cancellation: Cancellation,
) -> dict[bytes, frozenset[bytes]]:
    """Give the chunks of damaged packs that cannot be read, or of which nobody can tell.

    Args:
        repository: counting on all its chunks.
        packs: damaged ones, and how they are.
        digests: of all packs that the index knows, by name.
        cancellation: looked at between packs.
    """
    tables = list(SegmentSource(repository.backend, repository.keyring, None).tables().values())
    reader = repository.reader()
    damaged: dict[bytes, frozenset[bytes]] = {}
    for name in packs.keys() & digests.keys():
        cancellation.check()
        rows = [rows_in(table, digests[name]) for table in tables]
        listed = frozenset(part.prefix(row) for part in rows for row in range(len(part)))
        try:
            data = repository.backend.get(name)
        except StorageError:
            data = b""
        looked_at = examine_pack(repository, reader, name, data, packs[name])
        good = {chunk_id[:PREFIX] for chunk_id in looked_at.good}
        if data and not looked_at.good and not looked_at.bad:  # its table is lost, its chunks perhaps not
            good = _readable(repository, tables, digests[name], data, cancellation)
        if listed - good:
            damaged[digests[name]] = listed - good
    return _with_deltas(repository, tables, damaged)


def _with_deltas(
    repository: Repository, tables: Iterable[Table], damaged: dict[bytes, frozenset[bytes]]
) -> dict[bytes, frozenset[bytes]]:
    """Add the deltas whose bases are lost."""
    lost = frozenset[bytes]().union(*damaged.values())
    if not lost:
        return damaged
    repository.count_on_all_but(damaged)
    index = repository.index()
    joined = dict(damaged)
    for table in tables:
        for row, found in zip(table.delta_rows.tolist(), table.delta_bases, strict=True):
            base = found.tobytes()
            if base[:PREFIX] in lost and index.find(base) is None:
                digest = table.packs[int(table.pack[row])].digest
                joined[digest] = joined.get(digest, frozenset()) | {table.prefix(row)}
    return joined


def _readable(
    repository: Repository, tables: Iterable[Table], digest: bytes, data: bytes, cancellation: Cancellation
) -> set[bytes]:
    """Give which chunks of a pack that has lost its table can be read, of those that restore points need.

    Their place is known from the index, but opening one takes its whole id, which only tables and maps have.
    """
    places = ChunkIndex()
    places.load_tables([rows for table in tables if len(rows := rows_in(table, digest))])
    reader = repository.reader()
    good: set[bytes] = set()
    seen: set[bytes] = set()

    def look_at(chunk_id: bytes) -> None:
        location = places.find(chunk_id) if chunk_id not in seen else None
        seen.add(chunk_id)
        if location is not None:
            cipher = pack_cipher(repository.keyring, location.pack.epoch, location.pack.seed)
            if check_entry(repository, reader, cipher, data, location.entry) is not None:
                good.add(chunk_id[:PREFIX])

    def load(page_id: bytes) -> bytes:
        look_at(page_id)
        return reader.read(page_id)

    for page in _pages(repository, repository.points(lambda _name, _error: None), load):
        cancellation.check()
        ids = without_holes(page)
        for at in range(0, len(ids), CHUNK_ID_SIZE):
            look_at(ids[at : at + CHUNK_ID_SIZE])
    return good


def _pages(
    repository: Repository, points: Iterable[RestorePoint], load: Callable[[bytes], bytes]
) -> Iterator[bytes]:
    """Yield each leaf page of the points once, as far as they can be read."""
    seen: set[bytes] = {HOLE}
    for point in points:
        for content in point.contents:
            try:
                disk_map = DiskMap(
                    load, content.root, chunk_count(content.size, repository.config.chunk_size)
                )
            except HotspareError:
                continue
            for number, page_id in enumerate(leaf_ids(disk_map)):
                if page_id not in seen:
                    seen.add(page_id)
                    with suppress(HotspareError):
                        yield disk_map.leaf(number)
