"""The safety steps of the protocol, each with a way to leave it out, for the test that the simulator notices.

A mutation is a patch of the program; the program itself has no such switch.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

from hotspare.repository import reindex, repair
from hotspare.repository import repository as repository_module
from hotspare.repository.gc import collect
from hotspare.repository.gc.collect import Collector
from hotspare.repository.gc.mark import Marks
from hotspare.repository.gc.state import Expulsions, GarbageState
from hotspare.repository.gc.wait import Watch
from hotspare.repository.index import ChunkIndex
from hotspare.repository.repository import Repository
from hotspare.repository.writer import RepositoryWriter
from tests.simulation import races

# Several runs are under way at once: a mutation must never patch a class for the time of one call.


@contextmanager
def points_listed_once() -> Iterator[None]:
    """The collector relies on the points that it listed before it condemned."""
    list_points = Collector._list_points

    def list_once(self: Any, state: GarbageState) -> Any:
        if not hasattr(self, "first_listing"):
            self.first_listing = list_points(self, state)
        return self.first_listing

    with patch.object(Collector, "_list_points", list_once):
        yield


@contextmanager
def writer_does_not_look_whether_it_was_expelled() -> Iterator[None]:
    publish = RepositoryWriter.publish

    def publish_blindly(self: Any, point: Any) -> None:
        self._session.expelled = lambda: False
        publish(self, point)

    with patch.object(RepositoryWriter, "publish", publish_blindly):
        yield


@contextmanager
def writer_refers_to_condemned_packs() -> Iterator[None]:
    """A chunk in a condemned pack counts as stored."""
    with patch.object(ChunkIndex, "is_sound", lambda *_: True):
        yield


@contextmanager
def inherited_references_are_not_looked_at() -> Iterator[None]:
    with patch.object(RepositoryWriter, "keep_inherited", lambda *_: None):
        yield


@contextmanager
def sessions_listed_before_condemning() -> Iterator[None]:
    """Who begins between the listing and the condemned set is neither waited for nor warned."""
    condemn, listed = Collector._condemn, Collector._sessions_to_wait_for

    def condemn_late(self: Any, names: list[str]) -> None:
        self.listed_early = listed(self)
        condemn(self, names)

    with (
        patch.object(Collector, "_condemn", condemn_late),
        patch.object(Collector, "_sessions_to_wait_for", lambda self: self.listed_early),
    ):
        yield


@contextmanager
def sessions_are_not_waited_for() -> Iterator[None]:
    with patch.object(Watch, "wait", lambda *_: None):
        yield


@contextmanager
def collector_does_not_look_whether_it_was_expelled() -> Iterator[None]:
    with patch.object(Collector, "_refuse_expelled", lambda _self: None):
        yield


@contextmanager
def packs_of_live_sessions_are_taken_for_garbage() -> Iterator[None]:
    with patch.object(Collector, "_sessions_before", lambda _self: set()):
        yield


@contextmanager
def sessions_listed_before_packs() -> Iterator[None]:
    """Whose pack is in the listing of packs may have begun after the listing of sessions."""
    sessions, packs = Collector._sessions_before, Collector._list_packs

    def list_packs(self: Any) -> dict[str, int]:
        if not hasattr(self, "listed_sessions"):
            self.listed_sessions = sessions(self)
        return packs(self)

    with (
        patch.object(Collector, "_list_packs", list_packs),
        patch.object(Collector, "_sessions_before", lambda self: self.listed_sessions),
    ):
        yield


@contextmanager
def other_collectors_are_not_heeded() -> Iterator[None]:
    """A chunk that also lies in a pack which another collector condemned counts as safe there."""
    read = Collector._read_state

    def read_own(self: Any) -> GarbageState:
        state = read(self)
        own = {run: packs for run, packs in state.condemned.items() if run == self.session.id}
        self._known_condemned = frozenset().union(*own.values())
        return GarbageState(own, state.expulsions)

    with patch.object(Collector, "_read_state", read_own):
        yield


@contextmanager
def points_of_expelled_sessions_always_count() -> Iterator[None]:
    with patch.object(Expulsions, "counts", lambda *_: True):
        yield


@contextmanager
def points_of_expelled_sessions_never_count() -> Iterator[None]:
    """What was reported as a success just before the expulsion is not adopted."""
    with patch.object(Expulsions, "counts", lambda self, _name, session: session not in self.expelled):
        yield


@contextmanager
def index_loaded_before_the_session() -> Iterator[None]:
    """The writer goes on with the index, and with what it knows of ``gc/``, from before its session."""
    writer = Repository.writer

    def writer_of_old(self: Any) -> RepositoryWriter:
        index = self.load_index()
        self.load_index = lambda: index
        return writer(self)

    with patch.object(Repository, "writer", writer_of_old):
        yield


@contextmanager
def parent_chosen_before_the_session() -> Iterator[None]:
    """The points are listed before the session is known."""
    writer = Repository.writer

    def writer_of_old(self: Any) -> RepositoryWriter:
        listed = self.points()
        self.machine_points = lambda machine_id, _warn: [
            point for point in listed if point.machine_id == machine_id
        ]
        return writer(self)

    with patch.object(Repository, "writer", writer_of_old):
        yield


@contextmanager
def bases_are_not_marked() -> Iterator[None]:
    with patch.object(Marks, "add_bases_of", lambda *_: None):
        yield


@contextmanager
def condemned_sets_removed_beside_other_collectors() -> Iterator[None]:
    with patch.object(collect, "is_collector", lambda _session: False):
        yield


@contextmanager
def packs_of_others_outlive_their_set() -> Iterator[None]:
    """Only what was there at the first look is deleted, and then the sets of all."""
    look = Collector._look

    def note_first(self: Any, state: GarbageState, sizes: Mapping[str, int]) -> Any:
        if not hasattr(self, "first_sizes"):
            self.first_sizes = frozenset(sizes)
        self._packs_there = self.first_sizes
        return look(self, state, sizes)

    with patch.object(Collector, "_look", note_first):
        yield


@contextmanager
def points_come_back_when_forgotten() -> Iterator[None]:
    """A late duplicate of the PUT of a forgotten point is a point."""
    with patch.object(repository_module, "put_forgotten", lambda *_: None):
        yield


@contextmanager
def repair_has_no_session() -> Iterator[None]:
    with patch.object(repair, "session_held", lambda *_: nullcontext()):
        yield


@contextmanager
def segments_of_reindex_have_no_session() -> Iterator[None]:
    with patch.object(reindex, "replace", lambda segment, **_: segment):
        yield


Mutation = Callable[[], Any]

FOUND_BY_HISTORIES: tuple[Mutation, ...] = (
    points_listed_once,
    writer_does_not_look_whether_it_was_expelled,
    sessions_are_not_waited_for,
    other_collectors_are_not_heeded,
    points_of_expelled_sessions_never_count,
    bases_are_not_marked,
)

FOUND_BY_RACES: Mapping[Mutation, races.Race] = {
    inherited_references_are_not_looked_at: races.an_inherited_pack_goes,
    sessions_listed_before_condemning: races.a_session_begins_just_before_the_packs_are_condemned,
    writer_refers_to_condemned_packs: races.a_session_begins_just_after_the_packs_were_condemned,
    index_loaded_before_the_session: races.a_session_begins_just_after_the_packs_were_condemned,
    packs_of_live_sessions_are_taken_for_garbage: races.a_prune_meets_a_backup_that_has_just_begun,
    sessions_listed_before_packs: races.a_prune_meets_a_backup_that_has_just_begun,
    points_of_expelled_sessions_always_count: races.an_expelled_backup_arrives_after_all,
    parent_chosen_before_the_session: races.a_parent_goes_before_the_session_begins,
    condemned_sets_removed_beside_other_collectors: races.two_prunes_of_which_one_is_quick,
    collector_does_not_look_whether_it_was_expelled: races.two_prunes_of_which_one_is_given_up,
    segments_of_reindex_have_no_session: races.a_reindex_is_given_up,
    repair_has_no_session: races.a_prune_meets_a_repair,
    points_come_back_when_forgotten: races.a_forgotten_point_arrives_again,
    packs_of_others_outlive_their_set: races.a_prune_given_up_while_it_deletes,
}
"""What some hundreds of histories do not find: the interleaving is rare."""


def all_mutations() -> set[Mutation]:
    """Give every mutation of this file."""
    return {
        value
        for value in globals().values()
        if callable(value) and value is not all_mutations and getattr(value, "__module__", "") == __name__
    }
