"""The plain rows that go into the catalog and come out of it."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

Ended = Literal["ok", "failed", "interrupted", "cancelled", "missed"]
"""``interrupted``: it stopped, and is due as before; ``cancelled``: somebody did not want it; ``missed``: it
was due, and never began."""
Outcome = Literal["running", "lost"] | Ended
"""``lost``: the process went away without a word (killed, power cut)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """One restore point, as the repository ``repository`` listed it."""

    repository: str
    """URL of the repository."""
    id: str
    machine_id: str
    machine_name: str
    platform: str
    """URI of the platform."""
    finished_at: datetime
    consistency: str
    boot_at: datetime | None = None
    """When it was last started for a trial."""
    boot_passed: bool | None = None
    boot_life: str | None = None
    """``BootRecord.life``."""
    size: int | None = None
    """Bytes of all its disks; None when the row was made by a version that did not keep it."""
    bytes_stored: int | None = None
    """Bytes that its new data took when it was made; None as above."""
    tags: tuple[str, ...] | None = None
    """Tags of the machine, as they were then; None as above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One execution of a command on one machine."""

    id: int
    kind: str
    """``backup``, ``restore``, ``check``, ``verify``, ``boot-test``, ``scan``…"""
    machine: str
    """Name of the machine; for ``verify`` what was verified."""
    platform: str
    """URI of the platform; empty where none takes part."""
    repository: str
    """URL of the repository."""
    started_at: datetime
    finished_at: datetime | None
    outcome: Outcome
    error_code: str | None
    """``HotspareError.code`` of what went wrong."""
    error: str | None
    """What went wrong, in words."""
    point: str | None
    """Id of the restore point that was made or read."""
    bytes_read: int
    bytes_stored: int
    held_back_seconds: float | None
    """For how long reading waited so that the guest was not slowed down; None when it did not."""
    latency_factor: float | None
    """How many times its usual latency the guest's I/O had meanwhile."""
    policy: str | None = None
    """Name of the policy by which it ran; None for a command."""
    warnings: int = 0
    """How many times the user was told something that did not stop it."""
    seconds_reading: float | None = None
    """What the time of the transfer went into; None of all that are no backups, and of older versions."""
    seconds_processing: float | None = None
    seconds_storing: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended."""

    outcome: Ended
    error_code: str | None = None
    error: str | None = None
    point: str | None = None
    bytes_read: int = 0
    bytes_stored: int = 0
    held_back_seconds: float | None = None
    latency_factor: float | None = None
    warnings: int = 0
    seconds_reading: float | None = None
    seconds_processing: float | None = None
    seconds_storing: float | None = None


@dataclass(frozen=True, slots=True)
class DayOutcome:
    """How many runs of a machine ended in the same way on one day."""

    day: date
    """In UTC: when they began."""
    outcome: Outcome
    count: int
