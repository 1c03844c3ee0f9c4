"""What the folder ``gc/`` says: condemned packs, expelled sessions, what of these counts all the same."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from hotspare.errors import ObjectNotFound
from hotspare.repository.format import CONDEMNED, EXPELLED, SETTLED, pack_name
from hotspare.repository.gc.forgotten import list_forgotten
from hotspare.repository.keys import Keyring
from hotspare.repository.record import open_record, seal_record
from hotspare.repository.session import settled_name
from hotspare.storage.backend import Backend

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True)
class Expulsions:
    """Sessions that were given up, and the restore points of theirs that count all the same."""

    expelled: frozenset[str]
    settled: Mapping[str, tuple[frozenset[str], ...]]
    """By session: the adopted points of each record about it; a point counts when all records name it."""
    forgotten: frozenset[tuple[str, str]] = frozenset()
    """Points that were forgotten: the session that wrote each, and its object name."""

    def counts(self, point_name: str, session: str) -> bool:
        """Tell whether a restore point is one, judged by the session that wrote it.

        Until the first record about an expelled session is there, its points count: a run that was
        told of its success just before it was expelled must not lose its point for a moment.
        """
        if (session, point_name) in self.forgotten:
            return False
        if session not in self.expelled:
            return True
        return all(point_name in adopted for adopted in self.settled.get(session, ()))

    @property
    def unsettled(self) -> frozenset[str]:
        """Sessions about which no collector has said yet what counts."""
        return self.expelled - self.settled.keys()


@dataclass(frozen=True, slots=True)
class GarbageState:
    """All of ``gc/``, as it was when each part was listed."""

    condemned: Mapping[str, frozenset[str]]
    """By collector's run: the names of the packs that it will delete, whatever happens."""
    expulsions: Expulsions

    @property
    def condemned_packs(self) -> frozenset[str]:
        """The names of all condemned packs."""
        return frozenset().union(*self.condemned.values())


def read_garbage_state(backend: Backend, keyring: Keyring) -> GarbageState:
    """Read ``gc/``.

    Condemned sets are listed before expulsions: a set is removed only after the expulsions of its run are
    settled, so who does not see a set any more sees what it settled.
    """
    condemned = {}
    for item in backend.list(CONDEMNED):
        packs = _get(backend, keyring, item.name, list[tuple[str, bytes]])
        if packs is not None:
            condemned[item.name.removeprefix(CONDEMNED)] = frozenset(pack_name(*pack) for pack in packs)
    return GarbageState(condemned, read_expulsions(backend, keyring))


def read_expulsions(backend: Backend, keyring: Keyring) -> Expulsions:
    """Read which sessions were expelled, what was adopted of them, and what was forgotten."""
    expelled = frozenset(item.name.removeprefix(EXPELLED) for item in backend.list(EXPELLED))
    settled: dict[str, tuple[frozenset[str], ...]] = {}
    if expelled:
        for item in backend.list(SETTLED):
            adopted = _get(backend, keyring, item.name, list[str])
            if adopted is not None:
                session = item.name.removeprefix(SETTLED).partition("/")[0]
                settled[session] = (*settled.get(session, ()), frozenset(adopted))
    forgotten = frozenset((note.session, note.point) for note in list_forgotten(backend))
    return Expulsions(expelled, settled, forgotten)


def put_condemned(backend: Backend, keyring: Keyring, run: str, packs: Iterable[tuple[str, bytes]]) -> None:
    """Condemn packs (kind and digest) for good."""
    name = CONDEMNED + run
    backend.put(name, [seal_record(keyring, name, sorted(packs))])


def put_settled(backend: Backend, keyring: Keyring, run: str, session: str, points: Iterable[str]) -> None:
    """Say which points of an expelled session count."""
    name = settled_name(session, run)
    backend.put(name, [seal_record(keyring, name, sorted(points))])


def _get(backend: Backend, keyring: Keyring, name: str, kind: type[Content]) -> Content | None:
    try:
        return open_record(keyring, name, backend.get(name), kind)
    except ObjectNotFound:
        return None  # removed since it was listed, which is as if it had been removed before
