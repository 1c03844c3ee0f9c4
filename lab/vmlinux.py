"""The kernel inside a ``bzImage``, which an emulated processor need not unpack then.

Source: "The Linux/x86 Boot Protocol" (Documentation/arch/x86/boot.rst: ``setup_sects``, ``payload_offset``,
``payload_length``); the payload of Debian's and Ubuntu's kernels is in the legacy frame of "LZ4 Frame Format
Description". With a BIOS, QEMU starts such a kernel by its PVH entry point (``XEN_ELFNOTE_PHYS32_ENTRY``).
"""

import struct
import subprocess
from pathlib import Path

from lab.errors import LabError

_SETUP_SECTORS, _PAYLOAD = 0x1F1, 0x248
_SECTOR = 512
_LZ4_LEGACY = bytes.fromhex("02214c18")
_LENGTH = 4
"""Bytes behind the payload that say how long it is unpacked."""


def unpacked(image: Path) -> bytes:
    """Give the ELF file that a ``bzImage`` unpacks when it starts.

    Raises:
        LabError: it is packed in another way, or damaged.
    """
    content = image.read_bytes()
    offset, length = struct.unpack_from("<II", content, _PAYLOAD)
    payload = content[(content[_SETUP_SECTORS] + 1) * _SECTOR + offset :][:length]
    if not payload.startswith(_LZ4_LEGACY):
        raise LabError(f"{image.name} is not packed with LZ4: teach lab/vmlinux.py how it is")
    done = subprocess.run(
        ["lz4", "--decompress", "--stdout"], input=payload[:-_LENGTH], capture_output=True, check=False
    )
    if done.returncode or len(done.stdout) != int.from_bytes(payload[-_LENGTH:], "little"):
        raise LabError(f"{image.name} cannot be unpacked: {done.stderr.decode(errors='replace')}")
    return done.stdout
