"""The parts a guest is built of, where they can be judged without a machine."""

from pathlib import Path

import pytest

from hotspare.guest.files.appliance.kernel import Kernel
from lab.errors import LabError
from lab.image import drivers_in_order


def test_a_driver_that_the_kernel_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    (tmp_path / "virtio-blk.ko").write_bytes(b"\x7fELF\0depends=\0")
    kernel = Kernel(tmp_path / "vmlinuz", tmp_path)
    assert list(drivers_in_order(kernel, ["ext4", "virtio_blk"])) == ["virtio_blk"]
    with pytest.raises(LabError, match="floppy"):
        drivers_in_order(kernel, ["virtio_blk", "floppy"])
