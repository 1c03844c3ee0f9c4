"""A host with libvirt and QEMU."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import libvirt

from hotspare.cancellation import Cancellation
from hotspare.errors import MachineNotFound, SourceLost, UsageError
from hotspare.platforms.choice import with_chosen_disks
from hotspare.platforms.guest_files import GuestFiles
from hotspare.platforms.instant import Condition, DiskMove
from hotspare.platforms.libvirt import instant
from hotspare.platforms.libvirt.begin import RunningMachine, begin_snapshot
from hotspare.platforms.libvirt.checkpoints import Checkpoints, checkpoint_prefix
from hotspare.platforms.libvirt.connection import explained, find_domain, open_connection
from hotspare.platforms.libvirt.guest_files import guest_files
from hotspare.platforms.libvirt.in_place import InPlaceTarget, Replacement
from hotspare.platforms.libvirt.inventory import DomainDisks, describe_machine, inspect_disks
from hotspare.platforms.libvirt.mapping import bridges_here, networks_here
from hotspare.platforms.libvirt.marks import write_marks
from hotspare.platforms.libvirt.offline import OfflineSnapshot
from hotspare.platforms.libvirt.places import usable_pools
from hotspare.platforms.libvirt.probe import probe_host
from hotspare.platforms.libvirt.replicated import refuse_replicated
from hotspare.platforms.libvirt.scratch import (
    DEFAULT_RESERVE,
    RunFolder,
    ScratchOwner,
    default_scratch_folder,
    qemu_account,
)
from hotspare.platforms.libvirt.snapshot import PullSnapshot
from hotspare.platforms.libvirt.sweep import sweep_machine
from hotspare.platforms.libvirt.sweep_host import HostSweep
from hotspare.platforms.libvirt.target import LibvirtTarget, plan_domain
from hotspare.platforms.libvirt.trial import is_trial, open_trial
from hotspare.platforms.libvirt.undo import confirm_restore, undo_restore
from hotspare.platforms.libvirt.use import host_use
from hotspare.platforms.offers import Offers
from hotspare.platforms.placement import TargetPlan
from hotspare.platforms.platform import (
    Finding,
    Machine,
    MachineMarks,
    PowerState,
    Remnant,
    Snapshot,
    SnapshotRequest,
    SweepRequest,
    TargetRequest,
)
from hotspare.platforms.trial import Trial, TrialRequest
from hotspare.policy.load import HostUse

_REASON_SECONDS = 20.0
"""libvirt handles the ends of all machines in one thread: on a busy host it learns of one late."""


class LibvirtPlatform:
    """A ``Platform``; one per thread.

    Args:
        uri: ``qemu:///system`` or ``qemu:///session``.
        scratch_folder: where a running machine's overwritten blocks wait during a backup; on a fast local
            file system. None for ``HOTSPARE_SCRATCH_FOLDER`` or else the default.
        scratch_reserve: bytes that must stay free there; a backup is given up before it takes them.

    Raises:
        PlatformUnavailable: libvirt does not answer.
        PermissionRefused: this user may not use it.
    """

    def __init__(
        self, uri: str, *, scratch_folder: Path | None = None, scratch_reserve: int = DEFAULT_RESERVE
    ) -> None:
        self.uri = uri
        self._connection: libvirt.virConnect | None = open_connection(uri)
        named = os.environ.get("HOTSPARE_SCRATCH_FOLDER")
        self.scratch_folder = scratch_folder or (Path(named) if named else default_scratch_folder())
        self.scratch_reserve = scratch_reserve

    @property
    def _open(self) -> libvirt.virConnect:
        if self._connection is None:
            raise ValueError("The platform was closed")
        return self._connection

    def probe(self) -> list[Finding]:
        """Look at libvirt, QEMU, its programs, KVM and the scratch folder."""
        return probe_host(self._open, self.uri, self.scratch_folder, self.scratch_reserve)

    def machines(self) -> list[Machine]:
        """List all domains, by name."""
        with explained(f"The machines at {self.uri} cannot be listed"):
            domains = self._open.listAllDomains()
        found = []
        for domain in domains:
            with suppress(MachineNotFound):  # removed since it was listed
                if not is_trial(domain):  # nobody wants to have one backed up
                    found.append(describe_machine(domain, self.uri))
        return sorted(found, key=lambda machine: machine.name)

    def inspect(self, name: str) -> Machine:
        """Describe the domain of that name or UUID."""
        return describe_machine(find_domain(self._open, name, self.uri), self.uri)

    def mark(self, name: str, marks: MachineMarks) -> Machine:
        """Keep marks in the domain's metadata."""
        domain = find_domain(self._open, name, self.uri)
        write_marks(domain, marks)
        return describe_machine(domain, self.uri)

    def use(self, at: datetime) -> HostUse:
        """Count what all domains that run have used."""
        return host_use(self._open, self.uri, at)

    def guest_files(self, name: str) -> AbstractContextManager[GuestFiles]:
        """Open the way to files in the domain of that name or UUID, through its agent."""
        return guest_files(find_domain(self._open, name, self.uri))

    @contextmanager
    def open_snapshot(
        self, machine: Machine, request: SnapshotRequest, cancellation: Cancellation
    ) -> Iterator[Snapshot]:
        """Freeze, snapshot all disks in one instant, thaw.

        Raises:
            MachineNotFound: it was removed.
            NoSpace: scratch space is short.
            PermissionRefused: the scratch folder or an image cannot be used.
            SourceLost: the machine stopped while it was read.
            HotspareError: a backup of it is running already, it is replicated, or libvirt refuses.
        """
        refuse_replicated(machine, request.repository_id)
        domain = find_domain(self._open, machine.id, self.uri)
        snapshot = self._snapshot(domain, request, cancellation)
        try:
            yield snapshot
        except SourceLost:
            # Readers only see that the server is gone; say why, if that becomes known.
            _tell_why(snapshot)
            raise
        finally:
            snapshot.release()

    def _snapshot(
        self, domain: libvirt.virDomain, request: SnapshotRequest, cancellation: Cancellation
    ) -> PullSnapshot | OfflineSnapshot:
        sweep_machine(domain, self.scratch_folder)
        machine = with_chosen_disks(describe_machine(domain, self.uri), request.disks)
        off = machine.state is PowerState.OFF
        owner = ScratchOwner(
            uri=self.uri,
            domain=machine.id,
            name=machine.name,
            repository_id=request.repository_id,
            point_id=request.point_id,
            pid=os.getpid(),
        )
        # From here on no other run of ours, and no sweep, touches the machine.
        run = RunFolder.create(self.scratch_folder, owner, None if off else qemu_account(self._open))
        try:
            disks, checkpoints = self._disks_and_checkpoints(domain, machine, request)
            cancellation.check()
            if off:
                with explained(f"The checkpoints of {machine.name} cannot be looked at"):
                    return OfflineSnapshot(machine, disks, checkpoints, run, request)
            running = RunningMachine(machine, disks, checkpoints, run, self.scratch_reserve)
            return begin_snapshot(running, request, cancellation)
        except BaseException:
            run.remove()
            raise

    def _disks_and_checkpoints(
        self, domain: libvirt.virDomain, machine: Machine, request: SnapshotRequest
    ) -> tuple[DomainDisks, Checkpoints]:
        with explained(f"The disks of {machine.name} cannot be looked at"):
            disks = inspect_disks(domain).chosen_for(machine)
            prefix = checkpoint_prefix(request.repository_id)
            checkpoints = Checkpoints(domain, prefix, disks.backed_up, disks.excluded)
            if request.since:
                # Without tokens we cannot know which of ours an older restore point still counts on;
                # then they go with the commit.
                checkpoints.sweep(keep={token.value for token in request.since.values()})
        _refuse_no_disks(machine, disks)
        return disks, checkpoints

    def plan_target(self, machine: Machine, request: TargetRequest) -> TargetPlan:
        """Say what domain ``create_target`` would make."""
        return plan_domain(self._open, self.uri, machine, request).plan

    def offers(self) -> Offers:
        """See ``platforms.offers.OfferingPlatform``."""
        networks, bridges = networks_here(self._open), bridges_here()
        return Offers(pools=usable_pools(self._open), networks=networks, bridges=bridges)

    def sweep(self, request: SweepRequest) -> list[Remnant]:
        """Thaw, end jobs, and remove run folders and checkpoints of dead runs, on all domains."""
        return HostSweep(self._open, self.uri, self.scratch_folder, request).run()

    def create_target(self, machine: Machine, request: TargetRequest) -> LibvirtTarget:
        """Start to make a domain like ``machine``, with its disks as files of this host."""
        return LibvirtTarget(self._open, self.uri, plan_domain(self._open, self.uri, machine, request))

    def plan_replacement(self, machine: Machine) -> TargetPlan:
        """Say what ``replace_machine`` would make."""
        return Replacement(self._open, self.uri, machine).plan

    def replace_machine(self, machine: Machine, *, power_off: bool) -> InPlaceTarget:
        """Start to restore a domain over itself, upon overlays."""
        return InPlaceTarget(Replacement(self._open, self.uri, machine), power_off=power_off)

    def undo_restore(self, name: str, *, force: bool) -> Machine:
        """Bring back a domain that was restored over."""
        undo_restore(find_domain(self._open, name, self.uri), force=force)
        return self.inspect(name)

    def confirm_restore(self, name: str, cancellation: Cancellation) -> Machine:
        """Merge the overlays of a domain that was restored over."""
        confirm_restore(find_domain(self._open, name, self.uri), cancellation)
        return self.inspect(name)

    def plan_instant(self, machine: Machine, request: TargetRequest) -> TargetPlan:
        """Say what domain ``create_instant`` would make."""
        return plan_domain(self._open, self.uri, instant.with_overlays(machine), request).plan

    def served_socket(self, name: str) -> Path:
        """Give the path of the socket for a domain's disks."""
        folder = instant.serving_folder(self.scratch_folder, name)
        with explained("The account of QEMU cannot be found out"):
            instant.make_serving_folder(folder, qemu_account(self._open))
        return folder / "nbd.sock"

    def create_instant(self, machine: Machine, request: TargetRequest, socket: Path) -> instant.InstantDomain:
        """Start to make a domain upon overlays over served disks."""
        planned = plan_domain(self._open, self.uri, instant.with_overlays(machine), request)
        return instant.InstantDomain(self._open, self.uri, planned, socket)

    def condition(self, name: str) -> Condition:
        """Look at a domain."""
        return instant.condition_of(find_domain(self._open, name, self.uri))

    def answers(self, name: str) -> bool:
        """Tell whether a guest's agent answers."""
        return instant.agent_answers(find_domain(self._open, name, self.uri))

    def wake(self, name: str) -> bool:
        """Resume a domain that was paused by an I/O error."""
        return instant.wake(find_domain(self._open, name, self.uri))

    def overlays(self, name: str) -> Mapping[str, Path]:
        """Give the disks of a domain that were made upon served ones."""
        return instant.overlays_of(find_domain(self._open, name, self.uri))

    def move(self, name: str, disk: str, limit: int) -> DiskMove:
        """Have QEMU fill an overlay."""
        return instant.move_disk(find_domain(self._open, name, self.uri), disk, limit)

    def settle(self, name: str) -> Machine:
        """Make a domain's definition that of any other."""
        domain = find_domain(self._open, name, self.uri)
        instant.settle(domain)
        shutil.rmtree(instant.serving_folder(self.scratch_folder, name), ignore_errors=True)
        return describe_machine(domain, self.uri)

    def abandon(self, name: str) -> None:
        """Remove a domain that runs from a repository."""
        instant.abandon(find_domain(self._open, name, self.uri))
        shutil.rmtree(instant.serving_folder(self.scratch_folder, name), ignore_errors=True)

    def open_trial(self, machine: Machine, request: TrialRequest) -> AbstractContextManager[Trial]:
        """Prepare a transient domain like ``machine`` that reaches nothing."""
        return open_trial(self._open, self.uri, self.scratch_folder, machine, request)

    def start(self, name: str) -> None:
        """Power a domain on; nothing happens when it runs."""
        domain = find_domain(self._open, name, self.uri)
        with explained(f"The machine {name} cannot be started"):
            if not domain.isActive():
                domain.create()

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(libvirt.libvirtError):
                connection.close()


def _tell_why(snapshot: Snapshot) -> None:
    """Raise the reason for a lost reader; libvirt learns of QEMU's end a moment after its sockets close."""
    deadline = time.monotonic() + _REASON_SECONDS
    while time.monotonic() < deadline:
        snapshot.check()
        time.sleep(0.1)


def _refuse_no_disks(machine: Machine, disks: DomainDisks) -> None:
    if not disks.backed_up:
        raise UsageError(
            f"The machine {machine.name} has no disk that can be backed up",
            meaning="Nothing was done",
            hint="; ".join(machine.left_out),
        )
