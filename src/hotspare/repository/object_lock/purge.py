"""Removing what was deleted or replaced, once its lock has ended, so that no versions pile up.

To the protocol of collecting garbage an object is deleted as soon as it is hidden. What is done here is out
of its sight: only versions that a marker hides are removed, and the marker goes last.
"""

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import NamedTuple

from hotspare.block.pipeline import ordered_map
from hotspare.cancellation import Cancellation
from hotspare.errors import PermissionRefused
from hotspare.repository.format import FORGOTTEN, POINTS, is_locked_kind
from hotspare.repository.object_lock.genuine import contents, versions_by_name
from hotspare.repository.object_lock.keeper import LockKeeper
from hotspare.repository.object_lock.ledger import Dates
from hotspare.storage.backend import ObjectVersion

_REQUESTS_AT_ONCE = 16


class Removal(NamedTuple):
    """What was removed for good, and what is hidden and stays."""

    versions: int = 0
    """Versions and markers that are gone."""
    bytes_removed: int = 0
    bytes_locked: int = 0
    """Of hidden versions that cannot be removed yet."""
    locked_until: datetime | None = None
    """When the last of their locks ends."""


class _Outcome(NamedTuple):
    removed: list[ObjectVersion]
    locked: list[tuple[ObjectVersion, datetime]]


def remove_ended(keeper: LockKeeper, cancellation: Cancellation) -> Removal:
    """Remove the hidden versions whose locks have ended.

    Raises:
        Interrupted: ``cancellation`` was requested.
    """
    purge = _Purge(keeper)
    versions = removed = locked = 0
    dates: list[datetime] = []
    by_name = versions_by_name(keeper.backend.locks, "")
    work = ordered_map(lambda _worker, item: purge.clear(*item), by_name.items(), range(_REQUESTS_AT_ONCE))
    with closing(work) as outcomes:
        for outcome in outcomes:
            cancellation.check()
            versions += len(outcome.removed)
            removed += sum(one.size for one in outcome.removed)
            locked += sum(one.size for one, _ in outcome.locked)
            dates += [date for _, date in outcome.locked]
    return Removal(versions, removed, locked, max(dates, default=None))


class _Purge:
    def __init__(self, keeper: LockKeeper) -> None:
        self._keeper = keeper
        self._locks = keeper.backend.locks
        self._now = keeper.backend.now()
        self._dates: Dates = keeper.ledger().dates

    def clear(self, name: str, versions: Sequence[ObjectVersion]) -> _Outcome:
        """Remove what may go of one object's versions. Any thread."""
        outcome = _Outcome([], [])
        if not versions[0].marker:
            self._clear_replaced(name, versions, outcome)
            return outcome
        for one in contents(versions):
            self._remove(one, outcome, self._dates.get(name) if is_locked_kind(name) else None)
        if outcome.locked:
            return outcome
        # The newest marker last: without it, what is below would be seen again.
        for marker in [one for one in versions if one.marker][::-1]:
            self._locks.delete_version(name, marker.version)
            outcome.removed.append(marker)
        if name.startswith(POINTS):
            self._keeper.backend.delete(FORGOTTEN + name.rpartition("/")[2])
        return outcome

    def _clear_replaced(self, name: str, versions: Sequence[ObjectVersion], outcome: _Outcome) -> None:
        """Remove older versions of what was stored more than once, but never the one that counts."""
        if not is_locked_kind(name) or len(contents(versions)) < 2:
            return
        stored = self._keeper.stored_version(name, versions)
        if stored is None:
            return
        for one in contents(versions)[:-1]:
            if one.version != stored.version:
                self._remove(one, outcome, None)

    def _remove(self, one: ObjectVersion, outcome: _Outcome, date: datetime | None) -> None:
        """Remove a version, unless it is locked; ``date`` is until when it is known to be."""
        if date is not None and date > self._now:
            outcome.locked.append((one, date))
            return
        try:
            self._locks.delete_version(one.name, one.version)
        except PermissionRefused:
            # The ledger did not tell: perhaps a run had no time to write it down.
            present = self._locks.locked_until(one.name, one.version)
            if present is None:
                raise
            outcome.locked.append((one, present))
        else:
            outcome.removed.append(one)
