"""What an agent keeps of one lease: a file that each change replaces."""

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from hotspare.replication.kept import write_struct
from hotspare.replication.lease.fence import boottime
from hotspare.replication.lease.holder import Holding
from hotspare.replication.lease.terms import Record, Terms
from hotspare.replication.lease.voter import Voter


class KeptLease(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file."""

    record: Record
    terms: Terms
    parties: tuple[str, ...]
    """Ids of the agents that may ask: the two hosts."""
    holding: Holding | None = None
    """Of the last epoch in which this host was the holder."""
    known_to: tuple[str, ...] = ()
    """Ids of the agents that have noted the lease; those that forgot it since are not told again."""
    running: bool = False
    """Whether the machine ran here when that was last looked at."""


class Lease:
    """One lease at one agent: its voter, and its file.

    Attributes:
        turn: held by whoever asks or changes something.
    """

    def __init__(self, path: Path) -> None:
        self.turn = threading.RLock()
        self._path = path
        self.kept = msgspec.json.decode(path.read_bytes(), type=KeptLease)
        self.voter = Voter(self.kept.record, self.kept.terms, self._save_record, boottime())

    @classmethod
    def open(cls, path: Path, first: Callable[[], KeptLease]) -> "Lease":
        """Read a lease; where there is no file, it begins with ``first``."""
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_struct(path, first())
        return cls(path)

    def change(self, **changes: object) -> None:
        """Change what is kept, durably."""
        kept: KeptLease = msgspec.structs.replace(self.kept, **changes)
        if kept != self.kept:
            write_struct(self._path, kept)
            self.kept = kept

    def save_holding(self, holding: Holding) -> None:
        """Keep what the holder must not forget."""
        self.change(holding=holding)

    def _save_record(self, record: Record) -> None:
        self.change(record=record)
