"""Renewing locks: what is needed never comes near the end of its lock.

The promise: whatever a restore point that was not forgotten needs stays for half of the period at least,
at any moment. For this, all that has less than three quarters left is renewed to the whole period: by every
prune and every "repo extend-locks", for all restore points, and by every backup, before its restore point is
published, for all that this one needs. So one of the first two has to run once in a quarter of the period.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Self

import msgspec

from hotspare.block.pipeline import ordered_map
from hotspare.cancellation import Cancellation
from hotspare.errors import ObjectNotFound, PermissionRefused, RepositoryDamaged
from hotspare.repository.disk_map import PAGE_SIZE
from hotspare.repository.format import CONFIG, KEYS, RepositoryConfig
from hotspare.repository.gc.mark import Marks
from hotspare.repository.index import ChunkIndex
from hotspare.repository.keys import Keyring
from hotspare.repository.object_lock.genuine import Judge, genuine_version, versions_by_name
from hotspare.repository.object_lock.ledger import Dates, Ledger
from hotspare.repository.point import RestorePoint, point_name
from hotspare.repository.reader import ChunkReader
from hotspare.storage.backend import Backend, ObjectVersion
from hotspare.storage.wrappers.locking import LockingBackend

_REQUESTS_AT_ONCE = 16
_FEW = 32
"""Objects whose versions are asked for one by one; those of more are taken from whole listings."""
_RECORDS_MAX = 16
"""A writer that finds more records than this in the ledger makes one of them."""


class Renewal(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at and renewed."""

    objects: int
    renewed: int
    """With a dry run, how many would be."""
    locked_until: datetime | None
    """Until when each of them is locked at least; None when there was none, or in a dry run."""


class LockKeeper:
    """Renews the locks of one repository."""

    def __init__(self, backend: LockingBackend, keyring: Keyring, config: RepositoryConfig) -> None:
        self.backend = backend
        self.period = backend.period
        self._keyring = keyring
        self._config = config
        self._judge = Judge(keyring)

    @classmethod
    def of(cls, backend: Backend, keyring: Keyring, config: RepositoryConfig) -> Self | None:
        """Give the keeper of a repository's locks; None where nothing is locked."""
        return cls(backend, keyring, config) if isinstance(backend, LockingBackend) else None

    @property
    def promised(self) -> timedelta:
        """How long each restore point stays at least, at any moment."""
        return self.period / 2

    @property
    def renewed_below(self) -> timedelta:
        """What is locked for less than this is renewed."""
        return self.period * 3 / 4

    def ledger(self) -> Ledger:
        """Read the ledger."""
        return Ledger(self.backend, self._keyring)

    def write_down(self) -> None:
        """Put what this process has stored into the ledger."""
        self.ledger().add(self.backend.take_stored())

    def secure(self, point: RestorePoint, index: ChunkIndex) -> None:
        """See to it that all which a point needs is locked for long enough; the point is published next.

        Raises:
            RepositoryDamaged: something that it needs is not there.
        """
        now = self._now()
        ledger = self.ledger()
        stored = self.backend.take_stored()
        ledger.note(stored)
        limit = now + self.renewed_below
        due = ledger.below(self.always_needed(), limit)
        # Only if any pack at all is due, the maps have to be read for what the point inherits.
        if ledger.below((pack.name for pack in index.packs), limit):
            due += ledger.below(self._packs_of(point, index), limit)
        extended = self._extend(due, now + self.period, Cancellation())
        # The point itself is locked from a moment that is still to come.
        ledger.add(stored | extended | {point_name(self._keyring, point): now + self.period})
        if ledger.records > _RECORDS_MAX:
            ledger.rewrite(now)

    def renew(self, names: Iterable[str], cancellation: Cancellation, *, dry_run: bool = False) -> Renewal:
        """Renew the locks of objects that are needed; ``always_needed`` comes with them.

        Raises:
            RepositoryDamaged: some are not there; the others were renewed.
            Interrupted: ``cancellation`` was requested; what was renewed stays so.
        """
        now = self._now()
        ledger = self.ledger()
        stored = self.backend.take_stored()
        ledger.note(stored)
        wanted = list(dict.fromkeys((*self.always_needed(), *names)))
        due = ledger.below(wanted, now + self.renewed_below)
        if dry_run:
            return Renewal(objects=len(wanted), renewed=len(due), locked_until=None)
        ledger.note(self._extend(due, now + self.period, cancellation))
        if due or stored or ledger.records > 1:
            ledger.rewrite(now)
        return Renewal(
            objects=len(wanted), renewed=len(due), locked_until=min(ledger.dates[name] for name in wanted)
        )

    def always_needed(self) -> list[str]:
        """Give the names of what every restore needs."""
        return [CONFIG, *(item.name for item in self.backend.list(KEYS))]

    def versions_of(self, names: Sequence[str]) -> Iterator[tuple[str, list[ObjectVersion]]]:
        """Yield each object with its versions, the newest first."""
        if len(names) <= _FEW:
            for name in names:
                yield name, versions_by_name(self.backend.locks, name).get(name, [])
            return
        found: dict[str, list[ObjectVersion]] = {}
        for prefix in sorted(
            {f"{head}{slash}" for head, slash, _ in (name.partition("/") for name in names)}
        ):
            found |= versions_by_name(self.backend.locks, prefix)
        yield from ((name, found.get(name, [])) for name in names)

    def stored_version(self, name: str, versions: Sequence[ObjectVersion]) -> ObjectVersion | None:
        """Give the version that Hotspare stored; None when it is gone."""
        return genuine_version(self.backend.locks, self._judge, name, versions)

    def _extend(self, names: Sequence[str], until: datetime, cancellation: Cancellation) -> Dates:
        """Lock objects until then, many at a time."""
        lost: list[str] = []
        dates: Dates = {}

        def extend(_worker: int, item: tuple[str, list[ObjectVersion]]) -> tuple[str, datetime | None]:
            return item[0], self._extend_one(*item, until)

        work = ordered_map(extend, self.versions_of(names), range(_REQUESTS_AT_ONCE))
        with closing(work) as extended:
            for name, date in extended:
                if date is None:
                    lost.append(name)
                else:
                    dates[name] = date
                cancellation.check()
        if lost:
            raise RepositoryDamaged(
                f"{len(lost)} objects that restore points need are gone or replaced, {lost[0]} among them",
                meaning="Their locks could not be renewed; those of the others were",
                hint="Run 'hotspare repo recover', which brings back what the store still has",
            )
        return dates

    def _extend_one(self, name: str, versions: Sequence[ObjectVersion], until: datetime) -> datetime | None:
        """Lock the version that counts, even where somebody has hidden it; None when there is none."""
        locks = self.backend.locks
        version = self.stored_version(name, versions)
        if version is None:
            return None
        try:
            locks.extend(name, until, version.version)
        except ObjectNotFound:
            return None
        except PermissionRefused:
            # It is locked for longer: so it was before the period of a repository was made shorter.
            present = locks.locked_until(name, version.version)
            if present is None or present < until:
                raise
            return present
        return until

    def _packs_of(self, point: RestorePoint, index: ChunkIndex) -> list[str]:
        size_max = max(self._config.chunk_size, PAGE_SIZE)
        reader = ChunkReader(self.backend, self._keyring, index, size_max)
        marks = Marks(index, reader, self._config.chunk_size, Cancellation())
        marks.add_point(point)
        return packs_of(index, marks)

    def _now(self) -> datetime:
        return self.backend.now().replace(microsecond=0)


def packs_of(index: ChunkIndex, marks: Marks) -> list[str]:
    """Give the names of the packs that hold what is marked, and the bases of that."""
    marks.add_bases_of(marks.places)
    numbers = sorted(set(index.pack_numbers(marks.places).tolist()))
    return [index.packs[number].name for number in numbers]
