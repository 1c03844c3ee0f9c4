"""Watches over a machine that runs from a repository: wakes it, starts it again, and moves its disks."""

import os
import time
from collections.abc import Callable
from contextlib import suppress

from hotspare.errors import HotspareError, MachineNotFound, PlatformUnavailable
from hotspare.platforms.instant import Condition, InstantPlatform
from hotspare.platforms.platform import Platform, PowerState
from hotspare.repository.format import CONFIG
from hotspare.repository.kept import release_point
from hotspare.repository.repository import Repository
from hotspare.restore.instant.record import Recoveries, Recovery, Status

_LOOK_SECONDS = 0.2
_UNDISTURBED_SECONDS = 60.0
"""So long at most moving waits for the guest's agent: until then it would only make the start slower."""
_LONGEST_PAUSE = 10.0
"""Seconds between two attempts of the same."""
_STARTS_MAX = 5
"""A machine that crashes more often is left alone."""


class Guardian:
    """Keeps one recovery until its record is gone.

    Args:
        recoveries: where its record is.
        name: of the machine.
        repository: that it runs from.
        open_platform: connects to its platform; again after the connection was lost.
        say: told what is done.
    """

    def __init__(
        self,
        recoveries: Recoveries,
        name: str,
        repository: Repository,
        open_platform: Callable[[], Platform],
        say: Callable[[str], None],
    ) -> None:
        self._recoveries = recoveries
        self._name = name
        self._repository = repository
        self._open_platform = open_platform
        self._say = say
        self._connected: Platform | None = None
        self._seen_running: float | None = None
        self._may_move = False
        self._moved: dict[str, int] = {}
        self._done: set[str] = set()
        self._wakes = _Attempts()
        self._moves = _Attempts()
        self._starts = 0
        self._problem = ""
        self._noted: Status | None = None

    def run(self) -> None:
        """Return when the machine needs the repository no more, or the recovery was given up."""
        while (recovery := self._recoveries.read(self._name)) is not None:
            problem = ""
            try:
                if self._look(recovery):
                    return
            except PlatformUnavailable as error:
                problem = str(error)
                self._disconnect()
            except HotspareError as error:
                problem = str(error)
            self._note(problem)
            time.sleep(_LOOK_SECONDS)

    @property
    def _platform(self) -> InstantPlatform:
        if self._connected is None:
            self._connected = self._open_platform()
        if not isinstance(self._connected, InstantPlatform):
            raise TypeError(self._connected)
        return self._connected

    def _disconnect(self) -> None:
        connected, self._connected = self._connected, None
        if connected is not None:
            with suppress(HotspareError):
                connected.close()

    def _look(self, recovery: Recovery) -> bool:
        """Do what is to be done now; tells whether all is done."""
        try:
            condition = self._platform.condition(self._name)
        except MachineNotFound:
            if recovery.stage == "starting":
                return False  # the command is about to make it
            raise
        if condition.waits_for_disk:
            self._wake()
        elif condition.crashed and recovery.stage != "starting":
            self._start()
        elif recovery.stage == "moving" and self._may_be_moved(condition) and self._moves.due():
            return self._move(recovery)
        return False

    def _wake(self) -> None:
        if not self._wakes.due():
            return
        self._repository.backend.size(CONFIG)  # raises while the repository is away
        if self._platform.wake(self._name):
            self._say(f"{self._name} was paused by an I/O error and goes on")
        self._wakes.tried()  # if it is paused again at once, something else is the matter

    def _start(self) -> None:
        if self._starts >= _STARTS_MAX:
            raise HotspareError(f"{self._name} crashed {self._starts} times, and is left off")
        self._starts += 1
        self._say(f"{self._name} crashed and is started again")
        if self._connected is not None:
            self._connected.start(self._name)

    def _may_be_moved(self, condition: Condition) -> bool:
        if condition.shut_down:
            return True
        if condition.power is not PowerState.RUNNING:
            return False
        now = time.monotonic()
        self._seen_running = self._seen_running or now
        self._may_move = (
            self._may_move
            or now - self._seen_running > _UNDISTURBED_SECONDS
            or self._platform.answers(self._name)
        )
        return self._may_move

    def _move(self, recovery: Recovery) -> bool:
        for disk in recovery.disks:
            if disk.name in self._done:
                continue
            try:
                move = self._platform.move(self._name, disk.name, recovery.limit)
            except HotspareError:
                self._moves.tried()
                raise
            self._moved[disk.name] = disk.size if move.done else min(move.bytes_moved, disk.size)
            if move.begun:
                self._moves.tried()  # without the repository it ends at once
            if not move.done:
                return False
            self._done.add(disk.name)
            self._say(f"{disk.name} of {self._name} is moved")
        self._platform.settle(self._name)
        if recovery.holds_point:
            release_held_point(self._repository, recovery)
        self._recoveries.remove(self._name)
        return True

    def _note(self, problem: str) -> None:
        if problem and problem != self._problem:
            self._say(problem)
        self._problem = problem
        status = Status(pid=os.getpid(), moved=dict(self._moved), problem=problem)
        if status != self._noted:
            self._noted = status
            self._recoveries.write_status(self._name, status)


def release_held_point(repository: Repository, recovery: Recovery) -> None:
    """Take the protection of a point away that was made for a recovery, if the repository can be reached."""
    with suppress(HotspareError):
        release_point(repository.backend, recovery.point)


class _Attempts:
    """Attempts at something that is not to be done all the time: at once, then less and less often."""

    def __init__(self) -> None:
        self._pause = _LOOK_SECONDS
        self._next = 0.0

    def due(self) -> bool:
        return time.monotonic() >= self._next

    def tried(self) -> None:
        now = time.monotonic()
        if now - self._next > 2 * _LONGEST_PAUSE:
            self._pause = _LOOK_SECONDS  # it is long ago
        self._next = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
