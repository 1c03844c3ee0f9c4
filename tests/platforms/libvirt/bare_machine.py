"""A QEMU under libvirt with disks but no system on them: starts at once, is written to from outside.

For all that does not need a guest that takes part. Names and folders are the lab's, so its sweep knows them.
"""

import os
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from types import TracebackType
from typing import Self

import libvirt
import libvirt_qemu

from lab import connection, domain_name
from lab.host import MACHINES
from lab.sweep import remove_domain

MIB = 1024 * 1024


class BareMachine:
    """A domain with disks ``vda``, ``vdb``… of the given formats, each of ``size`` bytes."""

    def __init__(
        self,
        label: str,
        formats: tuple[str, ...] = ("qcow2",),
        size: int = 16 * MIB,
        *,
        sector: int = 512,
        host: libvirt.virConnect | None = None,
    ) -> None:
        self.host = host or connection()
        self._sector = sector
        self.name = domain_name(label)
        self.folder = MACHINES / self.name
        self.folder.mkdir(parents=True)
        self.disks: dict[str, Path] = {}
        root = ET.Element("domain", type="qemu")
        ET.SubElement(root, "name").text = self.name
        ET.SubElement(root, "memory", unit="MiB").text = "32"
        ET.SubElement(ET.SubElement(root, "os"), "type", arch="x86_64", machine="pc").text = "hvm"
        ET.SubElement(ET.SubElement(root, "features"), "acpi")  # or disks could not be plugged in
        devices = ET.SubElement(root, "devices")
        for number, image_format in enumerate(formats):
            devices.append(self._new_disk(f"vd{'abcd'[number]}", image_format, size))
        cdrom = ET.SubElement(devices, "disk", type="file", device="cdrom")
        ET.SubElement(cdrom, "target", dev="hdc", bus="ide")
        ET.SubElement(devices, "memballoon", model="none")
        ET.SubElement(devices, "controller", type="usb", model="none")
        self.domain = self.host.defineXML(ET.tostring(root, encoding="unicode"))

    def _new_disk(self, name: str, image_format: str, size: int) -> ET.Element:
        path = self.folder / f"{name}.{image_format}"
        subprocess.run(["qemu-img", "create", "-q", "-f", image_format, str(path), str(size)], check=True)
        self.disks[name] = path
        disk = ET.Element("disk", type="file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type=image_format, discard="unmap")
        ET.SubElement(disk, "source", file=str(path))
        ET.SubElement(disk, "target", dev=name, bus="virtio")
        if self._sector != 512:
            sector = str(self._sector)
            ET.SubElement(disk, "blockio", logical_block_size=sector, physical_block_size=sector)
        return disk

    def plug_in(self, name: str, image_format: str = "qcow2", size: int = 16 * MIB) -> None:
        """Add a disk while the machine runs, and to its definition."""
        disk = ET.tostring(self._new_disk(name, image_format, size), encoding="unicode")
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
        self.domain.attachDeviceFlags(disk, flags)

    def start(self) -> Self:
        self.domain.create()
        return self

    def write(self, offset: int, length: int, pattern: int, disk: str = "vda") -> None:
        """Write as the guest's own disk device does."""
        self._io(disk, f"write -P {pattern} {offset} {length}")

    def write_zeroes(self, offset: int, length: int, disk: str = "vda") -> None:
        self._io(disk, f"write -z -u {offset} {length}")

    def discard(self, offset: int, length: int, disk: str = "vda") -> None:
        self._io(disk, f"discard {offset} {length}")

    def flush(self, disk: str = "vda") -> None:
        """Have QEMU write out what it holds of an image, if the machine runs, so that others may read it."""
        if self.domain.isActive():
            self._io(disk, "flush")

    def write_while_off(self, offset: int, length: int, pattern: int, disk: str = "vda") -> None:
        """Write with a program of QEMU's, as people do who repair an image."""
        path = self.disks[disk]
        command = f"write -P {pattern} {offset} {length}"
        subprocess.run(
            ["qemu-io", "-f", path.suffix[1:], "-c", command, path], check=True, capture_output=True
        )

    def disk_xml(self, name: str) -> str:
        """Give a disk's part of the definition."""
        definition = ET.fromstring(self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        disks = definition.iterfind("devices/disk")
        (wanted,) = [disk for disk in disks if disk.find(f"target[@dev='{name}']") is not None]
        return ET.tostring(wanted, encoding="unicode")

    def define_as(self, *changes: tuple[str, str]) -> None:
        """Define the machine anew, with each text of the definition exchanged for another; it is off."""
        definition = self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        for old, new in changes:
            assert old in definition
            definition = definition.replace(old, new)
        self.domain = self.host.defineXML(definition)

    def forget(self) -> str:
        """Undefine the machine with all that libvirt knows of it, and give its definition; disks stay."""
        definition: str = self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        self.domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
        return definition

    def stop(self) -> None:
        """Pull the plug: QEMU ends in good order, the guest does not."""
        self.domain.destroy()

    def _io(self, disk: str, command: str) -> None:
        device = f"/machine/peripheral/virtio-disk{'abcd'.index(disk[-1])}/virtio-backend"
        said = libvirt_qemu.qemuMonitorCommand(self.domain, f'qemu-io -d {device} "{command}"', 1)
        assert not said.strip(), said  # what qemu-io prints itself goes to the log of QEMU

    def kill(self) -> None:
        """Kill QEMU."""
        os.kill(int(Path(f"/run/libvirt/qemu/{self.name}.pid").read_text()), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while self.domain.isActive():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def checkpoints(self) -> list[str]:
        return sorted(checkpoint.getName() for checkpoint in self.domain.listAllCheckpoints())

    def remove(self) -> None:
        remove_domain(self.domain)
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
