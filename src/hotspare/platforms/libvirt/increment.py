"""Deciding, disk by disk, whether only what changed can be read."""

from collections.abc import Mapping
from dataclasses import dataclass

from hotspare.platforms.libvirt.bitmaps import ImageState
from hotspare.platforms.libvirt.checkpoints import Checkpoints
from hotspare.platforms.libvirt.inventory import DomainDisk
from hotspare.platforms.platform import Token

LOST_BITMAP = "what changed was not recorded to the end, as after a crash of QEMU"


GONE_BITMAP = "the record of what changed is gone: the checkpoint was removed, or the image is another one"
_TRANSIENT = "libvirt does not track changes of a transient machine"


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """How one disk will be read."""

    disk: DomainDisk
    identity: str
    """See ``disk_identity``."""
    tracked: bool
    """From now on libvirt can note what changes."""
    since: str | None = None
    """The checkpoint to read changes from; None reads in full."""
    full_because: str | None = None
    """Set exactly when ``since`` is None."""

    def in_full(self, reason: str) -> "DiskPlan":
        """Give the same plan as a full, for that reason."""
        return DiskPlan(self.disk, self.identity, self.tracked, None, reason)


def plan_running(
    checkpoints: Checkpoints, since: Mapping[str, Token], *, persistent: bool
) -> tuple[DiskPlan, ...]:
    """Plan the disks of a running machine. A disk for which anything is in doubt is read in full."""
    images = checkpoints.images()
    for lost in sorted({token.value for token in since.values()} - checkpoints.names()):
        checkpoints.adopt(lost, [disk for disk, token in since.items() if token.value == lost])
    usable = {token.value: checkpoints.usable_disks(token.value) for token in since.values()}

    def plan(disk: DomainDisk) -> DiskPlan:
        token, image = since.get(disk.name), images[disk.name]
        identity = disk_identity(disk, image)
        if not persistent:
            return DiskPlan(disk, identity, False, None, _TRANSIENT)
        if not image.trackable:
            return DiskPlan(disk, identity, False, None, untracked(disk))
        reason = why_not_since(token, disk, image, any_token=bool(since))
        if token is None or reason is not None:
            return DiskPlan(disk, identity, True, None, reason)
        if disk.name in usable[token.value]:
            return DiskPlan(disk, identity, True, token.value)
        # The image tells of bitmaps that were in it when it was opened; those of a crashed QEMU are.
        known = token.value in checkpoints.names() or token.value in image.names
        return DiskPlan(disk, identity, True, None, LOST_BITMAP if known else GONE_BITMAP)

    return tuple(plan(disk) for disk in checkpoints.disks)


def disk_identity(disk: DomainDisk, image: ImageState) -> str:
    """Give what must stay the same for a token to be of use: the image, and all images below it."""
    return f"{disk.identity} on {image.chain}" if image.chain else disk.identity


def why_not_since(token: Token | None, disk: DomainDisk, image: ImageState, *, any_token: bool) -> str | None:
    """Say why a token is of no use for a disk as it is now; None when it may be."""
    if token is None:
        if any_token:
            return "the last restore point has no record to go on from for this disk"
        return "there is no restore point to go on from"
    if image.chain is None:
        return "the images below the disk's own cannot be looked at"
    if token.disk_identity != disk_identity(disk, image):
        own = token.disk_identity.partition(" on ")[0] == disk.identity
        which = "an image below the disk's own is not as it was" if own else "the disk is another one than"
        return f"{which} at the last restore point"
    if token.size != disk.size:
        return "the disk's size has changed since the last restore point"
    return None


def untracked(disk: DomainDisk) -> str:
    """Say why changes of a disk cannot be tracked."""
    if disk.format == "qcow2":
        return "QEMU cannot track changes in a qcow2 image of version 2 (compat 0.10)"
    return f"QEMU cannot track changes of a {disk.format} disk; unchanged parts are found by content"
