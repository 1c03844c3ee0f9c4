"""The parts a guest is built of, where the real thing can judge them without a machine."""

import subprocess
from pathlib import Path

import pytest

from lab.cpio import Archive
from lab.errors import LabError
from lab.modules import modules_in_order


def test_cpio_itself_reads_our_archives(tmp_path: Path) -> None:
    archive = Archive()
    archive.file("/etc/deep/greeting", b"hello\n")
    archive.file("/bin/odd", b"12345", executable=True)
    archive.link("/bin/sh", "odd")
    archive.folder("/proc")

    unpack = ["cpio", "--extract", "--quiet"]
    subprocess.run(unpack, input=archive.to_bytes(), cwd=tmp_path, check=True, capture_output=True)

    assert (tmp_path / "etc/deep/greeting").read_text() == "hello\n"
    assert (tmp_path / "bin/odd").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "bin/sh").readlink() == Path("odd")
    assert (tmp_path / "proc").is_dir()


def _module(folder: Path, name: str, depends: str) -> None:
    (folder / f"{name}.ko").write_bytes(
        b"\x7fELF...\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"
    )


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    _module(tmp_path, "virtio-blk", "virtio,virtio_ring")
    _module(tmp_path, "virtio_ring", "virtio")
    _module(tmp_path, "virtio", "")
    assert list(modules_in_order(tmp_path, ["ext4", "virtio_blk"])) == ["virtio", "virtio_ring", "virtio_blk"]


def test_a_module_that_the_kernel_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "modules.builtin").write_text("")
    with pytest.raises(LabError, match="floppy"):
        modules_in_order(tmp_path, ["floppy"])
