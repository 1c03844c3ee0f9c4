"""The two ends of a restore over a machine: back to what it was, or final.

Making it final writes each overlay into the disk below, and defines the machine upon that again. While it
lasts the machine reads the same through the overlay, so a crash does no harm and the command is run again.
"""

import copy
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import libvirt
import msgspec

from hotspare.block.overlay import commit_overlay
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, UsageError
from hotspare.platforms.libvirt.connection import explained
from hotspare.platforms.libvirt.definition import drop_undo
from hotspare.platforms.libvirt.in_place import drop_checkpoints
from hotspare.platforms.libvirt.inventory import inspect_disks
from hotspare.platforms.libvirt.places import default_folder
from hotspare.platforms.libvirt.undo_record import (
    OverlaidDisk,
    UndoRecord,
    has_record,
    modified_ns,
    noted_undo,
    overlay_path,
    record_path,
    remove_record,
    stored_definition,
)


def undo_restore(domain: libvirt.virDomain, *, force: bool) -> None:
    """Define the former machine again, and remove what was restored.

    Raises:
        UsageError: there is nothing to undo, it runs, was started since, or is being made final.
    """
    name = domain.name()
    path = _pending(domain)
    if path is None:
        _clear_leftovers(domain, "undo")
        return
    record = UndoRecord.read(path)
    if record.confirming:
        raise UsageError(
            f"The restore of {name} is being made final already",
            meaning="Its former disks are partly overwritten",
            hint=f"Run 'hotspare restore confirm {name}' to end it",
        )
    _refuse_started(domain, record, force=force)
    with explained(
        f"libvirt refuses the former definition of {name}", meaning="The machine stays as restored"
    ):
        drop_checkpoints(domain, inspect_disks(domain))
        domain.connect().defineXML(record.definition)
    _remove(record, path, also_new=True)


def confirm_restore(domain: libvirt.virDomain, cancellation: Cancellation) -> None:
    """Write the overlays into the former disks, and define the machine upon these.

    Raises:
        UsageError: there is nothing to confirm.
        Interrupted: it was cancelled, and is to be run again.
    """
    name = domain.name()
    path = _pending(domain)
    if path is None:
        _clear_leftovers(domain, "confirm")
        return
    record = UndoRecord.read(path)
    msgspec.structs.replace(record, confirming=True).write(path)
    with explained(f"The machine {name} cannot be looked at"):
        drop_checkpoints(domain, inspect_disks(domain))
        active = domain.isActive()
    for disk in record.disks:
        cancellation.check()
        if _is_merged(domain, disk):
            continue
        if active:
            _commit_live(domain, disk, cancellation)
        else:
            commit_overlay(Path(disk.overlay), Path(disk.base))
    with explained(
        f"libvirt refuses the definition of {name}", meaning="The machine goes on upon its overlays"
    ):
        _define_upon_bases(domain, record)
    _remove(record, path, also_new=False)


def _define_upon_bases(domain: libvirt.virDomain, record: UndoRecord) -> None:
    root = ET.fromstring(stored_definition(domain))  # noqa: S314 - libvirt's own XML
    drop_undo(root)
    former = _disks_of(ET.fromstring(record.definition))  # noqa: S314 - libvirt's own XML
    restored = _disks_of(root)
    for disk in record.disks:
        _point_back(restored[disk.name], former[disk.name])
    domain.connect().defineXML(ET.tostring(root, encoding="unicode"))


def _disks_of(root: ET.Element) -> dict[str, ET.Element]:
    disks = {}
    for disk in root.iterfind("devices/disk"):
        target = disk.find("target")
        if target is not None:
            disks[target.get("dev", "")] = disk
    return disks


def _point_back(disk: ET.Element, former: ET.Element) -> None:
    """Make a disk the file, device or volume again that it was."""
    disk.set("type", former.get("type", "file"))
    for tag in ("source", "backingStore", "mirror"):
        for element in disk.findall(tag):
            disk.remove(element)
    disk[:0] = [copy.deepcopy(element) for element in former.findall("source")]
    driver, former_driver = disk.find("driver"), former.find("driver")
    if driver is not None and former_driver is not None:
        driver.set("type", former_driver.get("type", "raw"))


def _commit_live(domain: libvirt.virDomain, disk: OverlaidDisk, cancellation: Cancellation) -> None:
    """Have QEMU write the overlay into its base while the machine runs, and go on upon the base."""
    with explained(
        f"QEMU cannot merge disk {disk.name} of {domain.name()} into {disk.base}",
        meaning="The machine runs on, upon its overlay",
        hint="Power it off and confirm again",
    ):
        if not domain.blockJobInfo(disk.name):
            flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
            domain.blockCommit(disk.name, disk.base, disk.overlay, 0, flags)
        try:
            while not _is_ready(domain, disk.name):
                cancellation.check()
                time.sleep(0.1)
        except BaseException:
            with suppress(libvirt.libvirtError):
                domain.blockJobAbort(disk.name)
            raise
        domain.blockJobAbort(disk.name, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def _is_ready(domain: libvirt.virDomain, disk: str) -> bool:
    root = ET.fromstring(domain.XMLDesc(0))  # noqa: S314 - libvirt's own XML
    for element in root.iterfind("devices/disk"):
        target, mirror = element.find("target"), element.find("mirror")
        if target is not None and target.get("dev") == disk:
            if mirror is None:
                raise HotspareError(f"The merge of disk {disk} of {domain.name()} ended before its time")
            return mirror.get("ready") == "yes"
    return False


def _is_merged(domain: libvirt.virDomain, disk: OverlaidDisk) -> bool:
    """Tell whether a disk is upon its base again, into which the overlay must not be written any more."""
    with explained(f"The machine {domain.name()} cannot be looked at"):
        source = next((str(one.path) for one in inspect_disks(domain).backed_up if one.name == disk.name), "")
    if source not in (disk.overlay, disk.base):
        raise UsageError(
            f"Disk {disk.name} of {domain.name()} is {source or 'gone'}, no longer what was restored",
            meaning="Nothing more was done; the overlay and the former disk were left alone",
            hint=f"If there is a snapshot upon {disk.overlay}, end that first (virsh blockcommit)",
        )
    return source == disk.base


def _pending(domain: libvirt.virDomain) -> Path | None:
    with explained(f"The machine {domain.name()} cannot be looked at"):
        return noted_undo(ET.fromstring(stored_definition(domain)))  # noqa: S314 - libvirt's own XML


def _refuse_started(domain: libvirt.virDomain, record: UndoRecord, *, force: bool) -> None:
    name = domain.name()
    with explained(f"The machine {name} cannot be looked at"):
        active, saved = domain.isActive(), domain.hasManagedSaveImage()
    if active:
        raise UsageError(
            f"The machine {name} is running", meaning="Nothing was done", hint="Power it off first"
        )
    if saved:
        raise UsageError(
            f"The memory of {name} is saved, and its start would go on with that upon other disks",
            meaning="Nothing was done",
            hint=f"Give it up with: virsh managedsave-remove {name}",
        )
    if force:
        return
    with explained(f"The disks of {name} cannot be looked at"):
        used = [str(disk.path) for disk in inspect_disks(domain).backed_up]
    if (why := _why_not_as_restored(record, used)) is not None:
        raise UsageError(
            f"The machine {name} may have been started since it was restored: {why}",
            meaning="What it wrote since then would be lost",
            hint="Add --force to lose that, or keep the restore with 'hotspare restore confirm'",
        )


def _why_not_as_restored(record: UndoRecord, used: Sequence[str]) -> str | None:
    """Say what tells that the restored disks are not all that there is; None when all are as they were made.

    Args:
        record: of the restore.
        used: paths of the machine's disks now.
    """
    written = {disk.overlay: disk.modified_ns for disk in record.disks}
    written |= dict(zip(record.new_files, record.new_modified_ns, strict=False))
    for path in (*(disk.overlay for disk in record.disks), *record.new_files):
        now = modified_ns(Path(path))
        if now is None:
            return f"{path} is gone"
        if path not in written:
            return f"an earlier version did not note when it wrote {path}"
        if now != written[path]:
            return f"{path} was written"
        if path not in used:
            return f"{path} is no longer what it uses, perhaps for a snapshot upon it"
    return None


def _remove(record: UndoRecord, path: Path, *, also_new: bool) -> None:
    for disk in record.disks:
        Path(disk.overlay).unlink(missing_ok=True)
    for name in record.new_files if also_new else ():
        Path(name).unlink(missing_ok=True)
    remove_record(path)


def _clear_leftovers(domain: libvirt.virDomain, what: str) -> None:
    """Remove what a restore, undo or confirmation that was killed has left of a machine that is whole.

    Raises:
        UsageError: there is nothing.
    """
    with explained(f"The machine {domain.name()} cannot be looked at"):
        disks = inspect_disks(domain).backed_up
        uuid = domain.UUIDString()
    folders = {disk.path.parent for disk in disks if not disk.path.is_block_device()} | {
        default_folder(domain.connect().getURI())
    }
    found = [overlay_path(disk.path, folder) for disk in disks for folder in folders]
    records = [path for path in (record_path(folder, uuid) for folder in folders) if has_record(path)]
    for path in records:
        record = UndoRecord.read(path) if path.exists() else None
        found += [Path(name) for name in record.new_files] if record and not record.confirming else []
    used = {disk.path for disk in disks}
    found = [path for path in found if path.exists() and path not in used]
    if not (found or records):
        raise UsageError(
            f"There is nothing to {what}: {domain.name()} was not restored in place, or that is final",
            meaning="Nothing was done",
        )
    for path in found:
        path.unlink(missing_ok=True)
    for path in records:
        remove_record(path)
