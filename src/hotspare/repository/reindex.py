"""Making the index again, from the tables of the packs alone."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import msgspec

from hotspare import events
from hotspare.block.pipeline import WORKERS, ordered_map
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, ObjectNotFound, RepositoryDamaged, StorageError
from hotspare.repository.format import DATA, INDEX, META, check_may_write, parse_pack_name
from hotspare.repository.gc.state import read_garbage_state
from hotspare.repository.index import PackRecord, Segment
from hotspare.repository.pack import FOOT, HEAD, Entry, open_table, read_head, table_place
from hotspare.repository.repository import Repository
from hotspare.repository.session import session_held
from hotspare.repository.survey import Problem
from hotspare.storage.backend import ObjectInfo
from hotspare.units import KIB

_ROWS_MAX = 1 << 19
"""Rows of a segment made here."""
_TAIL = 64 * KIB
"""Bytes at the end of a pack that are read in one request; most tables are within."""


class ReindexReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was listed, and what could not be."""

    packs: int
    chunks: int
    segments: int
    problems: list[Problem]
    """Packs whose table cannot be read; which restore points need them, ``check`` tells."""


class _Listed(NamedTuple):
    name: str
    record: PackRecord | None
    entries: list[Entry]
    detail: str = ""


def rebuild_index(
    repository: Repository, listener: events.Listener, cancellation: Cancellation
) -> ReindexReport:
    """List every pack's chunks in new segments, which replace those that are there.

    A segment that lists a pack whose table cannot be read is kept: its rows are all that is left to find
    that pack's chunks with. Backups may run meanwhile; the segments that they publish stay. Old segments are
    passed over from then on; ``prune`` removes them.

    Raises:
        HotspareError: garbage is being collected.
        RunExpelled: this run was suspended for so long that a collector gave it up.
        StorageError: the store cannot be listed or written.
        Interrupted: ``cancellation`` was requested; the old index is as it was.
    """
    check_may_write(repository.config, repository.backend.url)
    # With the session first, either we see what a collector has condemned, or it waits for us to end.
    with session_held(repository.backend, repository.keyring, repository.surroundings.heart) as session:
        _refuse_beside_prune(repository)
        session.stores()
        report = _rebuild(repository, session.id, listener, cancellation)
        session.refuse_expelled(
            "Backups and restores go on with what there was; the new index is not counted on"
        )
    return report


def _refuse_beside_prune(repository: Repository) -> None:
    """Chunks of condemned packs may be needed still, but nothing new may name them: let that end first."""
    if read_garbage_state(repository.backend, repository.keyring).condemned:
        raise HotspareError(
            f"Garbage is being collected in {repository.backend.url}, or was when a prune was stopped",
            meaning="The index was left as it is",
            hint="Wait for the running 'hotspare repo prune', or run it once more to finish",
        )


def _rebuild(
    repository: Repository, session: str, listener: events.Listener, cancellation: Cancellation
) -> ReindexReport:
    listener(events.PhaseStarted("repository", "reindex"))
    rebuild = _Rebuild(repository, session)
    packs = (item for kind in (DATA, META) for item in repository.backend.list(kind + "/"))
    for listed in ordered_map(_Rebuild.read, packs, [rebuild] * WORKERS):
        cancellation.check()
        rebuild.take_in(listed)
    rebuild.finish()
    repository.forget_index()
    return ReindexReport(
        packs=rebuild.packs, chunks=rebuild.chunks, segments=rebuild.segments, problems=rebuild.problems
    )


class _Rebuild:
    def __init__(self, repository: Repository, session: str) -> None:
        self.packs = 0
        self.chunks = 0
        self.segments = 0
        self.problems: list[Problem] = []
        self._repository = repository
        self._session = session
        self._old = [item.name for item in repository.backend.list(INDEX)]
        self._unlisted: set[bytes] = set()
        self._records: list[PackRecord] = []
        self._entries: list[tuple[int, Entry]] = []

    def read(self, item: ObjectInfo) -> _Listed:
        """Read one pack's table. Any thread."""
        parsed = parse_pack_name(item.name)
        if parsed is None:
            return _Listed(item.name, None, [], "is no pack, by its name")
        kind, digest = parsed
        try:
            epoch, seed, entries = self._table(item)
        except (RepositoryDamaged, StorageError, ObjectNotFound) as error:
            return _Listed(item.name, None, [], error.what)
        return _Listed(item.name, PackRecord(kind, digest, item.size, epoch, seed), entries)

    def take_in(self, listed: _Listed) -> None:
        if listed.record is None:
            self.problems.append(Problem(object=listed.name, detail=listed.detail, points=()))
            parsed = parse_pack_name(listed.name)
            if parsed is not None:
                self._unlisted.add(parsed[1])
            return
        self.packs += 1
        self.chunks += len(listed.entries)
        self._entries.extend((len(self._records), entry) for entry in listed.entries)
        self._records.append(listed.record)
        if len(self._entries) >= _ROWS_MAX:
            self._publish(())

    def finish(self) -> None:
        """Publish the rest, and only with it what all the new segments replace."""
        replaced = tuple(name for name in self._old if self._may_go(name))
        if self._entries or replaced:
            self._publish(replaced)

    def _publish(self, replaces: tuple[str, ...]) -> None:
        segment = replace(Segment.of(self._records, self._entries, replaces), session=self._session)
        name, data = segment.seal(self._repository.keyring)
        self._repository.backend.put(name, [data])
        self._records, self._entries = [], []
        self.segments += 1

    def _may_go(self, name: str) -> bool:
        if not self._unlisted:
            return True
        try:
            segment = Segment.open(self._repository.keyring, name, self._repository.backend.get(name))
        except (RepositoryDamaged, ObjectNotFound):
            return True
        return self._unlisted.isdisjoint(record.digest for record in segment.packs)

    def _table(self, item: ObjectInfo) -> tuple[int, bytes, list[Entry]]:
        backend, keyring = self._repository.backend, self._repository.keyring
        if item.size < HEAD.size + FOOT.size:
            raise RepositoryDamaged(f"{item.name} is truncated")
        epoch, seed = read_head(backend.get_range(item.name, 0, HEAD.size), item.name)
        tail_at = max(0, item.size - _TAIL)
        tail = backend.get_range(item.name, tail_at, item.size - tail_at)
        start, length = table_place(tail[-FOOT.size :], item.size, item.name)
        if start >= tail_at:
            sealed = tail[start - tail_at : start - tail_at + length]
        else:
            sealed = backend.get_range(item.name, start, length)
        return epoch, seed, list(_within(open_table(keyring, item.name, epoch, seed, start, sealed), start))


def _within(entries: Iterator[Entry], end: int) -> Iterator[Entry]:
    return (entry for entry in entries if HEAD.size <= entry.offset <= entry.offset + entry.length <= end)
