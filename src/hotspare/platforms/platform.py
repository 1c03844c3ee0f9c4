"""The platform contract: one small set of verbs that every platform fits.

``tests/contracts/platform_suite.py`` holds each platform to it. "Snapshot" means the platform's own
short-lived frozen view; what we keep of it in a repository is a restore point.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from hotspare.block.device import BlockDisk, BlockReader
from hotspare.block.extent import Extent
from hotspare.cancellation import Cancellation
from hotspare.platforms.hooks.hook import Hook
from hotspare.platforms.placement import Placement, TargetPlan
from hotspare.policy.load import HostUse


class PowerState(Enum):
    """Whether a machine runs."""

    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"


class Consistency(Enum):
    """How clean the frozen view is; what was achieved, never what was asked for."""

    NONE = "none"
    """Read while it was written, so that parts are of different instants; only bare files can be so."""
    CRASH = "crash"
    """As after a power cut."""
    FILESYSTEM = "filesystem"
    """The guest's file systems were flushed and frozen."""
    APPLICATION = "application"
    """Applications inside were quiesced as well."""
    OFFLINE = "offline"
    """The machine was powered off."""

    def meets(self, wanted: "Consistency") -> bool:
        """Tell whether this is as good as what is wanted, or better."""
        order = list(Consistency)
        return order.index(self) >= order.index(wanted)


class MachineDisk(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of a machine."""

    name: str
    """As the platform calls it and unique in the machine: ``vda``."""
    size: int
    """Bytes."""
    format: str
    """``raw``, ``qcow2``, ``vmdk``…"""
    source: str
    """Where it lies, for people: a path or a volume."""
    serial: str = ""
    """As the guest sees it; empty when it has none."""
    labels: tuple[str, ...] = ()
    """Other names that the platform has for it (libvirt: the alias)."""


class MachineMarks(msgspec.Struct, frozen=True, kw_only=True):
    """What users noted down on a machine for us; it stays with the machine."""

    tags: tuple[str, ...] = ()
    """Sorted."""
    excluded_disks: tuple[str, ...] = ()
    """Sorted patterns of the disks that are not backed up unless a run names them."""
    hooks: tuple[str, ...] = ()
    """What quiesces the applications inside, as ``parse_hook`` reads it, in the order of beginning."""
    checks: tuple[str, ...] = ()
    """What a restore point of it has to pass when it is started for a trial, as ``parse_check`` reads it."""


class StateFile(msgspec.Struct, frozen=True, kw_only=True):
    """State of a machine outside of its disks: the firmware's variables, a TPM's memory."""

    name: str
    """Unique in the machine and never a disk's: ``nvram``, ``tpm/tpm2-00.permall``."""
    content: bytes
    """Never empty."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A neutral description of a machine, plus the platform's own definition kept whole."""

    id: str
    """Stable identity on its platform (libvirt: the UUID)."""
    name: str
    platform: str
    """URI of the platform it lives on."""
    state: PowerState
    cpus: int = 0
    memory: int = 0
    """Bytes."""
    firmware: str = ""
    """``bios``, ``uefi`` or empty when unknown."""
    disks: tuple[MachineDisk, ...] = ()
    """Disks that can be backed up."""
    left_out: tuple[str, ...] = ()
    """Disks that cannot or shall not, each with the reason: ``"sda: a CD-ROM"``."""
    title: str = ""
    """What people call it, where the platform keeps that."""
    marks: MachineMarks = MachineMarks()
    native: str = ""
    """The platform's own definition (libvirt: domain XML), opaque above the platform."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """From when a platform can tell what changed on a disk. Opaque to the engines."""

    value: str
    """The platform's handle (libvirt: the checkpoint's name)."""
    disk_identity: str
    """What the disk was; a token is of no use for another disk of the same name."""
    size: int
    """The disk's size in bytes when the token was made."""


@dataclass(frozen=True, slots=True)
class SnapshotDisk:
    """One disk in a snapshot."""

    name: str
    size: int
    token: Token | None
    """Becomes good for the next increment by ``commit``; None where changes cannot be tracked."""
    full_because: str | None
    """Why ``changed`` covers the whole disk; None when it is an increment."""


@dataclass(frozen=True, slots=True)
class DiskChoice:
    """Patterns, as of a shell, for the disks of one run: of their name, serial or labels."""

    only: tuple[str, ...] = ()
    """Just these, also those that are excluded for good; empty for all that are not."""
    exclude: tuple[str, ...] = ()


ALL_DISKS = DiskChoice()


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """What is asked of ``open_snapshot``."""

    point_id: str
    """Identity of the restore point to be; marks what is created on the platform as ours."""
    repository_id: str
    """Each repository tracks changes for itself."""
    since: Mapping[str, Token]
    """Per disk name: the token of the parent restore point. A disk without one is read in full."""
    consistency: Consistency | None = None
    """The level that is wanted; None for ``APPLICATION`` where there are hooks, else ``FILESYSTEM``."""
    require_consistency: bool = False
    """Rather fail than go on with less."""
    hooks: Sequence[Hook] | None = None
    """What quiesces the applications inside; None for the machine's own."""
    disks: DiskChoice = ALL_DISKS
    """Which disks; see ``platforms/choice.py``."""


class IoTotals(NamedTuple):
    """What a guest has done of one kind of operation on one disk, since the machine was started."""

    operations: int
    nanoseconds: int
    """The time that they took, added up; operations that overlap count each."""


class Snapshot(Protocol):
    """An atomic frozen view of all disks of one machine, tagged as ours."""

    machine: Machine
    disks: Sequence[SnapshotDisk]
    consistency: Consistency
    frozen_seconds: float
    """How long the guest's file systems were frozen; 0 when they were not."""
    warnings: Sequence[str]
    """What the user should know: "no guest agent: crash-consistent"."""
    state: Sequence[StateFile]
    """What the machine keeps outside of its disks, at the same instant."""

    def changed(self, disk: str) -> Iterator[Extent]:
        """Yield what must be stored of the disk, in order.

        For a full that is the whole disk, for an increment a *superset* of what changed since the token.
        A changed block that is zero now is a ZERO extent, never left out.
        """
        ...

    def reader(self, disk: str) -> BlockReader:
        """Open the whole frozen disk (not only what changed) for reading."""
        ...

    def guest_io(self) -> Mapping[str, IoTotals] | None:
        """Count the guest's own I/O, by disk and kind (``vda write``): from its growth follows its latency.

        None when there is no guest that runs, or the platform cannot tell. Called by a thread of its own.
        """
        ...

    def check(self) -> None:
        """Raise if the snapshot is no longer good or now endangers the guest (scratch space).

        Raises:
            SourceLost: the machine stopped or the snapshot is gone.
            NoSpace: the scratch file system is running full.
        """
        ...

    def commit(self) -> None:
        """Promote the tokens; called only after the restore point is durable."""
        ...

    def release(self) -> None:
        """End the frozen view.

        Without a ``commit`` before, the new tokens are taken back and the old ones stay good.
        Idempotent; never raises for what is gone already.
        """
        ...


@dataclass(frozen=True, slots=True)
class TargetRequest:
    """What is asked of ``create_target``."""

    name: str
    """Name of the machine to be; must be free."""
    folder: Path | None
    """Where its disks go; None for the platform's default."""
    placement: Placement = field(default_factory=Placement)


class Target(Protocol):
    """A machine being restored. It exists for its platform only after ``finalize``."""

    def writer(self, disk: str) -> BlockDisk:
        """Open one of its disks."""
        ...

    def is_blank(self, disk: str) -> bool:
        """Whether a disk reads as zeroes; else it holds what has to be compared with what it shall be."""
        ...

    def add_state(self, state: StateFile) -> str | None:
        """Give the machine a piece of its state; says why that cannot be kept here, None when it is."""
        ...

    def finalize(self) -> Machine:
        """Define the machine, powered off, and give its description."""
        ...

    def discard(self, *, keep_partial: bool = False) -> None:
        """Remove all that was made. Idempotent; does nothing after ``finalize``.

        With ``keep_partial`` the disks stay, hidden, for the next target of the same name to go on with.
        """
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``hotspare doctor``."""

    subject: str
    ok: bool
    detail: str
    hint: str = ""
    """How to mend it; empty when ok."""
    needed: bool = True
    """False for what is good to have, but not needed for backups and restores."""


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """What is asked of ``sweep``."""

    dry_run: bool = False
    """Only look."""
    repository_id: str | None = None
    """Sweep this repository's checkpoints too; None leaves all checkpoints alone."""
    needed_tokens: Callable[[], Mapping[str, Set[str]]] = dict
    """Per machine id: values of the tokens that its next increment into that repository goes on from.

    Called after the checkpoints were listed, so that a run which ends meanwhile loses nothing.
    """


@dataclass(frozen=True, slots=True)
class Remnant:
    """Something that a crash of ours left on a platform."""

    kind: str
    """``frozen-guest``, ``backup-job``, ``run-folder``, ``checkpoint`` or ``trial``."""
    machine: str
    """Its name; its id where the machine is gone."""
    detail: str
    """Which one: a path, a name."""
    problem: str | None = None
    """Why it could not be removed; None when it was (or would be)."""


class Platform(Protocol):
    """One host or cluster."""

    uri: str

    def probe(self) -> list[Finding]:
        """Look at what this platform offers and lacks. Never raises for what is missing."""
        ...

    def machines(self) -> list[Machine]:
        """List all machines, by name."""
        ...

    def inspect(self, name: str) -> Machine:
        """Describe one machine, found by name or id. Raises ``MachineNotFound``."""
        ...

    def mark(self, name: str, marks: MachineMarks) -> Machine:
        """Put these marks in place of a machine's own, and describe it anew.

        Raises:
            MachineNotFound: there is none of that name or id.
            UsageError: this platform has no place for marks.
        """
        ...

    def use(self, at: datetime) -> HostUse | None:
        """Count what all machines that run have used so far; None where the platform cannot tell.

        ``at`` is the time of this look.
        """
        ...

    def open_snapshot(
        self, machine: Machine, request: SnapshotRequest, cancellation: Cancellation
    ) -> AbstractContextManager[Snapshot]:
        """Freeze, snapshot all disks in one instant, thaw; ``release`` on every way out.

        Leftovers of this repository's earlier, crashed runs on this machine are removed first.

        Raises:
            ConsistencyNotReached: the level that is required, or a hook that must not fail.
        """
        ...

    def sweep(self, request: SweepRequest) -> list[Remnant]:
        """Remove what crashed runs of ours left on all machines, and say what.

        What belongs to a run that lives, or to another program, is left alone. Never raises for one leftover
        that cannot be removed.
        """
        ...

    def plan_target(self, machine: Machine, request: TargetRequest) -> TargetPlan:
        """Say what ``create_target`` would make, without making anything.

        Raises:
            TargetExists: the name, a file or an identity that is to be kept is taken.
            UsageError: something is named, or needed by the machine, that this platform does not have.
        """
        ...

    def create_target(self, machine: Machine, request: TargetRequest) -> Target:
        """Start to make a machine like ``machine`` (which may come from another host), never powering it on.

        Raises as ``plan_target``, before anything was written.
        """
        ...

    def start(self, name: str) -> None:
        """Power a machine on."""
        ...

    def close(self) -> None:
        """Let go of the connection; a second call does nothing."""
        ...
