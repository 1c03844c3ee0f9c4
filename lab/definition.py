"""The libvirt definition of a guest."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from lab.disks import KERNEL_ARGUMENTS, DiskSpec
from lab.image import GuestImage

MIB = 1024 * 1024


def disk_device(index: int) -> str:
    """Name the disk of that index as libvirt and the guest do: ``vda`` is the first."""
    return f"vd{chr(ord('a') + index)}"


def domain_xml(
    name: str,
    disks: Sequence[tuple[Path, DiskSpec]],
    *,
    memory: int,
    kernel: GuestImage | None,
    uefi: bool = False,
    tpm: bool = False,
    network: bool = False,
) -> str:
    """Describe a guest under software emulation; see libvirt's "Domain XML format".

    Args:
        name: of the domain.
        disks: image file and what it is, in order.
        memory: bytes.
        kernel: boots this system directly; None boots from the first disk.
        uefi: its firmware is OVMF, without Secure Boot.
        tpm: it has a TPM 2.0, emulated by swtpm.
        network: it has a network card, with QEMU's own small network behind it.
    """
    domain = ET.Element("domain", type="qemu")
    ET.SubElement(domain, "name").text = name
    ET.SubElement(domain, "memory", unit="MiB").text = str(memory // MIB)
    ET.SubElement(domain, "vcpu").text = "1"
    _add_boot(ET.SubElement(domain, "os"), kernel, uefi=uefi)
    ET.SubElement(ET.SubElement(domain, "features"), "acpi")
    ET.SubElement(ET.SubElement(domain, "clock", offset="utc"), "timer", name="hpet", present="no")
    devices = ET.SubElement(domain, "devices")
    for index, (path, spec) in enumerate(disks):
        disk = ET.SubElement(devices, "disk", type="file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type=spec.format, discard="unmap")
        ET.SubElement(disk, "source", file=str(path))
        ET.SubElement(disk, "target", dev=disk_device(index), bus="virtio")
    if tpm:
        device = ET.SubElement(devices, "tpm", model="tpm-tis")
        ET.SubElement(device, "backend", type="emulator", version="2.0")
    if network:
        card = ET.SubElement(devices, "interface", type="user")
        ET.SubElement(card, "model", type="virtio")
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    # QEMU's own output is the console, so it lands in libvirt's log of the domain whatever its name. A file
    # would be fought over by a guest and its restored twin.
    ET.SubElement(devices, "serial", type="stdio")
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
    return ET.tostring(domain, encoding="unicode")


def _add_boot(system: ET.Element, kernel: GuestImage | None, *, uefi: bool) -> None:
    ET.SubElement(system, "type", arch="x86_64", machine="q35" if uefi else "pc").text = "hvm"
    if uefi:
        system.set("firmware", "efi")
        firmware = ET.SubElement(system, "firmware")
        ET.SubElement(firmware, "feature", enabled="no", name="secure-boot")
    if kernel is None:
        ET.SubElement(system, "boot", dev="hd")
        return
    ET.SubElement(system, "kernel").text = str(kernel.kernel if uefi else kernel.vmlinux)
    ET.SubElement(system, "initrd").text = str(kernel.initramfs)
    ET.SubElement(system, "cmdline").text = KERNEL_ARGUMENTS
