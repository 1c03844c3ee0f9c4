"""Seeing how a recovery goes on, which its keeper does whether anybody looks or not."""

import time

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError
from hotspare.platforms.instant import InstantPlatform
from hotspare.restore.instant.record import Recoveries, Recovery

_LOOK_SECONDS = 0.1
_GONE_SECONDS = 5.0
"""A keeper that is being started anew holds no lock for an instant."""


class Followed:
    """What was seen of a recovery.

    Attributes:
        moved: whether the machine needs the repository no more.
        answered: seconds from the start of following until the guest's agent answered; None if it did not.
    """

    def __init__(self) -> None:
        self.moved = False
        self.answered: float | None = None


def follow(
    recoveries: Recoveries,
    platform: InstantPlatform,
    recovery: Recovery,
    listener: events.Listener,
    cancellation: Cancellation,
    *,
    until_answer: bool = False,
    seconds: float | None = None,
) -> Followed:
    """Return when a machine is moved, or when nobody wants to see more of it.

    Args:
        recoveries: where its record is.
        platform: where the machine is.
        recovery: as it was when it began.
        listener: told of the progress.
        cancellation: ends the looking only; the recovery goes on.
        until_answer: return once the guest's agent answers.
        seconds: return after that many; None to go on.

    Raises:
        HotspareError: nobody keeps the recovery any more.
    """
    seen = Followed()
    began = time.monotonic()
    told = _Told(recovery, listener)
    unkept_since: float | None = None
    while not cancellation.requested:
        now = time.monotonic()
        if seen.answered is None and platform.answers(recovery.name):
            seen.answered = now - began
        if recoveries.read(recovery.name) is None:
            told.done()
            platform.condition(recovery.name)  # raises where it was undone meanwhile
            seen.moved = True
            return seen
        if (until_answer and seen.answered is not None) or (seconds is not None and now - began > seconds):
            return seen
        told.tell(recoveries)
        unkept_since = None if recoveries.is_kept(recovery.name) else unkept_since or now
        if unkept_since is not None and now - unkept_since > _GONE_SECONDS:
            raise HotspareError(
                f"The process that keeps the recovery of {recovery.name} is gone",
                meaning="The machine still needs its repository; nothing that it wrote is lost",
                hint=f"Go on with: hotspare recover resume {recovery.name}",
            )
        time.sleep(_LOOK_SECONDS)
    return seen


class _Told:
    """Tells a listener how far disks are, and what is in the way, of each thing once."""

    def __init__(self, recovery: Recovery, listener: events.Listener) -> None:
        self._recovery = recovery
        self._listener = listener
        self._begun: dict[str, int] = {}
        self._finished: set[str] = set()
        self._problem = ""

    def tell(self, recoveries: Recoveries) -> None:
        status = recoveries.status(self._recovery.name)
        if status is None:
            return
        if status.problem and status.problem != self._problem:
            self._listener(events.Warned(self._recovery.name, status.problem))
        self._problem = status.problem
        for disk in self._recovery.disks:
            if disk.name in status.moved:
                self._progress(disk.name, disk.size, status.moved[disk.name])

    def done(self) -> None:
        for disk in self._recovery.disks:
            self._progress(disk.name, disk.size, disk.size)

    def _progress(self, name: str, size: int, moved: int) -> None:
        machine = self._recovery.name
        if name not in self._begun:
            if not self._begun:
                self._listener(events.PhaseStarted(machine, "move"))
            self._listener(events.DiskStarted(machine, name, size, size, "move"))
        if moved != self._begun.get(name):
            self._listener(events.Progress(machine, name, moved))
        self._begun[name] = moved
        if moved >= size and name not in self._finished:
            self._finished.add(name)
            self._listener(events.DiskFinished(machine, name))
