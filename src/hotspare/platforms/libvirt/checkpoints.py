"""Our checkpoints: which there are, which are of use, and how to get rid of the others.

libvirt calls "checkpoint" a named instant since which a dirty bitmap of each disk notes what is
written. The bitmap of each checkpoint stands for itself, so older ones stay good when newer ones go.
It bears the checkpoint's name, which is that of one restore point only. The bitmap lives in the image and
goes where the image goes (a copy, another host); libvirt's record of the checkpoint does not. So it is the
bitmap that counts: where only libvirt's record is lost, it is made again.
"""

import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import libvirt

from hotspare.errors import HotspareError
from hotspare.platforms.libvirt.bitmaps import (
    ImageState,
    image_state,
    remove_live_bitmap,
    remove_stored_bitmap,
)
from hotspare.platforms.libvirt.inventory import DomainDisk

_REDEFINE = (
    libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE | libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
)


def checkpoint_prefix(repository_id: str) -> str:
    """Give what the names of a repository's checkpoints start with."""
    return f"hotspare-{repository_id[:8]}-"


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one repository on one domain. Those of others are never touched."""

    domain: libvirt.virDomain
    prefix: str
    disks: tuple[DomainDisk, ...]
    excluded: tuple[DomainDisk, ...] = ()
    """Disks that are not backed up now, but may hold bitmaps from when they were."""

    def names(self) -> frozenset[str]:
        """Name those that libvirt knows."""
        every = (one.getName() for one in self.domain.listAllCheckpoints())
        return frozenset(name for name in every if name.startswith(self.prefix))

    def images(self) -> dict[str, ImageState]:
        """Look, per disk, into its image."""
        return {disk.name: image_state(disk.path, disk.format) for disk in (*self.disks, *self.excluded)}

    def adopt(self, name: str, disks: Sequence[str]) -> None:
        """Let libvirt know a checkpoint of a running machine again, over those of the disks where it is good.

        libvirt validates: it refuses where the bitmap is missing, broken or not recording. Nothing happens
        when that is so on all disks.
        """
        if self._redefine(name, disks):
            return
        good = [disk for disk in disks if self._redefine(name, [disk])]
        if good:
            self._redefine(name, good)

    def _redefine(self, name: str, disks: Sequence[str]) -> bool:
        definition = checkpoint_xml(name, {disk.name: disk.name in disks for disk in self.disks}, again=True)
        try:
            self.domain.checkpointCreateXML(definition, _REDEFINE)
        except libvirt.libvirtError:
            return False
        return True

    def usable_disks(self, name: str) -> frozenset[str]:
        """Name the disks of a running machine whose changes since that checkpoint are known.

        libvirt can give the number of bytes changed only where the bitmap is there, recording and
        consistent; that is what is asked here. It is the same test as it makes for an incremental backup.
        """
        flags = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE | libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
        try:
            description = self.domain.checkpointLookupByName(name).getXMLDesc(flags)
        except libvirt.libvirtError:
            return frozenset()
        disks = ET.fromstring(description).iterfind("disks/disk")  # noqa: S314 - libvirt's own XML
        return frozenset(disk.attrib["name"] for disk in disks if disk.get("size") is not None)

    def sweep(self, keep: Iterable[str]) -> None:
        """Remove all but those to keep, and bitmaps whose checkpoint libvirt does not know.

        What cannot be removed stays for the next sweep: it costs space, not correctness.
        """
        kept = frozenset(keep)
        for name in sorted(self.names() - kept):
            self.remove(name)
        for bitmap in sorted(self.stray_bitmaps() - kept):
            self.remove_bitmaps(bitmap)

    def stray_bitmaps(self) -> frozenset[str]:
        """Name the bitmaps in images, ours by their names, whose checkpoint libvirt does not know.

        The newest restore point of a machine that is off has just that; it is no leftover.
        """
        stored = {name for image in self.images().values() for name in image.names}
        return frozenset(name for name in stored if name.startswith(self.prefix)) - self.names()

    def remove(self, name: str) -> None:
        """Remove a checkpoint with its bitmaps; nothing happens when libvirt does not know it."""
        try:
            checkpoint = self.domain.checkpointLookupByName(name)
        except libvirt.libvirtError:
            return
        try:
            checkpoint.delete(0)
        except libvirt.libvirtError:
            # The machine is off, or a bitmap is broken in a way that libvirt stumbles over.
            with suppress(libvirt.libvirtError):
                checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
            self._force_out(name)

    def remove_bitmaps(self, name: str) -> None:
        """Remove the bitmaps of a checkpoint that libvirt does not know; what cannot be removed stays."""
        with suppress(libvirt.libvirtError):
            if self.domain.isActive():
                self.adopt(name, [disk.name for disk in self.disks])
                if name in self.names():
                    self.remove(name)
                    return
        self._force_out(name)

    def _force_out(self, name: str) -> None:
        with suppress(libvirt.libvirtError, HotspareError):
            if self.domain.isActive():
                remove_live_bitmap(self.domain, name)
                return
            for disk in (*self.disks, *self.excluded):
                if name in image_state(disk.path, disk.format).names:
                    remove_stored_bitmap(disk.path, name)


def checkpoint_xml(name: str, tracked: Mapping[str, bool], *, again: bool = False) -> str:
    """Describe a checkpoint over the disks that are tracked; see libvirt's "Checkpoint XML format".

    Disks that are not named get no bitmap only if told so, hence all disks of the machine are named.

    Args:
        name: of the checkpoint, and of its bitmaps.
        tracked: per disk, whether it has one.
        again: its bitmaps are there already. libvirt then wants a time; what it was is not known any more,
            and of no use.
    """
    root = ET.Element("domaincheckpoint")
    ET.SubElement(root, "name").text = name
    ET.SubElement(root, "description").text = "Made by hotspare: what changed since its restore point"
    if again:
        ET.SubElement(root, "creationTime").text = str(int(time.time()))
    disks = ET.SubElement(root, "disks")
    for disk, is_tracked in tracked.items():
        element = ET.SubElement(disks, "disk", name=disk, checkpoint="bitmap" if is_tracked else "no")
        if again and is_tracked:
            element.set("bitmap", name)
    return ET.tostring(root, encoding="unicode")
