"""What the engines tell about their progress, as typed values.

The engines (backup, restore, verify) call a ``Listener``; they never know who is listening. The
command line draws bars from it or writes it as JSON lines; later the job engine keeps it. Byte
counts are totals since the start of the disk's transfer, not differences, so that a listener may
drop events when it is busy.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A run entered a phase.

    One of ``plan``, ``snapshot``, ``look-inside``, ``transfer``, ``index-files``, ``commit``, ``create``,
    ``check``, ``verify``, ``reindex``, ``repair``, ``copy``, ``mark``, ``wait``, ``delete``, ``list-files``,
    ``start``, ``move``.
    """

    machine: str
    phase: str


@dataclass(frozen=True, slots=True)
class DiskStarted:
    """One disk's transfer begins: ``bytes_to_process`` of its ``size`` bytes will be handled."""

    machine: str
    disk: str
    size: int
    bytes_to_process: int
    mode: str
    """``full``, ``increment``, ``restore``, ``verify``, ``copy`` or ``move``."""
    full_because: str | None = None
    """Why no increment was possible, in words for the user; None for an increment."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one disk has come. ``bytes_new`` of what was read were not in the repository yet."""

    machine: str
    disk: str
    bytes_processed: int
    bytes_read: int = 0
    bytes_new: int = 0
    bytes_stored: int = 0


@dataclass(frozen=True, slots=True)
class DiskFinished:
    """One disk is through."""

    machine: str
    disk: str


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A backup has read a machine's disks more slowly than it could have, to spare the guest."""

    machine: str
    seconds: float
    """For how long reading waited."""
    latency_factor: float
    """How many times its usual latency the guest's I/O had, over the whole transfer."""
    worst_latency_factor: float
    """The same for the worst moment, of a fraction of a second."""


@dataclass(frozen=True, slots=True)
class StagesTimed:
    """What the time of a backup's transfer went into so far: the parts add up to it.

    The largest is of the stage that the others wait for, which holds the backup up.
    """

    machine: str
    reading: float
    """Seconds; waiting to spare the guest, or for a limit of the user's, is part of it."""
    processing: float
    """Seconds: hashing, compressing, sealing."""
    storing: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know that does not stop the run."""

    machine: str
    message: str


Event = PhaseStarted | DiskStarted | Progress | DiskFinished | HeldBack | StagesTimed | Warned
Listener = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Be the listener of those who do not listen."""
