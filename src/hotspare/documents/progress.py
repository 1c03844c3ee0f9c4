"""How far a run is: kept from its events, and described for people and programs."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from hotspare import events
from hotspare.documents.stages import Stages, stages_fields
from hotspare.events import DiskStarted, Event, HeldBack, PhaseStarted, StagesTimed, Warned

EVENT_TYPES: dict[type[Event], str] = {
    events.PhaseStarted: "phase-started",
    events.DiskStarted: "disk-started",
    events.Progress: "progress",
    events.DiskFinished: "disk-finished",
    events.HeldBack: "held-back",
    events.StagesTimed: "stages-timed",
    events.Warned: "warned",
}
"""What each event is called in JSON lines."""
_BY_NAME = {name: kind for kind, name in EVENT_TYPES.items()}
_WARNINGS_MAX = 20


class DiskProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far one disk is. All counts are bytes."""

    name: str
    size: int
    mode: str
    full_because: str | None = None
    total: int = 0
    """What is to be handled of ``size``."""
    processed: int = 0
    read: int = 0
    new: int = 0
    stored: int = 0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is, as of a moment."""

    phase: str = ""
    bytes_total: int = 0
    bytes_processed: int = 0
    bytes_read: int = 0
    bytes_stored: int = 0
    disks: tuple[DiskProgress, ...] = ()
    transfer_seconds: float = 0.0
    """Since the first disk's transfer began."""
    held_back_seconds: float = 0.0
    """For how long reading waited, to spare the guest."""
    stages: Stages | None = None
    """What the time of the transfer goes into; None before that is known."""
    warnings: tuple[str, ...] = ()

    @property
    def rate(self) -> float | None:
        """Bytes that are handled in a second, over the whole transfer; None before it has begun."""
        if self.bytes_processed <= 0 or self.transfer_seconds <= 0:
            return None
        return self.bytes_processed / self.transfer_seconds

    @property
    def seconds_left(self) -> float | None:
        """How long the transfer lasts yet if it goes on like that."""
        rate = self.rate
        return None if not rate else max(0, self.bytes_total - self.bytes_processed) / rate


class ProgressWatch:
    """Keeps how far one machine's run is, from its events, which may come from several threads at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._phase = ""
        self._disks: dict[str, DiskProgress] = {}
        self._began: float | None = None
        self._held_back = 0.0
        self._stages: Stages | None = None
        self._warnings: list[str] = []

    def __call__(self, event: Event) -> None:
        """Take in what an event says."""
        with self._lock:
            if isinstance(event, PhaseStarted):
                self._phase = event.phase
            elif isinstance(event, DiskStarted):
                self._began = self._began or self._clock()
                self._disks[event.disk] = DiskProgress(
                    name=event.disk,
                    size=event.size,
                    mode=event.mode,
                    full_because=event.full_because,
                    total=event.bytes_to_process,
                )
            elif isinstance(event, events.Progress) and event.disk in self._disks:
                self._disks[event.disk] = msgspec.structs.replace(
                    self._disks[event.disk],
                    processed=event.bytes_processed,
                    read=event.bytes_read,
                    new=event.bytes_new,
                    stored=event.bytes_stored,
                )
            elif isinstance(event, HeldBack):
                self._held_back = event.seconds
            elif isinstance(event, StagesTimed):
                self._stages = stages_of(event)
            elif isinstance(event, Warned) and len(self._warnings) < _WARNINGS_MAX:
                self._warnings.append(event.message)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        with self._lock:
            disks = tuple(self._disks.values())
            return Progress(
                phase=self._phase,
                bytes_total=sum(one.total for one in disks),
                bytes_processed=sum(one.processed for one in disks),
                bytes_read=sum(one.read for one in disks),
                bytes_stored=sum(one.stored for one in disks),
                disks=disks,
                transfer_seconds=self._clock() - self._began if self._began is not None else 0.0,
                held_back_seconds=self._held_back,
                stages=self._stages,
                warnings=tuple(self._warnings),
            )


def stages_of(event: StagesTimed) -> Stages:
    """Give what an event says of the stages of a transfer."""
    return Stages(reading=event.reading, processing=event.processing, storing=event.storing)


def event_of(line: str) -> Event | None:
    """Read an event that was written as a line of JSON; None for what is no event."""
    with suppress(ValueError, TypeError, KeyError, msgspec.ValidationError):
        fields = msgspec.json.decode(line)
        kind = _BY_NAME[fields.pop("type")]
        fields.pop("v")
        return msgspec.convert(fields, kind)
    return None


def progress_fields(progress: Progress | None) -> dict[str, Any]:
    """Describe how far a run is: all disks together and each, how fast that is, what held it up."""
    progress = progress or Progress()
    return {
        "phase": progress.phase or None,
        "bytes_total": progress.bytes_total,
        "bytes_processed": progress.bytes_processed,
        "bytes_read": progress.bytes_read,
        "bytes_stored": progress.bytes_stored,
        "rate": progress.rate,
        "seconds_left": progress.seconds_left,
        "held_back_seconds": progress.held_back_seconds,
        "stages": stages_fields(progress.stages),
        "warnings": list(progress.warnings),
        "disks": [
            {
                "name": one.name,
                "size": one.size,
                "mode": one.mode,
                "full_because": one.full_because,
                "bytes_total": one.total,
                "bytes_processed": one.processed,
                "bytes_skipped": max(0, one.size - one.total),
                "bytes_read": one.read,
                "bytes_new": one.new,
                "bytes_stored": one.stored,
            }
            for one in progress.disks
        ],
    }
