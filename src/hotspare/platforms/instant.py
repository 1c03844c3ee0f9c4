"""What a platform may offer beside its contract: a machine that runs from disks which are served to it.

Each of its disks is an overlay: what the machine writes goes there, what it has not written is read from a
server of ours. Moving fills the overlay while the machine runs, until it needs the server no more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from hotspare.platforms.placement import TargetPlan
from hotspare.platforms.platform import Machine, PowerState, StateFile, TargetRequest


@dataclass(frozen=True, slots=True)
class Condition:
    """How a machine is that runs from served disks."""

    power: PowerState
    waits_for_disk: bool = False
    """Paused by an I/O error: it goes on, without having noticed, once the disk can be read or written."""
    crashed: bool = False
    """Off because QEMU, or what this platform has in its place, died."""
    shut_down: bool = False
    """Off because somebody shut it down or powered it off. Neither is known after a restart of the host."""


class DiskMove(NamedTuple):
    """How far one disk has come."""

    done: bool
    """It needs the server no more."""
    bytes_moved: int = 0
    """While it is not done."""
    begun: bool = False
    """It was not being moved until now."""


class InstantTarget(Protocol):
    """A machine being made upon served disks. It exists for its platform only after ``define``."""

    def add_state(self, state: StateFile) -> str | None:
        """Give the machine a piece of its state; says why that cannot be kept here, None when it is."""
        ...

    def define(self) -> Machine:
        """Define the machine, powered off, and give its description."""
        ...

    def discard(self) -> None:
        """Remove all that was made. Idempotent; does nothing after ``define``."""
        ...


@runtime_checkable
class InstantPlatform(Protocol):
    """What a platform can do beside, if machines can run there from disks that are served."""

    def plan_instant(self, machine: Machine, request: TargetRequest) -> TargetPlan:
        """Say what ``create_instant`` would make. Raises as ``Platform.plan_target``."""
        ...

    def served_socket(self, name: str) -> Path:
        """Give the path of the unix socket for a machine's disks, in a folder that machines can enter.

        Raises:
            PermissionRefused: it cannot be made, or machines could not reach it.
            NoSpace: the file system is full.
        """
        ...

    def create_instant(self, machine: Machine, request: TargetRequest, socket: Path) -> InstantTarget:
        """Start to make a machine like ``machine`` upon disks that will be served at ``socket``.

        Each is an export of the disk's name. Nothing is asked of the server before the machine starts.
        Raises as ``plan_instant``, before anything was written.
        """
        ...

    def condition(self, name: str) -> Condition:
        """Look at a machine. Raises ``MachineNotFound``."""
        ...

    def answers(self, name: str) -> bool:
        """Tell whether the guest's agent answers, or the guest has none that could."""
        ...

    def wake(self, name: str) -> bool:
        """Let a machine go on that waits for its disk; tells whether it runs now."""
        ...

    def overlays(self, name: str) -> Mapping[str, Path]:
        """Give the disks, by name, that were made upon served ones, whether moved by now or not."""
        ...

    def move(self, name: str, disk: str, limit: int) -> DiskMove:
        """Begin to move a disk, or look how far that is; called again and again until it is done.

        Also for a machine that is off, where it returns when the whole disk was moved. Broken off, it goes on
        where it was; at no moment is anything lost that the machine wrote.

        Args:
            name: of the machine.
            disk: which.
            limit: bytes per second; 0 for none. For machines that run.

        Raises:
            HotspareError: not now; it may be tried again.
        """
        ...

    def settle(self, name: str) -> Machine:
        """Take away what is different about a machine whose disks are all moved."""
        ...

    def abandon(self, name: str) -> None:
        """Power a machine off and remove it with its overlays, and all that was written into them.

        Raises:
            UsageError: it is not one that was made by ``create_instant``, or it is settled.
        """
        ...
