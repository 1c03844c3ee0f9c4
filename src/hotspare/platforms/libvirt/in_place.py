"""Restoring a domain over itself, in one atomic step that can be undone.

Each disk gets an overlay, into which only the blocks are written that differ from what the restore point
has; the disk below is not touched. Then one call of libvirt defines the domain anew, upon the overlays.
Until that call it is wholly what it was, from then on wholly what it shall be, whatever crashes.
"""

import time
import xml.etree.ElementTree as ET
from contextlib import ExitStack, suppress
from pathlib import Path

import libvirt

from hotspare.block.file import RawFile
from hotspare.block.nbd.client import NbdClient
from hotspare.block.new_images import NewImages, format_to_write
from hotspare.block.overlay import create_overlay, is_overlay_of
from hotspare.block.qemu import QemuNbd
from hotspare.errors import HotspareError, MachineNotFound, PlatformUnavailable, SourceLost, UsageError
from hotspare.platforms.libvirt.checkpoints import Checkpoints
from hotspare.platforms.libvirt.connection import (
    explained,
    find_domain,
    is_gone,
    message_of,
    open_connection,
)
from hotspare.platforms.libvirt.definition import NewDisk, restored_definition
from hotspare.platforms.libvirt.inventory import DomainDisk, DomainDisks, describe_machine, inspect_disks
from hotspare.platforms.libvirt.kvm import kvm_problem
from hotspare.platforms.libvirt.mapping import planned_cards, refuse_missing_networks, refuse_unknown_hardware
from hotspare.platforms.libvirt.places import default_folder, planned_disk
from hotspare.platforms.libvirt.target import make_folder
from hotspare.platforms.libvirt.undo_record import (
    OverlaidDisk,
    UndoRecord,
    note_undo,
    noted_undo,
    overlay_path,
    record_path,
    remove_record,
    stored_definition,
)
from hotspare.platforms.placement import PlannedDisk, TargetPlan
from hotspare.platforms.platform import Machine, MachineDisk, StateFile

OUR_CHECKPOINTS = "hotspare-"
_SHUTDOWN_SECONDS = 60.0


class Replacement:
    """Which disks of a domain are laid over, and which are made anew.

    Raises:
        MachineNotFound: the machine is not here.
        UsageError: an earlier restore is pending, it has a saved state, or this host lacks what it needs.
    """

    def __init__(self, connection: libvirt.virConnect, uri: str, machine: Machine) -> None:
        self.uri = uri
        self.machine = machine
        self.domain = _find(connection, machine, uri)
        with explained(f"The machine {machine.name} cannot be looked at"):
            self.name: str = self.domain.name()
            self.former = stored_definition(self.domain)
            _refuse_pending(self.domain, self.name, self.former)
            self.disks = inspect_disks(self.domain)
        self.folder = _folder_of(self.disks, uri)
        self.record = record_path(self.folder, machine.id)
        self.overlays: dict[str, DomainDisk] = {}
        self.new: dict[str, PlannedDisk] = {}
        for disk in machine.disks:
            there = next((one for one in self.disks.backed_up if one.name == disk.name), None)
            if there is not None and there.size == disk.size:
                self.overlays[disk.name] = there
            else:
                self.new[disk.name] = self._plan_new(disk)
        self.definition = self._definition()
        root = ET.fromstring(self.definition)  # noqa: S314 - made just now
        warnings = refuse_missing_networks(connection, root) + refuse_unknown_hardware(connection, root)
        kept = {disk.name for disk in machine.disks}
        warnings += [
            f"disk {one.name} is not in the restore point: the machine loses it; {one.path} stays as it is"
            for one in self.disks.backed_up
            if one.name not in kept
        ]
        self.plan = self._plan(root, warnings)

    def overlay_of(self, disk: str) -> Path:
        """Say where the overlay of a disk goes."""
        return overlay_path(self.overlays[disk].path, self.folder)

    def _plan_new(self, disk: MachineDisk) -> PlannedDisk:
        wanted = format_to_write(disk.format)
        number = 1
        while (path := self.folder / f"{self.name}-{disk.name}-{number}.{wanted}").exists():
            number += 1
        return planned_disk(disk, path, wanted)

    def _definition(self) -> str:
        disks = {name: NewDisk(Path(disk.path), disk.format) for name, disk in self.new.items()}
        disks |= {name: NewDisk(self.overlay_of(name), "qcow2") for name in self.overlays}
        text = restored_definition(
            self.machine,
            self.name,
            {disk.name: disks[disk.name] for disk in self.machine.disks},
            kvm_works=lambda: kvm_problem() is None,
            in_place=True,
        )
        root = ET.fromstring(text)  # noqa: S314 - made just now
        note_undo(root, self.record)
        return ET.tostring(root, encoding="unicode")

    def _plan(self, root: ET.Element, warnings: list[str]) -> TargetPlan:
        sizes = {disk.name: disk for disk in self.machine.disks}
        laid_over = [planned_disk(sizes[name], self.overlay_of(name), "qcow2") for name in self.overlays]
        return TargetPlan(
            name=self.name,
            id=self.machine.id,
            disks=(*laid_over, *self.new.values()),
            cards=planned_cards(root, keep_macs=True),
            warnings=tuple(warnings),
        )


class InPlaceTarget:
    """A ``Target`` over a machine that there is.

    Raises:
        UsageError: it runs, and shall not be powered off.
        NoSpace, PermissionRefused: the files cannot be made.
    """

    def __init__(self, replacement: Replacement, *, power_off: bool) -> None:
        self._of = replacement
        self._images = NewImages()
        self._servers: dict[str, QemuNbd] = {}
        self._serving = ExitStack()
        self._stamps: dict[str, int] = {}
        self._done = False
        _require_off(replacement.domain, replacement.name, power_off=power_off)
        make_folder(replacement.folder)
        try:
            self._create()
        except BaseException:
            self.discard()
            raise

    def _create(self) -> None:
        for disk in self._of.new.values():
            self._images.create(Path(disk.path), disk.format, disk.size)
        for name, there in self._of.overlays.items():
            overlay = self._of.overlay_of(name)
            if not is_overlay_of(overlay, there.path):
                create_overlay(overlay, there.path, there.format)
            server = QemuNbd(overlay, "qcow2", read_only=False, allow_references=True)
            self._servers[name] = self._serving.enter_context(server)
            self._stamps[name] = there.path.stat().st_mtime_ns

    def writer(self, disk: str) -> RawFile | NbdClient:
        """Open a disk, over what it is now."""
        if disk in self._servers:
            return self._servers[disk].connect()
        return self._images.writer(Path(self._of.new[disk].path))

    def add_state(self, state: StateFile) -> str | None:
        """Leave it: there is no way back from state that is written over."""
        return f"{state.name} is left as it is: in place, only disks and the definition are restored"

    def is_blank(self, disk: str) -> bool:
        """Whether it was made anew."""
        return disk in self._of.new and self._images.is_blank(Path(self._of.new[disk].path))

    def finalize(self) -> Machine:
        """Define the machine upon its restored disks.

        Raises:
            SourceLost: it was started or its disks changed meanwhile, or an image was not written to its end.
            PlatformUnavailable: libvirt was lost, and may have defined it; then all is kept.
            HotspareError: libvirt refuses the definition.
        """
        self._serving.close()
        self._images.publish()
        self._drop_checkpoints()
        record = UndoRecord(
            definition=self._of.former,
            disks=tuple(self._overlaid(name, disk) for name, disk in self._of.overlays.items()),
            new_files=tuple(disk.path for disk in self._of.new.values()),
            new_modified_ns=tuple(Path(disk.path).stat().st_mtime_ns for disk in self._of.new.values()),
        )
        record.write(self._of.record)
        domain = self._define()
        self._keep()
        return describe_machine(domain, self._of.uri)

    def _define(self) -> libvirt.virDomain:
        connection = self._of.domain.connect()
        try:
            return connection.defineXML(self._of.definition)
        except libvirt.libvirtError as error:
            refused = False
            with suppress(libvirt.libvirtError, HotspareError):
                # An answer that was lost may have been that it is done, or is still to be done.
                answered = not is_gone(connection)
                domain = find_domain(
                    connection if answered else open_connection(self._of.uri),
                    self._of.machine.id,
                    self._of.uri,
                )
                if noted_undo(ET.fromstring(stored_definition(domain))) is not None:  # noqa: S314
                    return domain
                refused = answered
            if not refused:
                self._keep()
                raise self._not_known(error) from error
            with explained(
                f"libvirt refuses the definition of {self._of.name}",
                meaning="The machine is what it was; the restore point is not touched",
                hint="Restore it as a new machine with --to, or its disks with --disk",
            ):
                raise

    def _not_known(self, error: libvirt.libvirtError) -> PlatformUnavailable:
        name = self._of.name
        return PlatformUnavailable(
            f"libvirt was lost while it defined {name} upon its restored disks: {message_of(error)}",
            meaning="The machine is wholly the restored one, or wholly what it was; all is kept for either",
            hint=f"When libvirt is back, run 'hotspare restore undo {name}' and restore it again",
        )

    def _keep(self) -> None:
        """Let all stay that was made: the machine is upon it, or may be."""
        self._done = True
        self._images.keep()

    def _overlaid(self, name: str, disk: DomainDisk) -> OverlaidDisk:
        overlay = self._of.overlay_of(name)
        return OverlaidDisk(
            name=name,
            base=str(disk.path),
            format=disk.format,
            overlay=str(overlay),
            modified_ns=overlay.stat().st_mtime_ns,
        )

    def _drop_checkpoints(self) -> None:
        """Remove our checkpoints: they know nothing of what a restore changes. Then look a last time."""
        with explained(f"The machine {self._of.name} cannot be looked at"):
            active = self._of.domain.isActive()
        changed = [
            name
            for name, disk in self._of.overlays.items()
            if disk.path.stat().st_mtime_ns != self._stamps[name]
        ]
        if active or changed:
            raise SourceLost(
                f"The machine {self._of.name} was started, or its disks changed, during the restore",
                meaning="It is what it was",
                hint="Power it off and restore it again",
            )
        drop_checkpoints(self._of.domain, self._of.disks)

    def discard(self, *, keep_partial: bool = False) -> None:
        """Remove the overlays and files that were made, or keep them; the machine is what it was."""
        if self._done:
            return
        self._done = True
        try:
            self._serving.close()
        finally:
            self._images.discard(keep_partial=keep_partial)
            if not keep_partial:
                for name in self._of.overlays:
                    self._of.overlay_of(name).unlink(missing_ok=True)
                remove_record(self._of.record)


def drop_checkpoints(domain: libvirt.virDomain, disks: DomainDisks) -> None:
    """Remove all checkpoints of ours, with their bitmaps; the next backup reads every disk in full."""
    with explained(f"The checkpoints of {domain.name()} cannot be looked at"):
        Checkpoints(domain, OUR_CHECKPOINTS, disks.backed_up).sweep(keep=())


def _require_off(domain: libvirt.virDomain, name: str, *, power_off: bool) -> None:
    with explained(f"The machine {name} cannot be powered off"):
        if not domain.isActive():
            return
        if not power_off:
            raise UsageError(
                f"The machine {name} is running",
                meaning="Nothing was written, and it was left alone",
                hint="Power it off first, or add --power-off",
            )
        with suppress(libvirt.libvirtError):  # its system may be past listening
            domain.shutdown()
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        while domain.isActive() and time.monotonic() < deadline:
            time.sleep(0.2)
        if domain.isActive():
            domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)


def _find(connection: libvirt.virConnect, machine: Machine, uri: str) -> libvirt.virDomain:
    with explained(f"The machine {machine.name} cannot be looked up at {uri}"):
        for domain in connection.listAllDomains():
            if domain.UUIDString() == machine.id:
                return domain
    raise MachineNotFound(
        f"The machine {machine.name} with the UUID {machine.id} is not at {uri} any more",
        meaning="Nothing was done",
        hint=f"Restore it with --to {machine.name} --keep-uuid --keep-macs",
    )


def _refuse_pending(domain: libvirt.virDomain, name: str, definition: str) -> None:
    if noted_undo(ET.fromstring(definition)) is not None:  # noqa: S314 - libvirt's own XML
        raise UsageError(
            f"An earlier restore of {name} is neither confirmed nor undone",
            meaning="Nothing was done",
            hint=f"Run 'hotspare restore confirm {name}' or 'hotspare restore undo {name}'",
        )
    if not domain.isPersistent():
        raise UsageError(
            f"The machine {name} is transient: libvirt forgets it when it is powered off",
            meaning="Nothing was done",
            hint="Restore it as a new machine with --to",
        )
    if domain.hasManagedSaveImage():
        raise UsageError(
            f"The memory of {name} is saved, and its start would go on with that upon other disks",
            meaning="Nothing was done",
            hint=f"Give it up with: virsh managedsave-remove {name}",
        )


def _folder_of(disks: DomainDisks, uri: str) -> Path:
    files = [disk.path.parent for disk in disks.backed_up if not disk.path.is_block_device()]
    return files[0] if files else default_folder(uri)
