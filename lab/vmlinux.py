"""The kernel inside a ``bzImage``, which an emulated processor need not unpack then.

Source: "The Linux/x86 Boot Protocol" (Documentation/arch/x86/boot.rst: ``setup_sects``,
``payload_offset``, ``payload_length``). Debian 12 packs the payload with LZ4 ("LZ4 Frame Format
Description", legacy frame), later ones with Zstandard. With a BIOS, QEMU starts such a kernel by its PVH
entry point (``XEN_ELFNOTE_PHYS32_ENTRY``).
"""

import struct
import subprocess
from pathlib import Path

import zstandard

from lab.errors import LabError

_SETUP_SECTORS, _PAYLOAD = 0x1F1, 0x248
_SECTOR = 512
_LZ4_LEGACY, _ZSTANDARD = bytes.fromhex("02214c18"), bytes.fromhex("28b52ffd")
_LENGTH = 4
"""Bytes behind the payload that say how long it is unpacked."""


def unpacked(image: Path) -> bytes:
    """Give the ELF file that a ``bzImage`` unpacks when it starts; the image, if it is packed otherwise.

    Raises:
        LabError: it is damaged.
    """
    content = image.read_bytes()
    offset, length = struct.unpack_from("<II", content, _PAYLOAD)
    payload = content[(content[_SETUP_SECTORS] + 1) * _SECTOR + offset :][:length]
    packed, size = payload[:-_LENGTH], int.from_bytes(payload[-_LENGTH:], "little")
    if payload.startswith(_LZ4_LEGACY):
        command = ["lz4", "--decompress", "--stdout"]
        kernel = subprocess.run(command, input=packed, capture_output=True, check=False).stdout
    elif payload.startswith(_ZSTANDARD):
        kernel = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    else:
        return content
    if len(kernel) != size:
        raise LabError(f"{image.name} cannot be unpacked: {len(kernel)} bytes came out of it, not {size}")
    return kernel
