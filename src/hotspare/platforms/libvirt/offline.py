"""The view of a powered-off machine: its images, read through qemu-nbd."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import libvirt

from hotspare.block.extent import Extent
from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.extents import changed_extents
from hotspare.block.qemu import QemuNbd
from hotspare.errors import HotspareError, SourceLost
from hotspare.platforms.libvirt.bitmaps import ImageState, add_stored_bitmap
from hotspare.platforms.libvirt.checkpoints import Checkpoints
from hotspare.platforms.libvirt.connection import explained
from hotspare.platforms.libvirt.increment import (
    GONE_BITMAP,
    LOST_BITMAP,
    disk_identity,
    untracked,
    why_not_since,
)
from hotspare.platforms.libvirt.inventory import DomainDisk, DomainDisks
from hotspare.platforms.libvirt.quiesce import not_reached
from hotspare.platforms.libvirt.scratch import RunFolder
from hotspare.platforms.libvirt.state import read_state
from hotspare.platforms.libvirt.undo_record import pending_warnings
from hotspare.platforms.platform import (
    Consistency,
    Machine,
    SnapshotDisk,
    SnapshotRequest,
    StateFile,
    Token,
)

_MEMORY_SAVED = (
    "the machine's memory is saved (virsh managedsave) and is left out: its disks are as after a power cut,"
    " and restored it starts anew"
)


@dataclass(frozen=True, slots=True)
class _OfflineDisk:
    """How one disk will be read."""

    disk: DomainDisk
    token: Token | None
    since: str | None
    """The bitmap to read changes from; None reads in full."""
    full_because: str | None


class OfflineSnapshot:
    """All disks of a powered-off machine; a ``Snapshot`` as long as the machine stays off.

    Nothing has to be frozen. Each image that can hold one gets a new bitmap with the name of the checkpoint
    to be: QEMU goes on with it when the machine is started, and the next backup lets libvirt know it. libvirt
    itself makes no checkpoint of a machine that is off. A bitmap is never taken for the record of two restore
    points: an image that was put back to a state between the two would lose what lies between.
    """

    def __init__(
        self,
        machine: Machine,
        disks: DomainDisks,
        checkpoints: Checkpoints,
        run: RunFolder,
        request: SnapshotRequest,
    ) -> None:
        self.machine = machine
        self._run = run
        self.frozen_seconds = 0.0
        self._domain = checkpoints.domain
        self.consistency = Consistency.OFFLINE
        if saved := bool(self._domain.hasManagedSaveImage()):
            self.consistency = _consistency_beside_memory(self._domain, request)
        state = read_state(self._domain, machine.platform)
        self.state: Sequence[StateFile] = state.files
        self._checkpoints = checkpoints
        self._checkpoint = checkpoints.prefix + request.point_id
        self._committed = self._released = False
        warnings = [*state.warnings, *pending_warnings(machine.native), *([_MEMORY_SAVED] if saved else [])]
        images = checkpoints.images()
        self._running = ExitStack()
        self._servers: dict[str, QemuNbd] = {}
        try:
            plans = [
                _plan(disk, images[disk.name], request, self._checkpoint, warnings)
                for disk in disks.backed_up
            ]
            self._stamps = {plan.disk.path: _stamp(plan.disk.path) for plan in plans}
            for plan in plans:
                server = QemuNbd(
                    plan.disk.path,
                    plan.disk.format,
                    bitmap=plan.since,
                    allow_references=True,
                    force_share=True,  # a backup must not keep the machine from starting
                )
                self._servers[plan.disk.name] = self._running.enter_context(server)
        except BaseException:
            self.release()
            raise
        self.warnings: Sequence[str] = warnings
        self.disks: Sequence[SnapshotDisk] = [
            SnapshotDisk(plan.disk.name, plan.disk.size, plan.token, plan.full_because) for plan in plans
        ]

    def changed(self, disk: str) -> Iterator[Extent]:
        """Yield all extents for a full, and those since the token for an increment."""
        server = self._servers[disk]
        with closing(server.connect()) as client:
            if server.bitmap:
                yield from changed_extents(client, server.contexts[1])
            else:
                yield from client.extents(0, client.size)

    def reader(self, disk: str) -> NbdClient:
        """Open the whole disk."""
        return self._servers[disk].connect()

    def guest_io(self) -> None:
        """Give nothing: no guest runs."""

    def check(self) -> None:
        """Raise if the machine was started or an image was written."""
        with explained(f"The machine {self.machine.name} cannot be looked at"):
            active = self._domain.isActive()
        if active or any(_stamp(path) != stamp for path, stamp in self._stamps.items()):
            raise SourceLost(
                f"The machine {self.machine.name} was started, or its disks changed, during the backup",
                meaning="This restore point was given up; older ones are not touched",
                hint="Run the backup again",
            )

    def commit(self) -> None:
        """Remove the older checkpoints and bitmaps of this repository."""
        self._committed = True
        self._running.close()  # a bitmap cannot be removed from an image that is being served
        # What fails here fails after the restore point is safe; the next run's sweep mends it.
        with suppress(libvirt.libvirtError, HotspareError):
            self._checkpoints.sweep(keep={self._checkpoint})

    def release(self) -> None:
        """Stop serving the images, and take the new bitmaps back unless committed."""
        self._running.close()
        if self._released:
            return
        self._released = True
        # If the machine was started meanwhile, they are QEMU's now, and left to the next run's sweep.
        with suppress(libvirt.libvirtError, HotspareError):
            if not self._committed and not self._domain.isActive():
                self._checkpoints.remove_bitmaps(self._checkpoint)
        self._run.remove()


def _consistency_beside_memory(domain: libvirt.virDomain, request: SnapshotRequest) -> Consistency:
    """Give the level of disks whose machine goes on from its saved memory: what it had not written is there.

    Raises:
        ConsistencyNotReached: more is required.
    """
    if request.require_consistency and request.consistency is not Consistency.CRASH:
        wanted = request.consistency or Consistency.FILESYSTEM
        raise not_reached(domain, wanted, Consistency.CRASH, ["its memory is saved (virsh managedsave)"])
    return Consistency.CRASH


def _plan(
    disk: DomainDisk, image: ImageState, request: SnapshotRequest, checkpoint: str, warnings: list[str]
) -> _OfflineDisk:
    """Decide how to read a disk, and begin to track it; ``warnings`` are told why that is impossible."""
    if not image.trackable:
        return _OfflineDisk(disk, None, None, untracked(disk))
    given = request.since.get(disk.name)
    reason = why_not_since(given, disk, image, any_token=bool(request.since))
    if given is not None and given.value not in image.recording and reason is None:
        reason = LOST_BITMAP if given.value in image.names else GONE_BITMAP
    token = None
    try:
        add_stored_bitmap(disk.path, checkpoint)
        token = Token(value=checkpoint, disk_identity=disk_identity(disk, image), size=disk.size)
    except HotspareError as error:
        warnings.append(f"changes of {disk.name} cannot be tracked from here: {error.what}")
    since = given.value if given is not None and reason is None else None
    return _OfflineDisk(disk, token, since, reason)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Give what changes when an image is written; None for a device, which has nothing of the kind."""
    status = path.stat()
    return (status.st_mtime_ns, status.st_size) if path.is_file() else None
