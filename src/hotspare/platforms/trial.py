"""What a platform may offer beside its contract: starting a machine for a trial, apart from all others.

A trial has the hardware of the machine and nothing of its surroundings: no network but one of ours, no shared
folder, no device of the host, and disks whose content is thrown away. It is gone when its block is left.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from hotspare.platforms.guest_files import ShellEnded
from hotspare.platforms.platform import Machine, StateFile


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRequest:
    """What is asked of ``open_trial``."""

    repository_id: str
    point_id: str
    """The restore point that is tried; noted on all that is made."""
    memory_max: int | None = None
    """Bytes; a machine with more gets only so much."""


class TrialCard(NamedTuple):
    """A network card of a trial: it speaks over a unix socket that somebody has to serve before the start."""

    network: str
    """What the machine's card is plugged into, for telling networks apart."""
    mac: str
    """As the machine has it: systems know their cards by it."""
    socket: Path


class Activity(NamedTuple):
    """What a machine has done since it was started, as seen from outside."""

    cpu_seconds: float
    bytes_read: int
    bytes_written: int


class Trial(Protocol):
    """A machine on trial. Belongs to one thread."""

    name: str
    """What the platform calls it; tells people that it is a trial."""
    cards: Sequence[TrialCard]
    disk_socket: Path
    """Where NBD serves each disk of the restore point, as the export of its name, before the start."""

    def add_state(self, state: StateFile) -> str | None:
        """Give it a piece of the machine's state; says why that cannot be, None when it is done."""
        ...

    def start(self) -> None:
        """Power it on, with disks as they are in the restore point.

        Raises:
            HotspareError: the platform refuses.
        """
        ...

    def stop(self) -> None:
        """Power it off the hard way; does nothing when it is off. ``start`` goes on with the same disks."""
        ...

    def is_running(self) -> bool:
        """Whether it is powered on. A machine that restarts itself is not: it is powered off then.

        Raises:
            NoSpace: the place for what it writes is full, so it was stopped.
            SourceLost: a disk could not be read, so it was stopped.
        """
        ...

    def agent_answers(self) -> bool:
        """Whether something inside answers."""
        ...

    def shell(
        self,
        script: str,
        arguments: Sequence[str],
        *,
        seconds: float,
        stdin: bytes = b"",
        check: Callable[[], None] = lambda: None,
    ) -> ShellEnded:
        """Run a script of ``sh`` as root inside. While it is waited for, ``check`` is called.

        Raises:
            OSError: the guest refuses to run it, or does not answer any more.
            TimeoutError: it did not end in time, and goes on.
        """
        ...

    def addresses(self) -> Sequence[str]:
        """Give the IPv4 addresses that it says it has; empty when it says nothing."""
        ...

    def activity(self) -> Activity:
        """Tell what it has done."""
        ...

    def screenshot(self) -> bytes | None:
        """Take a picture of its console, as PNG; None when there is none."""
        ...

    def console(self) -> str:
        """Give what it has written to its first serial port."""
        ...


@runtime_checkable
class TrialPlatform(Protocol):
    """What a platform can do beside, if it can start machines for trials."""

    def open_trial(self, machine: Machine, request: TrialRequest) -> AbstractContextManager[Trial]:
        """Prepare a trial of a machine as it was in a restore point; remove all of it on every way out.

        What a process leaves that is killed meanwhile, ``Platform.sweep`` removes.

        Raises:
            NoSpace, PermissionRefused: the place for its disks cannot be made.
        """
        ...
