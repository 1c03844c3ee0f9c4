"""The parts a guest is built of, where they can be judged without a machine."""

import struct
import subprocess
from pathlib import Path

import pytest
import zstandard

from hotspare.guest.files.appliance.kernel import Kernel
from lab.errors import LabError
from lab.image import drivers_in_order
from lab.vmlinux import unpacked


def test_a_driver_that_the_kernel_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    (tmp_path / "virtio-blk.ko").write_bytes(b"\x7fELF\0depends=\0")
    kernel = Kernel(tmp_path / "vmlinuz", tmp_path)
    assert list(drivers_in_order(kernel, ["ext4", "virtio_blk"])) == ["virtio_blk"]
    with pytest.raises(LabError, match="floppy"):
        drivers_in_order(kernel, ["virtio_blk", "floppy"])


@pytest.mark.parametrize("packed", ["lz4", "zstd", "otherwise"])
def test_a_kernel_is_unpacked(tmp_path: Path, packed: str) -> None:
    kernel = b"\x7fELF" + bytes(range(256)) * 1000
    match packed:
        case "lz4":
            command = ["lz4", "-l", "--stdout"]
            payload = subprocess.run(command, input=kernel, capture_output=True, check=True).stdout
        case "zstd":
            payload = zstandard.ZstdCompressor().compress(kernel)
        case _:
            payload = b"\xfd7zXZ\0"
    payload += len(kernel).to_bytes(4, "little")
    image = bytearray(4 * 512) + b"code" + payload + b"more"
    image[0x1F1] = 3
    image[0x248:0x250] = struct.pack("<II", 4, len(payload))
    (tmp_path / "vmlinuz").write_bytes(image)
    assert unpacked(tmp_path / "vmlinuz") == (bytes(image) if packed == "otherwise" else kernel)

    if packed != "otherwise":
        image[-8:-4] = bytes(4)
        (tmp_path / "vmlinuz").write_bytes(image)
        with pytest.raises(LabError, match="cannot be unpacked"):
            unpacked(tmp_path / "vmlinuz")
