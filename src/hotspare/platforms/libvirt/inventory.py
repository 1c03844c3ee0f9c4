"""Domain XML in neutral words; see libvirt's "Domain XML format"."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import libvirt

from hotspare.block.qemu import image_info
from hotspare.errors import HotspareError
from hotspare.platforms.libvirt.connection import explained, message_of
from hotspare.platforms.libvirt.definition import INSTANT_NAMESPACE
from hotspare.platforms.libvirt.marks import marks_in
from hotspare.platforms.platform import Machine, MachineDisk, PowerState

_OFF = frozenset({libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_NOSTATE})
_RUNNING = frozenset({libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN})
_UNREMARKABLE = ("cdrom", "floppy")
_MEMORY_UNITS = {"b": 1, "bytes": 1, "k": 2**10, "KiB": 2**10, "M": 2**20, "MiB": 2**20}
_MEMORY_UNITS |= {"G": 2**30, "GiB": 2**30, "T": 2**40, "TiB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, slots=True)
class DomainDisk:
    """One disk of a domain that can be backed up."""

    name: str
    """Target device: ``vda``."""
    path: Path
    """Local file or block device."""
    format: str
    size: int
    """Bytes of the guest's view."""
    serial: str = ""
    labels: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """What must stay the same for a token to be of use.

        The inode catches an image that was replaced by another at the same path. A device's node is made
        anew with every start of the host, so it has none.
        """
        inode = self.path.stat().st_ino if self.path.is_file() else 0
        return f"{self.format}:{self.path}:{inode}"


@dataclass(frozen=True, slots=True)
class DomainDisks:
    """All disks of a domain."""

    backed_up: tuple[DomainDisk, ...]
    left_out: dict[str, str]
    """Per name of the others: why they cannot be backed up."""
    expected: frozenset[str]
    """Names of those left out that nobody would expect in a backup: CD-ROM and floppy drives, and what the
    user excluded."""
    excluded: tuple[DomainDisk, ...] = ()
    """Those that could be backed up, if the user had not excluded them."""

    def chosen_for(self, machine: Machine) -> "DomainDisks":
        """Give the same disks, those that a description of the machine leaves out excluded."""
        chosen = {disk.name for disk in machine.disks}
        excluded = tuple(disk for disk in self.backed_up if disk.name not in chosen)
        names = [disk.name for disk in excluded]
        return DomainDisks(
            tuple(disk for disk in self.backed_up if disk.name in chosen),
            self.left_out | dict.fromkeys(names, "excluded"),
            self.expected.union(names),
            excluded,
        )


def power_state(domain: libvirt.virDomain) -> PowerState:
    """Tell whether a domain runs."""
    state = domain.state()[0]
    if state in _OFF:
        return PowerState.OFF
    return PowerState.RUNNING if state in _RUNNING else PowerState.PAUSED


def describe_machine(domain: libvirt.virDomain, uri: str) -> Machine:
    """Describe a domain.

    Raises:
        MachineNotFound: it has been removed meanwhile.
        PlatformUnavailable: libvirt does not answer any more.
    """
    with explained(f"The machine {domain.name()} cannot be described"):
        live = ET.fromstring(domain.XMLDesc(0))  # noqa: S314 - libvirt's own XML
        # The definition that a restore starts from; with the secrets (a console's password), because a
        # console that comes back without its password would be open to everybody.
        native = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        disks = _sort_disks(domain, live)
        state = power_state(domain)
    return Machine(
        id=domain.UUIDString(),
        name=domain.name(),
        platform=uri,
        state=state,
        cpus=int(live.findtext("vcpu", "1")),
        memory=_memory(live),
        firmware=_firmware(live),
        disks=tuple(
            MachineDisk(
                name=disk.name,
                size=disk.size,
                format=disk.format,
                source=str(disk.path),
                serial=disk.serial,
                labels=disk.labels,
            )
            for disk in disks.backed_up
        ),
        left_out=tuple(f"{name}: {reason}" for name, reason in disks.left_out.items()),
        title=live.findtext("title", ""),
        marks=marks_in(live),
        native=native,
    )


def inspect_disks(domain: libvirt.virDomain) -> DomainDisks:
    """Sort a domain's disks, as they are now, into those that can be backed up and those that cannot."""
    return _sort_disks(domain, ET.fromstring(domain.XMLDesc(0)))  # noqa: S314 - libvirt's own XML


def _sort_disks(domain: libvirt.virDomain, definition: ET.Element) -> DomainDisks:
    backed_up, left_out, expected = [], {}, set()
    for element in definition.iterfind("devices/disk"):
        name = _attribute(element, "target", "dev")
        if element.get("device") in _UNREMARKABLE:
            expected.add(name)
        reason = _obstacle(element)
        path = None if reason else _local_path(domain, element)
        if path is None:
            left_out[name] = reason or "its storage volume cannot be found"
            continue
        try:
            size = _size_of(domain, definition, name, path)
        except libvirt.libvirtError as error:
            left_out[name] = f"its image cannot be opened ({message_of(error)})"
            continue
        except HotspareError as error:
            left_out[name] = f"its image cannot be opened ({error.what})"
            continue
        image_format = _attribute(element, "driver", "type") or "raw"
        serial = element.findtext("serial", "")
        backed_up.append(DomainDisk(name, path, image_format, size, serial, _labels(element)))
    return DomainDisks(tuple(backed_up), left_out, frozenset(expected))


def _size_of(domain: libvirt.virDomain, definition: ET.Element, name: str, path: Path) -> int:
    """Give a disk's size. QEMU must not be asked about a disk that it fills; see ``instant.move_disk``."""
    if definition.find(f"metadata/{{{INSTANT_NAMESPACE}}}instant") is not None:
        return image_info(path, "qcow2", allow_references=True).virtual_size
    size: int = domain.blockInfo(name)[0]
    return size


def _labels(disk: ET.Element) -> tuple[str, ...]:
    """Give the alias, if a user chose it (libvirt's own come and go with power), and the world wide name."""
    alias, wwn = _attribute(disk, "alias", "name"), disk.findtext("wwn", "")
    return tuple(label for label in (alias if alias.startswith("ua-") else "", wwn) if label)


def _obstacle(disk: ET.Element) -> str | None:
    """Say why a disk cannot be backed up; None when it can."""
    kinds = {"cdrom": "a CD-ROM", "floppy": "a floppy disk", "lun": "a SCSI device that is passed through"}
    if reason := kinds.get(disk.get("device", "disk")):
        return reason
    storage = disk.get("type", "")
    protocol = _attribute(disk, "source", "protocol")
    checks = (
        (storage == "network", f"on the network ({protocol}), which is not supported yet"),
        (storage not in {"file", "block", "volume"}, f"storage of type {storage}, which is not supported"),
        (disk.find("source") is None, "no image"),
        (disk.find("readonly") is not None, "read-only"),
        (disk.find("shareable") is not None, "shared with other machines"),
        (disk.find("transient") is not None, "transient: its changes are lost at power-off anyway"),
    )
    return next((reason for applies, reason in checks if applies), None)


def _local_path(domain: libvirt.virDomain, disk: ET.Element) -> Path | None:
    source = disk.find("source")
    if source is None:
        return None
    if disk.get("type") != "volume":
        path = source.get("file") or source.get("dev")
        return Path(path) if path else None
    try:
        pool = domain.connect().storagePoolLookupByName(source.get("pool", ""))
        return Path(pool.storageVolLookupByName(source.get("volume", "")).path())
    except libvirt.libvirtError:
        return None


def _attribute(parent: ET.Element, tag: str, name: str) -> str:
    element = parent.find(tag)
    return "" if element is None else element.get(name, "")


def _memory(definition: ET.Element) -> int:
    element = definition.find("memory")
    if element is None or not element.text:
        return 0
    return int(element.text) * _MEMORY_UNITS.get(element.get("unit", "KiB"), 2**10)


def _firmware(definition: ET.Element) -> str:
    system = definition.find("os")
    if system is None:
        return ""
    uefi = system.get("firmware") == "efi" or _attribute(system, "loader", "type") == "pflash"
    return "uefi" if uefi else "bios"
