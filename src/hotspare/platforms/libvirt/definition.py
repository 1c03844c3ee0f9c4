"""Making the definition of a restored domain; see libvirt's "Domain XML format"."""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from hotspare.platforms.libvirt.mapping import map_names
from hotspare.platforms.placement import Placement
from hotspare.platforms.platform import Machine
from hotspare.units import MIB

UNDO_NAMESPACE = "urn:hotspare:libvirt:1"
"""Of our element in a domain's metadata: it names the record by which a restore can be undone."""

INSTANT_NAMESPACE = "urn:hotspare:instant:1"
"""Of our element in the metadata of a domain that runs from a repository."""

_DEFAULT_MEMORY = 1024 * MIB
_AS_IT_WAS = Placement()
_REMOVABLE = ("cdrom", "floppy")
_KVM_TIMERS = ("kvmclock", "hypervclock")


class NewDisk(NamedTuple):
    """Where a restored disk lies."""

    path: Path
    format: str


class NewState(NamedTuple):
    """What a restored machine has of state outside of its disks."""

    nvram: Path | None = None
    """The file of the UEFI variables."""
    uuid: str | None = None
    """The new machine's UUID, where its TPM's state lies under it already."""


def restored_definition(
    machine: Machine,
    name: str,
    disks: Mapping[str, NewDisk],
    *,
    kvm_works: Callable[[], bool],
    state: NewState | None = None,
    placement: Placement = _AS_IT_WAS,
    in_place: bool = False,
) -> str:
    """Give the XML of a new domain like ``machine``.

    Everything that must be unique on a host is dropped, for libvirt to choose anew: the machine that the
    restore point was made of may still be there. Disks that were not backed up are left away (they may be
    shared with that machine), CD-ROM drives come back empty unless their image is here.
    In the place of that machine, it is the same one: all of that is kept.

    Args:
        machine: as described when it was backed up, perhaps on another platform.
        name: of the new domain.
        disks: its disks, by target device.
        state: what was restored of its state outside of disks.
        kvm_works: tells whether KVM works on this host; asked only where it matters, as finding out may last.
        placement: names to replace, and what to keep nevertheless.
        in_place: the domain takes the place of the one that ``machine`` was.
    """
    if not machine.native.lstrip().startswith("<domain"):
        return _plain_definition(machine, name, disks, kvm=kvm_works())
    root = ET.fromstring(machine.native)  # noqa: S314 - XML that libvirt gave us
    _set_text(root, "name", name)
    map_names(root, placement)
    drop_undo(root)
    drop_instant(root)
    for genid in root.findall("genid"):
        genid.text = None  # it tells the guest that its time went back
    if not in_place:
        _make_unique(root, placement)
        _place_state(root, state or NewState())
    _replace_disks(root, disks, keep_others=in_place)
    if root.get("type") == "kvm" and not kvm_works():
        _emulate(root)
    for devices in root.findall("devices"):
        emulator = devices.findtext("emulator")
        if emulator and not Path(emulator).exists():
            _drop(devices, "emulator")
    return ET.tostring(root, encoding="unicode")


def _place_state(root: ET.Element, state: NewState) -> None:
    """Let the definition name the restored state; without any, libvirt makes fresh one at the first start."""
    if state.uuid is not None:
        _set_text(root, "uuid", state.uuid)
    for backend in root.iterfind("devices/tpm/backend"):
        _drop(backend, "source")
    for nvram in root.findall("os/nvram"):
        nvram.text = None
        nvram.attrib.pop("type", None)
        _drop(nvram, "source")
    if state.nvram is not None:
        _set_text(root, "os/nvram", str(state.nvram))


def _make_unique(root: ET.Element, placement: Placement) -> None:
    _drop(root, "seclabel", "devices/interface/target")
    if not placement.keep_id:
        _drop(root, "uuid", "sysinfo/system")
    if not placement.keep_macs:
        _drop(root, "devices/interface/mac")
    for channel in root.findall("devices/channel[@type='unix']"):
        _drop(channel, "source")


def without_secrets(native: str) -> str:
    """Give a definition without the passwords of consoles."""
    root = ET.fromstring(native)  # noqa: S314 - XML that libvirt gave us
    for graphics in root.iterfind("devices/graphics"):
        for secret in ("passwd", "passwdValidTo"):
            graphics.attrib.pop(secret, None)
    return ET.tostring(root, encoding="unicode")


def drop_undo(root: ET.Element) -> None:
    """Take away our note about a restore that can be undone."""
    _drop(root, f"metadata/{{{UNDO_NAMESPACE}}}undo")


def drop_instant(root: ET.Element) -> None:
    """Take away our note about a domain that runs from a repository."""
    _drop(root, f"metadata/{{{INSTANT_NAMESPACE}}}instant")


def _replace_disks(root: ET.Element, disks: Mapping[str, NewDisk], *, keep_others: bool) -> None:
    devices = root.find("devices")
    if devices is None:
        devices = ET.SubElement(root, "devices")
    missing = dict(disks)
    for disk in devices.findall("disk"):
        target = disk.find("target")
        new = missing.pop(target.get("dev", ""), None) if target is not None else None
        if new is not None:
            _point_to(disk, new)
        elif disk.get("device") in _REMOVABLE:
            _eject_if_gone(disk)
        elif not keep_others:
            devices.remove(disk)
    for name, new in missing.items():  # plugged into the running machine, without its definition
        devices.append(_disk_element(name, new))


def _point_to(disk: ET.Element, new: NewDisk) -> None:
    disk.set("type", "file")
    _drop(disk, "source", "backingStore", "mirror", "auth", "transient", "shareable")
    driver = disk.find("driver")
    if driver is None:
        driver = ET.SubElement(disk, "driver", name="qemu")
    driver.set("type", new.format)
    disk.insert(0, ET.Element("source", file=str(new.path)))


def _eject_if_gone(disk: ET.Element) -> None:
    source = disk.find("source")
    if source is not None and not Path(source.get("file") or source.get("dev") or "/nowhere").exists():
        disk.remove(source)
        disk.set("type", "file")


def _emulate(root: ET.Element) -> None:
    """Take away what only KVM can do."""
    root.set("type", "qemu")
    _drop(root, "cpu", "features/hyperv", "features/kvm", "features/pvspinlock", "launchSecurity")
    for clock in root.findall("clock"):
        for timer in clock.findall("timer"):
            if timer.get("name") in _KVM_TIMERS:
                clock.remove(timer)


def _plain_definition(machine: Machine, name: str, disks: Mapping[str, NewDisk], *, kvm: bool) -> str:
    """Define a machine of which only its disks are known, with the devices that most systems can use."""
    root = ET.Element("domain", type="kvm" if kvm else "qemu")
    ET.SubElement(root, "name").text = name
    ET.SubElement(root, "memory", unit="b").text = str(machine.memory or _DEFAULT_MEMORY)
    ET.SubElement(root, "vcpu").text = str(machine.cpus or 1)
    system = ET.SubElement(root, "os")
    if machine.firmware == "uefi":
        system.set("firmware", "efi")
    ET.SubElement(system, "type", arch="x86_64", machine="q35").text = "hvm"
    ET.SubElement(system, "boot", dev="hd")
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    devices = ET.SubElement(root, "devices")
    for number, new in enumerate(disks.values()):
        devices.append(_disk_element(f"vd{chr(ord('a') + number)}", new))
    agent = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(agent, "target", type="virtio", name="org.qemu.guest_agent.0")
    ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(devices, "graphics", type="vnc", autoport="yes", listen="127.0.0.1")
    ET.SubElement(ET.SubElement(devices, "video"), "model", type="vga")
    return ET.tostring(root, encoding="unicode")


def _disk_element(name: str, new: NewDisk) -> ET.Element:
    disk = ET.Element("disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type=new.format, discard="unmap")
    ET.SubElement(disk, "source", file=str(new.path))
    bus = {"s": "scsi", "h": "ide"}.get(name[:1], "virtio")
    ET.SubElement(disk, "target", dev=name, bus=bus)
    return disk


def _set_text(root: ET.Element, tag: str, text: str) -> None:
    element = root.find(tag)
    if element is None:
        parents, _, name = tag.rpartition("/")
        parent = root.find(parents) if parents else root
        element = ET.SubElement(root if parent is None else parent, name)
    element.text = text


def _drop(root: ET.Element, *paths: str) -> None:
    for path in paths:
        parents, _, tag = path.rpartition("/")
        for parent in _parents(root, parents):
            for child in parent.findall(tag):
                parent.remove(child)


def _parents(root: ET.Element, path: str) -> Iterator[ET.Element]:
    if path:
        yield from root.iterfind(path)
    else:
        yield root
