"""Disk images for guests: ext4 on the bare disk, or a disk that boots by itself."""

import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hotspare.guest.files.appliance.kernel import QUICK
from lab.image import GuestImage
from lab.programs import run

MIB = 1024 * 1024
KERNEL_ARGUMENTS = f"console=ttyS0 quiet panic=1 {QUICK}"

_SECTOR = 512
_FIRST_SECTOR = 2048
_LINUX_PARTITION = 0x83


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """What a disk of a guest shall be.

    Attributes:
        size: bytes, a multiple of 1 MiB.
        format: of the image file.
        content: raw image of that size that is copied; None for an empty ext4 file system.
    """

    size: int = 256 * MIB
    format: Literal["qcow2", "raw"] = "qcow2"
    content: Path | None = None


def make_data_disk(path: Path, spec: DiskSpec) -> None:
    """Write an image with an ext4 file system and no partitions: an empty one, or a copy."""
    if spec.content is not None:
        run("qemu-img", "convert", "-f", "raw", "-O", spec.format, spec.content, path)
        return
    raw = _sparse_file(path, spec.size)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", raw)
    _finish(raw, path, spec)


def make_boot_disk(path: Path, spec: DiskSpec, image: GuestImage) -> None:
    """Write an image that boots on any PC with a BIOS: one ext4 partition with kernel, system and data."""
    raw = _sparse_file(path, spec.size)
    with tempfile.TemporaryDirectory() as scratch:
        boot = Path(scratch, "boot")
        (boot / "grub").mkdir(parents=True)
        shutil.copyfile(image.kernel, boot / "vmlinuz")
        shutil.copyfile(image.initramfs, boot / "initramfs")
        (boot / "grub" / "grub.cfg").write_text(
            f"linux /boot/vmlinuz {KERNEL_ARGUMENTS}\ninitrd /boot/initramfs\nboot\n"
        )
        offset = _FIRST_SECTOR * _SECTOR
        layout = f"offset={offset},root_owner=0:0"
        size = f"{(spec.size - offset) // 1024}k"
        run("mke2fs", "-q", "-F", "-t", "ext4", "-E", layout, "-d", scratch, raw, size)
    _write_boot_loader(raw, image, spec.size)
    _finish(raw, path, spec)


def _write_boot_loader(raw: Path, image: GuestImage, size: int) -> None:
    """Put GRUB before the first partition, as grub-install would.

    Offsets: GRUB 2's include/grub/i386/pc/boot.h; partition table: the classic PC master boot record.
    """
    core = bytearray(image.boot_core.read_bytes())
    core += bytes(-len(core) % _SECTOR)
    sectors = len(core) // _SECTOR
    # The first sector of the core loads the rest: from sector 2, to segment 0x820.
    struct.pack_into("<QHH", core, _SECTOR - 12, 2, sectors - 1, 0x820)

    boot = bytearray(image.boot_sector.read_bytes())
    struct.pack_into("<Q", boot, 0x5C, 1)  # the core starts at sector 1
    boot[0x64] = 0xFF  # on the disk that the BIOS booted from
    boot[0x66:0x68] = b"\x90\x90"  # which is right in what it says about the disk
    boot[440:510] = bytes(70)  # code for floppies lies where hard disks have their partition table
    partition = (0x80, b"\xff\xff\xff", _LINUX_PARTITION, b"\xff\xff\xff", _FIRST_SECTOR)
    struct.pack_into("<B3sB3sII", boot, 446, *partition, size // _SECTOR - _FIRST_SECTOR)
    boot[510:512] = b"\x55\xaa"
    with raw.open("r+b") as disk:
        disk.write(boot[:_SECTOR] + core)


def _sparse_file(path: Path, size: int) -> Path:
    raw = path.with_suffix(".building")
    with raw.open("wb") as file:
        file.truncate(size)
    return raw


def _finish(raw: Path, path: Path, spec: DiskSpec) -> None:
    if spec.format == "raw":
        raw.rename(path)
        return
    run("qemu-img", "convert", "-f", "raw", "-O", spec.format, raw, path)
    raw.unlink()
