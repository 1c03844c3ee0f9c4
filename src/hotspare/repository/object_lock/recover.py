"""Bringing back what somebody deleted or replaced: its locked versions are still there.

    open by the versions of config and key slots -> bring back config, keys, points, records, index
    -> the packs that the index names -> if that is not enough: every pack, and a new index -> renew all locks

Nothing that could be of worth is removed: a marker that hides an object goes, what was put over it stays
below a fresh copy of what was stored.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from typing import Literal

import msgspec

from hotspare import events
from hotspare.block.pipeline import ordered_map
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, RepositoryDamaged, RepositoryNotFound, StorageError
from hotspare.repository.check import CheckReport, check_structure
from hotspare.repository.format import (
    CONDEMNED,
    CONFIG,
    EXPELLED,
    FORGOTTEN,
    KEYS,
    PARITY,
    POINTS,
    SESSIONS,
    is_locked_kind,
    parse_pack_name,
)
from hotspare.repository.gc.forgotten import take_back
from hotspare.repository.keys.slot import Credential
from hotspare.repository.object_lock.deleted import deleted_points
from hotspare.repository.object_lock.genuine import Judge, contents, genuine_version, versions_by_name
from hotspare.repository.object_lock.hidden_keys import open_below
from hotspare.repository.object_lock.inspect import needed_names
from hotspare.repository.reindex import rebuild_index
from hotspare.repository.repository import Repository
from hotspare.repository.survey import Problem
from hotspare.storage.backend import Backend, ObjectLocks, ObjectVersion
from hotspare.storage.wrappers.locking import LockingBackend

_AT_ONCE = 4
"""Objects in memory."""


class RecoverReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was brought back, or with a dry run would be."""

    dry_run: bool
    shown: tuple[str, ...]
    """Objects that were hidden, and are seen again."""
    put_back: tuple[str, ...]
    """Objects that were replaced, and are again what was stored."""
    removed: tuple[str, ...]
    """Objects that somebody else had put there."""
    lost: tuple[str, ...]
    """Objects of which no version is what was stored."""
    points: tuple[str, ...]
    """Ids of the restore points among what was shown or put back."""
    reindexed: bool
    problems: list[Problem]
    """What restore points lack after that."""
    locked_until: datetime | None
    """Until when everything that they need is locked at least; None where that could not be renewed."""


def recover_repository(
    backend: Backend,
    credential: Credential,
    listener: events.Listener,
    cancellation: Cancellation,
    *,
    forgotten: bool = False,
    dry_run: bool = False,
) -> RecoverReport:
    """Bring back what is hidden or replaced. No backup and no prune may run meanwhile.

    Args:
        backend: the store, which keeps versions.
        credential: opens the repository.
        listener: told of the phases.
        cancellation: looked at between objects.
        forgotten: bring back restore points as well that were forgotten with Hotspare.
        dry_run: only tell.

    Raises:
        RepositoryNotFound: the store never had one there.
        WrongKey: the credential fits no key slot that was ever there.
        StorageError: the store keeps no versions.
        Interrupted: ``cancellation`` was requested; begun again, it goes on where it was.
    """
    locks = backend.capabilities.locks
    if locks is None:
        raise StorageError(
            f"{backend.url} keeps no versions of objects",
            meaning="What was deleted there is gone",
            hint="Look for a copy of the repository",
        )
    listener(events.PhaseStarted("repository", "recover"))
    versions = versions_by_name(locks, "")
    if CONFIG not in versions:
        raise RepositoryNotFound(f"There is no repository at {backend.url}, and there was none")
    config, keyring = open_below(backend, locks, versions, credential)
    repository = Repository(backend, config, keyring)
    recovery = _Recovery(repository, locks, versions, cancellation, forgotten=forgotten, dry_run=dry_run)
    recovery.bring_back([name for name in versions if parse_pack_name(name) is None])
    recovery.unforget()
    report = recovery.bring_back_packs(listener)
    return recovery.report(report)


_Deed = Literal["shown", "put back", "removed", "lost"]


class _Recovery:
    def __init__(
        self,
        repository: Repository,
        locks: ObjectLocks,
        versions: Mapping[str, list[ObjectVersion]],
        cancellation: Cancellation,
        *,
        forgotten: bool,
        dry_run: bool,
    ) -> None:
        self._repository = repository
        self._backend = repository.backend
        self._locks = locks
        self._versions = versions
        self._judge = Judge(repository.keyring)
        self._cancellation = cancellation
        self._forgotten = forgotten
        self._dry_run = dry_run
        self._done: dict[str, _Deed] = {}
        self._reindexed = False
        self._deleted_points = frozenset[str]()
        if isinstance(self._backend, LockingBackend):
            self._deleted_points = frozenset(deleted_points(self._backend, repository.keyring))
        self._open_slots = {
            _slot_of(name)
            for name, found in versions.items()
            if name.startswith(KEYS) and not found[0].marker and len(contents(found)) == 1
        }

    def bring_back(self, names: Iterable[str]) -> None:
        """Bring single objects back, several at a time."""
        known = [name for name in names if self._judge.knows(name)]
        with closing(ordered_map(self._bring_back, known, range(_AT_ONCE))) as done:
            for name, deed in done:
                self._cancellation.check()
                if deed is not None:
                    self._done[name] = deed

    def unforget(self) -> None:
        """Take back that what is there again was forgotten: deleted once more, it is to be missed."""
        if self._dry_run:
            return
        back = self._points()
        for name in back:
            self._backend.delete(FORGOTTEN + name)
        sessions = set()
        for name in self._repository.point_names():
            if name.rpartition("/")[2] in back:
                with suppress(HotspareError):  # what cannot be read does not count anyway
                    sessions.add(self._repository.load_point(name).session)
        take_back(self._backend, sessions)

    def bring_back_packs(self, listener: events.Listener) -> CheckReport | None:
        """Bring back the packs that are needed, and give what is missing then."""
        packs = [name for name in self._versions if parse_pack_name(name) is not None]
        hidden = {name for name in packs if self._versions[name][0].marker}
        self.bring_back([name for name in packs if name not in hidden])
        listed = None if self._forgotten else self._listed_packs()
        self.bring_back(hidden if listed is None else hidden & listed)
        if self._dry_run:
            return None
        report = self._check() if listed is not None else None
        if report is None or report.problems:
            self.bring_back(hidden - self._done.keys())
            self._end_all_runs()
            rebuild_index(self._repository, listener, self._cancellation)
            self._reindexed = True
            report = self._check()
        return report

    def _end_all_runs(self) -> None:
        """Give up every run: none is under way, and one that only slept must not go on deleting.

        What was condemned by a collector that is over is needed as any other pack until the next one looks.
        """
        for item in [*self._backend.list(SESSIONS)]:
            self._backend.put(EXPELLED + item.name.removeprefix(SESSIONS), [b"\n"])
        for item in [*self._backend.list(CONDEMNED)]:
            self._backend.delete(item.name)

    def report(self, checked: CheckReport | None) -> RecoverReport:
        """Renew all locks and give the account."""
        return RecoverReport(
            dry_run=self._dry_run,
            shown=self._names("shown"),
            put_back=self._names("put back"),
            removed=self._names("removed"),
            lost=self._names("lost"),
            points=self._points(),
            reindexed=self._reindexed,
            problems=checked.problems if checked else [],
            locked_until=None if self._dry_run else self._renew(),
        )

    def _names(self, deed: _Deed) -> tuple[str, ...]:
        return tuple(sorted(name for name, done in self._done.items() if done == deed))

    def _points(self) -> tuple[str, ...]:
        """Give the ids of the restore points that were brought back."""
        back = (*self._names("shown"), *self._names("put back"))
        return tuple(name.rpartition("/")[2] for name in back if name.startswith(POINTS))

    def _renew(self) -> datetime | None:
        keeper = self._repository.lock_keeper
        if keeper is None:
            return None
        points = self._repository.points(lambda _name, _error: None)
        try:
            names = needed_names(self._repository, points, self._cancellation)
            return keeper.renew(names, self._cancellation).locked_until
        except RepositoryDamaged:
            return None  # what is missing is among the problems

    def _check(self) -> CheckReport | None:
        self._repository.forget_index()
        try:
            return check_structure(self._repository, events.ignore, self._cancellation)
        except RepositoryDamaged:
            return None

    def _listed_packs(self) -> set[str] | None:
        """Give the packs that the index names; None where it cannot be read, or there is none."""
        try:
            self._repository.forget_index()
            return {pack.name for pack in self._repository.index().packs} or None
        except HotspareError:
            return None

    def _bring_back(self, _worker: int, name: str) -> tuple[str, _Deed | None]:
        """Do what one object takes, and tell what that was. Any thread."""
        versions = self._versions[name]
        hidden, stored = versions[0].marker, contents(versions)
        if not stored or (hidden and not self._is_missed(name)):
            return name, None
        if not hidden and len(stored) == 1 and is_locked_kind(name):
            return name, None
        genuine = self._genuine(name, versions, stored)
        if genuine is None:
            return name, self._give_up(name, hidden=hidden)
        if hidden and len(stored) == 1:
            self._show(versions)
            return name, "shown"
        if not hidden and (genuine == stored[-1] or self._content(genuine) == self._content(stored[-1])):
            return name, None
        if not self._dry_run:
            self._backend.put(name, [self._content(genuine)])
        return name, "put back"

    def _genuine(
        self, name: str, versions: Sequence[ObjectVersion], stored: Sequence[ObjectVersion]
    ) -> ObjectVersion | None:
        """Give the version that counts; anybody may have put there what is not locked, so it is read."""
        if len(stored) == 1 and not is_locked_kind(name):
            return stored[0] if self._judge.is_genuine(name, self._content(stored[0])) else None
        return genuine_version(self._locks, self._judge, name, versions)

    def _give_up(self, name: str, *, hidden: bool) -> _Deed | None:
        if is_locked_kind(name):
            return "lost"
        if hidden:
            return None
        # An index segment is made again and a record is none: it only stands in the way.
        if not self._dry_run:
            self._backend.delete(name)
        return "removed"

    def _is_missed(self, name: str) -> bool:
        """Tell whether a hidden object was hidden by somebody else, or is wanted back."""
        if name.startswith(POINTS):
            return self._forgotten or name in self._deleted_points
        if name.startswith(KEYS):
            return _slot_of(name) not in self._open_slots and (
                _slot_of(name) in self._repository.keyring.secrets.slots
            )
        return not name.startswith(PARITY) or parse_pack_name(name.removeprefix(PARITY)) is not None

    def _show(self, versions: Sequence[ObjectVersion]) -> None:
        if self._dry_run:
            return
        for marker in [one for one in versions if one.marker][::-1]:
            self._locks.delete_version(marker.name, marker.version)

    def _content(self, one: ObjectVersion) -> bytes:
        return self._locks.get_version(one.name, one.version)


def _slot_of(name: str) -> str:
    return name.removeprefix(KEYS).partition("-")[0]
