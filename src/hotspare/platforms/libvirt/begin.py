"""Starting the backup job of a running machine: plan, quiesce, begin, set free."""

from collections.abc import Sequence
from dataclasses import dataclass

import libvirt

from hotspare.cancellation import Cancellation
from hotspare.errors import UsageError
from hotspare.platforms.hooks.hook import Hook, parse_hook
from hotspare.platforms.libvirt.checkpoints import Checkpoints, checkpoint_xml
from hotspare.platforms.libvirt.connection import explained
from hotspare.platforms.libvirt.guest_hooks import disks_not_covered
from hotspare.platforms.libvirt.increment import LOST_BITMAP, DiskPlan, plan_running
from hotspare.platforms.libvirt.inventory import DomainDisks
from hotspare.platforms.libvirt.quiesce import QuietOutcome, QuietRequest, not_reached, quiesced
from hotspare.platforms.libvirt.scratch import RunFolder, check_free
from hotspare.platforms.libvirt.snapshot import PullSnapshot, backup_xml, broken_disk, end_job
from hotspare.platforms.libvirt.state import read_state
from hotspare.platforms.libvirt.undo_record import pending_warnings
from hotspare.platforms.platform import Consistency, Machine, PowerState, SnapshotRequest

_HINT_BLOCK_JOB = "A disk is being copied, committed or pulled: wait until virsh blockjob says that it ended"


@dataclass(frozen=True, slots=True)
class RunningMachine:
    """What is needed to begin."""

    machine: Machine
    """Described just now."""
    disks: DomainDisks
    checkpoints: Checkpoints
    run: RunFolder
    reserve: int
    """Bytes that must stay free for the scratch files."""


def begin_snapshot(
    target: RunningMachine, request: SnapshotRequest, cancellation: Cancellation
) -> PullSnapshot:
    """Quiesce the guest, begin the job with its checkpoint in one call, and set the guest free.

    Raises:
        ConsistencyNotReached: the level that is required, or a hook that must not fail; nothing is left.
        NoSpace: there is not enough scratch space; nothing was begun.
        HotspareError: libvirt refuses; nothing is left behind.
    """
    domain = target.checkpoints.domain
    check_free(target.run.path, target.reserve)
    with explained(f"The disks of {target.machine.name} cannot be looked at"):
        plans: Sequence[DiskPlan] = plan_running(
            target.checkpoints, request.since, persistent=bool(domain.isPersistent())
        )
    checkpoint = None
    if any(plan.tracked for plan in plans):
        checkpoint = target.checkpoints.prefix + request.point_id
    wanted = _quiet_request(target, request, cancellation)
    try:
        plans, quiet = _begin_with_retry(target, plans, checkpoint, cancellation, wanted)
        snapshot = PullSnapshot(
            target.machine, target.checkpoints, target.run, plans, checkpoint, target.reserve
        )
    except BaseException:
        # libvirt may have begun all the same, or have made the checkpoint although the job then failed.
        ended = end_job(domain, str(target.run.socket))
        if checkpoint:
            target.checkpoints.remove(checkpoint)
        if not ended:
            target.run.leave()  # QEMU goes on with its scratch files, and by it the next run knows the job
        raise
    try:
        _describe(snapshot, target, quiet)
    except BaseException:
        snapshot.release()
        raise
    return snapshot


def _describe(snapshot: PullSnapshot, target: RunningMachine, quiet: QuietOutcome) -> None:
    domain = target.checkpoints.domain
    snapshot.consistency = quiet.level
    snapshot.frozen_seconds = quiet.frozen_seconds
    state = read_state(domain, target.machine.platform)
    snapshot.state = state.files
    covered = [disk.name for disk in snapshot.disks]
    snapshot.warnings = [
        *quiet.warnings,
        *disks_not_covered(domain, quiet.used, covered),
        *_unprotected(target),
        *state.warnings,
        *pending_warnings(target.machine.native),
    ]


def _quiet_request(
    target: RunningMachine, request: SnapshotRequest, cancellation: Cancellation
) -> QuietRequest:
    hooks = own_hooks(target.machine) if request.hooks is None else request.hooks
    best = Consistency.APPLICATION if hooks else Consistency.FILESYSTEM
    return QuietRequest(
        level=request.consistency or best,
        hooks=hooks,
        required=request.require_consistency,
        run_id=request.point_id,
        check=cancellation.check,
    )


def own_hooks(machine: Machine) -> Sequence[Hook]:
    """Give the hooks that are noted down on a machine. Raises ``UsageError`` for one that cannot be read."""
    try:
        return [parse_hook(each) for each in machine.marks.hooks]
    except UsageError as error:
        raise UsageError(
            f"A hook that is noted down on {machine.name} cannot be run: {error.what}",
            meaning=error.meaning,
            hint=f"Remove it with: hotspare machine hook {machine.name} remove HOOK",
        ) from error


def _begin_with_retry(
    target: RunningMachine,
    plans: Sequence[DiskPlan],
    checkpoint: str | None,
    cancellation: Cancellation,
    wanted: QuietRequest,
) -> tuple[Sequence[DiskPlan], QuietOutcome]:
    """Begin; where libvirt finds a bitmap broken after all, make that disk a full and begin again."""
    while True:
        cancellation.check()
        try:
            return plans, _begin(target, plans, checkpoint, wanted)
        except libvirt.libvirtError as error:
            broken = broken_disk(error)
            names = {broken} if broken else {plan.disk.name for plan in plans}
            mended = [
                plan.in_full(LOST_BITMAP) if plan.since and plan.disk.name in names else plan
                for plan in plans
            ]
            if broken is None or mended == list(plans):
                with explained(
                    f"The backup of {target.machine.name} cannot begin",
                    meaning="Nothing was changed, and the guest runs on",
                    hint=_HINT_BLOCK_JOB if "blockjob" in str(error) else "",
                ):
                    raise
            plans = mended
            if checkpoint:
                target.checkpoints.remove(checkpoint)


def _begin(
    target: RunningMachine, plans: Sequence[DiskPlan], checkpoint: str | None, wanted: QuietRequest
) -> QuietOutcome:
    domain = target.checkpoints.domain
    others = list(target.disks.left_out)
    tracked = {plan.disk.name: plan.tracked for plan in plans} | dict.fromkeys(others, False)
    backup = backup_xml(plans, others, target.run)
    description = checkpoint_xml(checkpoint, tracked) if checkpoint else None
    paused = target.machine.state is not PowerState.RUNNING
    if paused and wanted.required and wanted.level is not Consistency.CRASH:
        raise not_reached(domain, wanted.level, Consistency.CRASH, ["it is paused"])
    if paused or wanted.level is Consistency.CRASH:
        domain.backupBegin(backup, description, 0)
        return QuietOutcome()
    with quiesced(domain, target.machine.platform, target.run, wanted) as quiet:
        domain.backupBegin(backup, description, 0)
    return quiet


def _unprotected(target: RunningMachine) -> list[str]:
    """Name what a restore will not bring back."""
    return [
        f"disk {name} is left out: {reason}"
        for name, reason in target.disks.left_out.items()
        if name not in target.disks.expected
    ]
