"""Until when objects are locked at least, written down: asking the store costs a request for each.

The sealed records ``locks/<32 hex>`` together are the ledger. Locks are never shortened, so an old record is
true for ever, and of several statements about one object the latest date holds. What no record names is
treated as if it were not locked. So a record that is lost costs requests, and nothing else.
"""

import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime

from hotspare.errors import ObjectNotFound, RepositoryDamaged
from hotspare.repository.decode import Moment
from hotspare.repository.format import LOCKS
from hotspare.repository.keys import Keyring
from hotspare.repository.record import open_record, seal_record
from hotspare.storage.backend import Backend

_NAMES_MAX = 1 << 18
"""In one record, so that it stays below the size at which readers take a record for damage."""

Dates = dict[str, datetime]
"""By object name, until when it is locked at least."""


class Ledger:
    """What the records said when they were read."""

    def __init__(self, backend: Backend, keyring: Keyring) -> None:
        """Read them. One that is not what was written is passed over."""
        self.dates: Dates = {}
        self._backend = backend
        self._keyring = keyring
        self._records: list[str] = []
        for item in backend.list(LOCKS):
            try:
                listed = open_record(
                    keyring, item.name, backend.get(item.name), list[tuple[Moment, list[str]]]
                )
            except (ObjectNotFound, RepositoryDamaged):
                continue
            self._records.append(item.name)
            for until, names in listed:
                self._take_in(dict.fromkeys(names, until))

    @property
    def records(self) -> int:
        """How many there were."""
        return len(self._records)

    def add(self, dates: Mapping[str, datetime]) -> None:
        """Write down further dates, in a record of their own."""
        self._take_in(dates)
        self._put(dates)

    def rewrite(self, now: datetime) -> None:
        """Put all that is known, but for locks that have ended, in place of the records that were read."""
        self.dates = {name: until for name, until in self.dates.items() if until > now}
        names = sorted(self.dates)
        for start in range(0, len(names), _NAMES_MAX):
            self._put({name: self.dates[name] for name in names[start : start + _NAMES_MAX]})
        # Others may have read the same records: that both write what was in them does no harm.
        for record in self._records:
            self._backend.delete(record)

    def below(self, names: Iterable[str], limit: datetime) -> list[str]:
        """Give those of the objects that are not known to be locked until ``limit``."""
        return [name for name in names if name not in self.dates or self.dates[name] < limit]

    def note(self, dates: Mapping[str, datetime]) -> None:
        """Take dates in without writing them down."""
        self._take_in(dates)

    def _take_in(self, dates: Mapping[str, datetime]) -> None:
        for name, until in dates.items():
            if name not in self.dates or self.dates[name] < until:
                self.dates[name] = until

    def _put(self, dates: Mapping[str, datetime]) -> None:
        if not dates:
            return
        by_date: dict[datetime, list[str]] = {}
        for name, until in dates.items():
            by_date.setdefault(until, []).append(name)
        record = LOCKS + secrets.token_hex(16)
        self._backend.put(record, [seal_record(self._keyring, record, sorted(by_date.items()))])
