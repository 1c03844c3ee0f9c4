"""Collecting garbage while others write, without a lock: the order of the steps is what makes it safe.

    begin a session -> mark -> condemn for good -> wait for, or expel, every session that may not know
    -> list the points again, mark again -> copy what is needed out of the condemned packs
    -> publish the index -> make sure that nobody expelled us -> delete

A crash anywhere leaves a state that the next run finishes. docs/repository-format.md, "Collecting garbage",
gives the reasons. tests/simulation takes every step out in turn; its mutations.py says what notices.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, ObjectNotFound, RepositoryDamaged
from hotspare.repository.append_only import require_removable
from hotspare.repository.damaged import without_damaged
from hotspare.repository.format import (
    CONDEMNED,
    DATA,
    META,
    POINTS,
    SESSIONS,
    check_may_collect,
    parse_pack_name,
)
from hotspare.repository.gc.condemn import DEFAULT_KEEP_WASTE, Choice, choose, pack_usage
from hotspare.repository.gc.copy import Mover
from hotspare.repository.gc.forgotten import drop_old
from hotspare.repository.gc.locked import remove_unneeded, renew_needed
from hotspare.repository.gc.mark import Marks, mark_points
from hotspare.repository.gc.replaced import with_doubtful_in_force
from hotspare.repository.gc.report import PruneReport
from hotspare.repository.gc.rewrite import plan_rewrite, publish
from hotspare.repository.gc.state import (
    GarbageState,
    put_condemned,
    put_settled,
    read_expulsions,
    read_garbage_state,
)
from hotspare.repository.gc.view import View, missing_packs, refuse_missing
from hotspare.repository.gc.wait import EXPEL_AFTER, Watch, live_sessions
from hotspare.repository.index import ChunkIndex
from hotspare.repository.index.cache import SegmentSource
from hotspare.repository.object_lock.deleted import refuse_deleted_points
from hotspare.repository.object_lock.purge import Removal
from hotspare.repository.object_lock.store import refuse_without_locks
from hotspare.repository.parity import delete_orphaned_parity, parity_name
from hotspare.repository.point import RestorePoint
from hotspare.repository.reader import ChunkReader
from hotspare.repository.repository import Repository
from hotspare.repository.session import Session, SessionKind, is_collector
from hotspare.repository.tested import drop_orphans

_ATTEMPTS = 4
"""Looks at a repository that other collectors may change at the same time."""


def prune(
    repository: Repository,
    listener: events.Listener,
    cancellation: Cancellation,
    *,
    keep_waste: float = DEFAULT_KEEP_WASTE,
    expel_after: float = EXPEL_AFTER,
    dry_run: bool = False,
) -> PruneReport:
    """Give back the space of what no restore point needs.

    Args:
        repository: others may back up to it, restore from it and prune it at the same time.
        listener: told of the phases.
        cancellation: looked at between steps.
        keep_waste: percent of the packs' bytes that may stay waste.
        expel_after: seconds after which a session without a heartbeat is given up.
        dry_run: only tell.

    Raises:
        RepositoryDamaged: a restore point needs what is damaged; nothing was deleted.
        PermissionRefused: the store is append-only or read-only from here.
        RunExpelled: this run was itself suspended for too long; the next one will finish its work.
        Interrupted: ``cancellation`` was requested.
    """
    check_may_collect(repository.config, repository.backend.url)
    refuse_without_locks(repository.backend, repository.config)
    refuse_deleted_points(repository.backend, repository.keyring)
    collector = Collector(repository, listener, cancellation, keep_waste, expel_after)
    if dry_run:
        return collector.preview()
    require_removable(repository.backend)
    collector.session.begin()
    try:
        with repository.surroundings.heart(collector.session.beat):
            report = collector.run()
    except BaseException:
        with suppress(HotspareError):
            collector.session.leave_failed()
        raise
    # All is done; a session that cannot be removed is the next run's to clear away.
    with suppress(HotspareError):
        collector.session.end()
    return report


class Collector:
    """One run."""

    def __init__(
        self,
        repository: Repository,
        listener: events.Listener,
        cancellation: Cancellation,
        keep_waste: float,
        expel_after: float,
    ) -> None:
        self.session = Session(repository.backend, repository.keyring, SessionKind.COLLECTOR)
        self._repository = repository
        self._backend = repository.backend
        self._keyring = repository.keyring
        self._source = SegmentSource(self._backend, self._keyring, repository.index_folder, check_all=True)
        self._listener = listener
        self._cancellation = cancellation
        self._keep_waste = keep_waste
        self._expel_after = expel_after
        self._known_condemned: frozenset[str] = frozenset()
        """Every pack that was seen condemned at any time of this run: sets may be removed meanwhile."""
        self._missing: frozenset[str] = frozenset()
        """Packs that the index named and the store did not have."""
        self._packs_there: frozenset[str] = frozenset()
        """Packs that were there at the second look, those that came after the first included."""
        self._expelled = 0
        self._renewed = 0
        self._removal = Removal()

    def preview(self) -> PruneReport:
        """Tell what a run would do."""
        sizes = self._list_packs()
        others = live_sessions(self._backend, self.session.id)
        state = self._read_state()
        view = self._look(state, sizes)
        choice = self._choose(view, sizes)
        unindexed = [] if others else self._unindexed(view, sizes)
        doomed = [name for name in self._known_condemned if name in sizes]
        self._renew_locks(view, dry_run=True)
        return self._report(view, sizes, choice, [*doomed, *unindexed], None)

    def run(self) -> PruneReport:
        """Collect."""
        self._phase("mark")
        # The packs first and the sessions then: who stored a pack that is in this list and in no segment
        # is in that list, unless it is over.
        sizes = self._list_packs()
        others = self._sessions_before()
        state = self._read_state()
        view = self._look(state, sizes)
        choice = self._choose(view, sizes)
        unindexed = [] if others else self._unindexed(view, sizes)
        self._condemn([usage.record.name for usage in (*choice.unused, *choice.repacked)] + unindexed)
        # From here on only what is condemned by now is deleted; sets that appear later are the next run's.
        state = self._read_state()
        victims = state.condemned_packs
        self._refuse_expelled()
        self._wait(bool(victims))
        self._phase("copy")
        copied, report_view, garbage = self._save_needed(victims)
        self._renew_locks(report_view)
        self._refuse_expelled()
        self._phase("delete")
        # Of the sets of others as well: a set is removed only when each of its packs is gone.
        deleted = victims & self._packs_there
        self._delete(deleted, garbage, report_view)
        delete_orphaned_parity(self._backend)
        self._clear(state)
        self._removal = remove_unneeded(self._repository, self._cancellation)
        return self._report(report_view, sizes, choice, deleted, copied)

    # The steps.

    def _sessions_before(self) -> set[str]:
        """List the sessions whose packs may not be in a segment yet."""
        return live_sessions(self._backend, self.session.id)

    def _read_state(self) -> GarbageState:
        state = read_garbage_state(self._backend, self._keyring)
        self._known_condemned |= state.condemned_packs
        return state

    def _look(self, state: GarbageState, sizes: Mapping[str, int]) -> View:
        """List points, load the index after them, and mark.

        Another collector may move chunks, and somebody may forget a point, while this goes on; so a look
        that fails is repeated.

        Raises:
            RepositoryDamaged: a point that is still there cannot be marked.
        """
        for attempt in range(_ATTEMPTS):
            points, void = self._list_points(state)
            try:
                return self._mark(points, void, state, sizes)
            except RepositoryDamaged:
                if attempt == _ATTEMPTS - 1:
                    raise
                self._cancellation.check()
                state = self._read_state()
        raise AssertionError

    def _list_points(self, state: GarbageState) -> tuple[dict[str, RestorePoint], list[str]]:
        points: dict[str, RestorePoint] = {}
        void = []
        for item in self._backend.list(POINTS):
            with suppress(ObjectNotFound):  # forgotten since it was listed
                point = self._repository.load_point(item.name)
                if state.expulsions.counts(item.name, point.session):
                    points[item.name] = point
                else:
                    void.append(item.name)
        return points, void

    def _mark(
        self,
        points: dict[str, RestorePoint],
        void: list[str],
        state: GarbageState,
        sizes: Mapping[str, int],
    ) -> View:
        damaged = self._repository.damaged
        segments = with_doubtful_in_force(
            self._source.listing(state.expulsions.expelled),
            lambda packs: self._known_condemned | missing_packs(self._backend, packs, sizes),
            damaged,
        )
        index = ChunkIndex()
        index.load_tables([without_damaged(one.table, damaged) for one in segments.in_force.values()])
        self._missing = missing_packs(self._backend, index.packs, sizes)
        index.avoid(self._known_condemned)
        index.give_up(self._missing)
        reader = ChunkReader(self._backend, self._keyring, index, self._repository.chunk_size_max)
        chunk_size = self._repository.config.chunk_size
        marks = Marks(index, reader, chunk_size, self._cancellation)
        mark_points(marks, points.items())
        marks.add_bases_of(marks.places)
        view = View(points, void, segments, index, marks)
        refuse_missing(view, self._missing, sizes, damaged)
        return view

    def _choose(self, view: View, sizes: Mapping[str, int]) -> Choice:
        usages = pack_usage(view.chunks, view.marks, sizes)
        usages = [one for one in usages if one.record.name not in self._known_condemned]
        return choose(usages, self._keep_waste, self._repository.surroundings.pack_target)

    def _unindexed(self, view: View, sizes: Mapping[str, int]) -> list[str]:
        indexed = {pack.name for pack in view.chunks.packs}
        return [name for name in sizes if name not in indexed and name not in self._known_condemned]

    def _condemn(self, names: Iterable[str]) -> None:
        self.session.stores()
        packs = [pack for pack in map(parse_pack_name, names) if pack is not None]
        if packs:
            put_condemned(self._backend, self._keyring, self.session.id, packs)
            self._known_condemned |= frozenset(names)

    def _sessions_to_wait_for(self) -> set[str]:
        """List, after the condemned set is there, the sessions that may have begun before it was."""
        return live_sessions(self._backend, self.session.id)

    def _wait(self, to_end: bool) -> None:
        self._phase("wait")
        clock = self._repository.surroundings.clock
        beat = self.session.beat
        watch = Watch(self._backend, self._keyring, clock, self._expel_after, beat, to_end)
        watch.wait(self._sessions_to_wait_for(), self._cancellation)
        self._expelled = len(watch.expelled)

    def _save_needed(self, victims: frozenset[str]) -> tuple[int, View, tuple[str, ...]]:
        """Copy what is needed out of condemned packs, settle expelled sessions, and publish the index.

        Gives the bytes copied, the view they are based on, and the segments that are replaced.
        """
        mover = Mover(
            self._backend,
            self._keyring,
            self._repository.surroundings.pack_target,
            self._repository.config.parity,
        )
        for attempt in range(_ATTEMPTS):
            state = self._read_state()
            view = self._look_again(state)
            self._mark_surviving_bases(view)
            try:
                mover.move(view.chunks, view.marks, self._known_condemned, self._cancellation.check)
            except RepositoryDamaged:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue  # another collector has moved it meanwhile
            break
        fresh = mover.finish()
        self._settle(state, view)
        rewrite = plan_rewrite(view.segments, fresh, victims | self._missing, state.expulsions.expelled)
        publish(self._backend, self._keyring, self.session.id, rewrite)
        return mover.bytes_copied, view, rewrite.replaced

    def _look_again(self, state: GarbageState) -> View:
        """List the points again: those of the sessions that were waited for are not known yet."""
        sizes = self._list_packs()
        self._packs_there = frozenset(sizes)
        return self._look(state, sizes)

    def _mark_surviving_bases(self, view: View) -> None:
        """Keep what deltas in surviving packs build upon, needed or not: they may be referred to again."""
        index = view.chunks
        surviving = np.fromiter(
            (pack.name not in self._known_condemned for pack in index.packs), np.bool_, len(index.packs)
        )
        places = np.arange(index.published_rows, dtype=np.int64)
        view.marks.add_bases_of(places[surviving[index.pack_numbers(places)]])

    def _settle(self, state: GarbageState, view: View) -> None:
        for session in sorted(state.expulsions.unsettled):
            adopted = [name for name, point in view.points.items() if point.session == session]
            put_settled(self._backend, self._keyring, self.session.id, session, adopted)

    def _refuse_expelled(self) -> None:
        self.session.refuse_expelled("Nothing was lost; what it condemned will be deleted by the next run")

    def _renew_locks(self, view: View, *, dry_run: bool = False) -> None:
        """Renew before anything is deleted: what cannot be renewed is damage."""
        self._renewed = renew_needed(
            self._repository, view, self._known_condemned, self._cancellation, dry_run=dry_run
        )

    def _delete(self, packs: Iterable[str], segments: Iterable[str], view: View) -> None:
        for name in sorted(packs):
            self._cancellation.check()
            # Its parity first: nothing would lead to it once the pack is gone.
            self._backend.delete(parity_name(name))
            self._backend.delete(name)
        for name in (*segments, *view.void_points):
            self._backend.delete(name)

    def _clear(self, state: GarbageState) -> None:
        """Remove what only served collectors: dead sessions, old notes, condemned sets of nothing."""
        drop_old(self._backend, datetime.now(UTC))
        drop_orphans(self._backend)
        expulsions = read_expulsions(self._backend, self._keyring)
        dead = {session for session in expulsions.expelled if session not in expulsions.unsettled}
        others = live_sessions(self._backend, self.session.id)
        for session in sorted(others & dead):
            self._backend.delete(SESSIONS + session)
        # Another collector may be between its two looks at gc/, and has to find these sets in one of them.
        if any(is_collector(session) for session in others - dead):
            return
        listing = self._source.listing(expulsions.expelled)
        named = {pack.name for one in listing.in_force.values() for pack in one.table.packs}
        for run, packs in state.condemned.items():
            if named.isdisjoint(packs):
                self._backend.delete(CONDEMNED + run)

    # The account.

    def _list_packs(self) -> dict[str, int]:
        return {item.name: item.size for kind in (DATA, META) for item in self._backend.list(kind + "/")}

    def _report(
        self, view: View, sizes: Mapping[str, int], choice: Choice, deleted: Iterable[str], copied: int | None
    ) -> PruneReport:
        chosen = {usage.record.name for usage in (*choice.unused, *choice.repacked)}
        gone = (chosen | set(deleted)) & sizes.keys()
        bytes_copied = sum(usage.needed for usage in choice.repacked) if copied is None else copied
        bytes_deleted = sum(sizes[name] for name in gone)
        return PruneReport(
            dry_run=copied is None,
            points=len(view.points),
            packs=len(sizes),
            bytes=sum(sizes.values()),
            packs_deleted=len(gone),
            bytes_deleted=bytes_deleted,
            packs_repacked=len(choice.repacked),
            bytes_copied=bytes_copied,
            bytes_freed=bytes_deleted - bytes_copied,
            bytes_wasted=choice.waste_left,
            sessions_expelled=self._expelled,
            locks_renewed=self._renewed,
            versions_removed=self._removal.versions,
            bytes_locked=self._removal.bytes_locked,
            locked_until=self._removal.locked_until,
        )

    def _phase(self, phase: str) -> None:
        self._cancellation.check()
        self._listener(events.PhaseStarted("repository", phase))
