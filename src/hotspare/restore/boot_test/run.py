"""Starting restore points for a trial, one or several in one network, and looking at them."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import PermissionRefused
from hotspare.platforms.platform import StateFile
from hotspare.platforms.trial import Trial, TrialCard, TrialPlatform, TrialRequest
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.tested import BootRecord, CheckRecord, Life
from hotspare.restore.boot_test.check import Check
from hotspare.restore.boot_test.looking import Looking
from hotspare.restore.boot_test.network import Card, IsolatedNetwork
from hotspare.restore.instant.served_disks import ServedDisks
from hotspare.restore.machine import machine_of
from hotspare.units import MIB, format_bytes, format_duration

DEFAULT_BOOT_SECONDS = 300.0
SETTLED_SECONDS = 20.0
"""A machine that nobody answers in has to go on for so long after its first write: a panic comes before."""
RESTARTS_MAX = 2
"""Systems restart once when they find other hardware, or after a check of their disks."""
_LOOK_SECONDS = 0.25
_PICTURE_SECONDS = 1.0
_CACHE_BYTES = 128 * MIB
_CONSOLE_KEPT = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of the trial of one point."""

    point: RestorePoint
    checks: tuple[Check, ...]
    has_agent: bool
    """An agent has answered in the machine before: without one it has not come to life."""
    boot_seconds: float = DEFAULT_BOOT_SECONDS
    memory_max: int | None = None
    """Bytes."""


class BootTest(NamedTuple):
    """What came of it."""

    point: RestorePoint
    record: BootRecord
    screen: bytes | None
    """The console at the end, PNG."""


def boot_test(
    repository: Repository,
    platform: TrialPlatform,
    wanted: Sequence[Wanted],
    listener: events.Listener,
    cancellation: Cancellation,
) -> list[BootTest]:
    """Start points in one network of their own, in their order, look at them, and remove all of it.

    Each machine has come to life, or was given up, before the next is started; then all are looked at.

    Raises:
        HotspareError: a trial could not be made, which says nothing about the points.
        Interrupted: ``cancellation`` was requested.
    """
    with ExitStack() as stack:
        network = stack.enter_context(IsolatedNetwork())
        machines = []
        for one in wanted:
            cancellation.check()
            listener(events.PhaseStarted(one.point.machine_name, "boot"))
            tried = stack.enter_context(_on_trial(repository, platform, one, network))
            tried.come_to_life(cancellation)
            machines.append(tried)
        for tried in machines:
            listener(events.PhaseStarted(tried.wanted.point.machine_name, "look"))
            tried.look(cancellation)
        ids = tuple(one.point.id for one in wanted)
        return [tried.result(ids) for tried in machines]


@contextmanager
def _on_trial(
    repository: Repository, platform: TrialPlatform, wanted: Wanted, network: IsolatedNetwork
) -> "Iterator[_OnTrial]":
    point = wanted.point
    request = TrialRequest(repository_id=repository.id, point_id=point.id, memory_max=wanted.memory_max)
    with platform.open_trial(machine_of(point), request) as trial:
        cards = [_plugged(network, card) for card in trial.cards]
        tried = _OnTrial(wanted, trial, Looking(trial, network, cards))
        tried.warnings += _add_state(repository, point, trial)
        # The folder of the socket is closed to all but QEMU.
        with ServedDisks(repository, point, trial.disk_socket, cache_bytes=_CACHE_BYTES, mode=0o666):
            try:
                trial.start()
                yield tried
            finally:
                trial.stop()


def _plugged(network: IsolatedNetwork, card: TrialCard) -> Card:
    try:
        return network.plug(card.network, card.mac, card.socket)
    except OSError as error:
        raise PermissionRefused(
            f"The socket {card.socket} cannot be made: {error.strerror or error}",
            meaning="Nothing was started",
            hint="Set HOTSPARE_SCRATCH_FOLDER to a folder of this user with a short path",
        ) from error


def _add_state(repository: Repository, point: RestorePoint, trial: Trial) -> Iterator[str]:
    for state in point.state:
        content = bytearray(state.size)
        repository.disk(state).read_into(0, memoryview(content))
        problem = trial.add_state(StateFile(name=state.name, content=bytes(content)))
        if problem is not None:
            yield problem


@dataclass(slots=True)
class _OnTrial:
    """One machine that was started for a trial."""

    wanted: Wanted
    trial: Trial
    looking: Looking
    warnings: list[str] = field(default_factory=list)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    life: Life = "none"
    seconds: float = 0.0
    problem: str = ""
    checks: list[CheckRecord] = field(default_factory=list)
    screen: bytes | None = None
    console: str = ""

    def come_to_life(self, cancellation: Cancellation) -> None:
        """Wait for a sign of life, or give up. Raises ``Interrupted``, ``NoSpace``, ``SourceLost``."""
        started = time.monotonic()
        deadline = started + self.wanted.boot_seconds
        first_write: float | None = None
        restarts, pictured = 0, started
        while self.life == "none" and not self.problem:
            cancellation.check()
            now = time.monotonic()
            if not self.trial.is_running():
                restarts += 1
                if restarts > RESTARTS_MAX:
                    ends = "it restarted, crashed or powered itself off"
                    self.problem = f"{ends} each time it was started ({restarts})"
                    break
                first_write = None
                self.trial.start()
            elif self.trial.agent_answers():
                self.life = "agent"
            elif not self.wanted.has_agent:
                if first_write is None and self.trial.activity().bytes_written:
                    first_write = now
                if first_write is not None and now - first_write >= SETTLED_SECONDS:
                    self.life = "activity"
            if self.life == "none" and now > deadline:
                self.problem = self._silence()
            if now - pictured >= _PICTURE_SECONDS:
                pictured = now
                self._keep_picture()  # a machine that crashes has none any more
            time.sleep(_LOOK_SECONDS)
        self.seconds = round(time.monotonic() - started, 3)
        self._keep_picture()

    def _silence(self) -> str:
        done = self.trial.activity()
        seconds = f"within {format_duration(self.wanted.boot_seconds)}"
        did = f"it has read {format_bytes(done.bytes_read)} and written {format_bytes(done.bytes_written)}"
        if self.wanted.has_agent:
            return f"no guest agent answered {seconds}, as one did before ({did})"
        return f"it gave no sign of life {seconds} ({did})"

    def look(self, cancellation: Cancellation) -> None:
        """Do all checks, and take a picture. Raises as ``come_to_life``."""
        for check in self._all_checks():
            if self.life == "none":
                self.checks.append(CheckRecord(name=check.name, outcome="not-done", seconds=0.0))
            else:
                self.checks.append(self.looking.do(check, cancellation))
        self._keep_picture()

    def _all_checks(self) -> list[Check]:
        usual = [Check("heartbeat")] if self.life == "activity" else [Check("agent"), Check("heartbeat")]
        if self.life == "none" and not self.wanted.has_agent:
            usual = [Check("heartbeat")]
        named = {check.name for check in self.wanted.checks}
        return [*(one for one in usual if one.name not in named), *self.wanted.checks]

    def _keep_picture(self) -> None:
        """Keep what can be seen now; of a machine that has gone off meanwhile, what was seen before."""
        self.screen = self.trial.screenshot() or self.screen
        self.console = self.trial.console() or self.console

    def result(self, together: tuple[str, ...]) -> BootTest:
        """Give what came of it."""
        passed = self.life != "none" and all(check.outcome == "passed" for check in self.checks)
        record = BootRecord(
            at=self.at,
            passed=passed,
            life=self.life,
            life_seconds=self.seconds,
            checks=tuple(self.checks),
            problem=self.problem,
            host=socket.gethostname(),
            together=together if len(together) > 1 else (),
            console="" if passed else self.console[-_CONSOLE_KEPT:],
            warnings=tuple(self.warnings),
        )
        return BootTest(self.wanted.point, record, self.screen)
