"""What the micro-VM is made of, and that nothing of it is left behind."""

import gzip
import lzma
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from hotspare.block.file import RawFile
from hotspare.errors import PlatformUnavailable
from hotspare.guest.files.appliance import appliance as appliance_module
from hotspare.guest.files.appliance import initramfs as initramfs_module
from hotspare.guest.files.appliance.appliance import Appliance
from hotspare.guest.files.appliance.archive import Archive
from hotspare.guest.files.appliance.initramfs import NEEDED, initramfs
from hotspare.guest.files.appliance.kernel import Kernel, find_kernel
from hotspare.units import MIB

LAUNCH = """
import sys
from pathlib import Path
from hotspare.block.file import RawFile
from hotspare.guest.files.appliance.appliance import Appliance
from hotspare.guest.files.appliance.kernel import Kernel
disk, cache, image, modules = map(Path, sys.argv[1:])
Appliance.launch({"vda": RawFile.open(disk)}, cache=cache, kernel=Kernel(image, modules))
"""


def module(*depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + ",".join(depends).encode() + b"\0retpoline=Y\0"


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel with modules in every packing there is; it boots nothing."""
    modules = tmp_path / "root" / "lib" / "modules" / "6.1.0-9-amd64"
    (modules / "kernel" / "fs").mkdir(parents=True)
    (tmp_path / "root" / "boot").mkdir()
    image = tmp_path / "root" / "boot" / "vmlinuz-6.1.0-9-amd64"
    image.write_bytes(b"no kernel")
    (modules / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\nkernel/fs/ext4/ext4.ko\n")
    folder = modules / "kernel" / "fs"
    (folder / "virtio-blk.ko").write_bytes(module())
    (folder / "virtio_console.ko").write_bytes(module())
    (folder / "xfs.ko.xz").write_bytes(lzma.compress(module("libcrc32c")))
    (folder / "libcrc32c.ko.zst").write_bytes(zstandard.ZstdCompressor().compress(module("crc-t10")))
    (folder / "crc-t10.ko.gz").write_bytes(gzip.compress(module("ext4", "nowhere")))
    return Kernel(image, modules)


def test_modules_are_loaded_after_what_they_need(kernel: Kernel) -> None:
    found = kernel.in_order(["xfs", "ext4", "btrfs", "virtio_blk"])
    assert list(found) == ["crc_t10", "libcrc32c", "xfs", "virtio_blk"]
    assert found["xfs"] == module("libcrc32c")


def test_modules_that_need_each_other_end(kernel: Kernel) -> None:
    folder = kernel.modules / "kernel" / "fs"
    (folder / "one.ko").write_bytes(module("two"))
    (folder / "two.ko").write_bytes(module("one"))
    assert set(kernel.in_order(["one"])) == {"one", "two"}


def test_a_module_that_is_damaged_is_named(kernel: Kernel) -> None:
    (kernel.modules / "kernel" / "fs" / "xfs.ko.xz").write_bytes(b"damage")
    with pytest.raises(PlatformUnavailable, match=r"xfs\.ko\.xz cannot be read"):
        kernel.in_order(["xfs"])


def test_the_newest_kernel_is_chosen(kernel: Kernel, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert find_kernel({}, root) == kernel
    for version in ("6.1.0-10-amd64", "5.10.0-99-amd64", "6.9.0-nothing"):
        (root / "lib" / "modules" / version).mkdir()
    for version in ("6.1.0-10-amd64", "5.10.0-99-amd64"):
        (root / "boot" / f"vmlinuz-{version}").touch()
    assert find_kernel({}, root).image.name == "vmlinuz-6.1.0-10-amd64"
    other = {
        "HOTSPARE_APPLIANCE_KERNEL": str(kernel.image),
        "HOTSPARE_APPLIANCE_MODULES": str(kernel.modules),
    }
    assert find_kernel(other, root) == kernel


def test_a_host_without_a_kernel_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(PlatformUnavailable, match="apt-get install linux-image-cloud-amd64"):
        find_kernel({}, tmp_path)
    with pytest.raises(PlatformUnavailable, match="names something that is not there"):
        find_kernel({"HOTSPARE_APPLIANCE_KERNEL": "/none"}, tmp_path)


def test_a_full_disk_is_told(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(PlatformUnavailable, match="cannot be built"):
        initramfs(kernel, tmp_path / "cache")


def test_a_kernel_for_no_virtual_machine_is_refused(kernel: Kernel, tmp_path: Path) -> None:
    (kernel.modules / "kernel" / "fs" / "virtio-blk.ko").unlink()
    assert "virtio_blk" in NEEDED
    with pytest.raises(PlatformUnavailable, match="virtio_blk"):
        initramfs(kernel, tmp_path / "cache")


def test_the_archive_is_what_cpio_takes(tmp_path: Path) -> None:
    archive = Archive()
    archive.console()
    archive.file("/usr/bin/program", b"odd", executable=True)
    archive.file("/etc/empty", b"")
    archive.folder("/etc")
    archive.link("/bin/sh", "../usr/bin/program")
    subprocess.run(
        ["cpio", "--extract", "--quiet"],
        input=archive.to_bytes(),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "usr/bin/program").read_bytes() == b"odd"
    assert (tmp_path / "usr/bin/program").stat().st_mode == stat.S_IFREG | 0o755
    assert (tmp_path / "etc/empty").stat().st_size == 0
    assert (tmp_path / "bin/sh").readlink() == Path("../usr/bin/program")
    if os.geteuid() == 0:
        assert (tmp_path / "dev/console").stat().st_rdev == os.makedev(5, 1)


def test_the_first_root_is_built_once(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = initramfs(kernel, cache)
    with monkeypatch.context() as patched:
        patched.setattr(initramfs_module, "build", None)
        assert initramfs(kernel, cache) == first
    kernel.image.write_bytes(b"another kernel")
    os.utime(first, (1, 1))
    second = initramfs(kernel, cache)
    assert second != first
    assert list(cache.iterdir()) == [second], "the old one is gone"


def test_the_python_of_the_first_root_starts(kernel: Kernel, tmp_path: Path) -> None:
    """In a root folder of its own, as inside: whatever file it lacks, it would lack there."""
    if os.geteuid() != 0:
        pytest.skip("only root can change the root folder")
    root = tmp_path / "inside"
    root.mkdir()
    archive = initramfs(kernel, tmp_path / "cache").read_bytes()
    subprocess.run(["cpio", "--extract", "--quiet"], input=archive, cwd=root, check=True, capture_output=True)
    script, _, rest = (root / "init").read_text().partition("\n")
    program = rest.replace("main()", "print(main.__module__)")
    python, options = script.removeprefix("#!").split()
    done = subprocess.run(
        [_chroot(), root, python, options, "-c", program], capture_output=True, text=True, check=False, env={}
    )
    assert done.stdout == "hotspare.guest.files.appliance.inside.agent\n", done.stderr
    assert (root / "modules" / "xfs.order").read_text().split()[-1] == "xfs"


def test_qemu_that_does_not_start_is_told(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel is none, which QEMU says at once."""
    disk = RawFile.create(tmp_path / "disk", MIB)
    monkeypatch.setattr(appliance_module, "_SCRATCH", str(tmp_path))
    with disk, pytest.raises(PlatformUnavailable, match=r"does not come up: broke off.*said last: qemu"):
        Appliance.launch({"vda": disk}, cache=tmp_path / "cache", kernel=kernel)
    assert [each.name for each in tmp_path.iterdir() if "appliance" in each.name] == []


def test_without_qemu(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = RawFile.create(tmp_path / "disk", MIB)
    cache = tmp_path / "cache"
    initramfs(kernel, cache)
    monkeypatch.setenv("PATH", str(tmp_path))
    with disk, pytest.raises(PlatformUnavailable, match="apt-get install qemu-system-x86"):
        Appliance.launch({"vda": disk}, cache=cache, kernel=kernel)


def test_qemu_ends_when_we_are_killed(kernel: Kernel, tmp_path: Path) -> None:
    """Even one that does not notice by itself that nobody is there any more."""
    programs = tmp_path / "programs"
    programs.mkdir()
    fake = programs / "qemu-system-x86_64"
    fake.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import time; time.sleep(1000)' \"$@\"\n")
    fake.chmod(0o755)
    RawFile.create(tmp_path / "disk", MIB).close()
    words = [tmp_path / "disk", tmp_path / "cache", kernel.image, kernel.modules]
    path = {"PATH": f"{programs}:{os.environ['PATH']}"}
    with subprocess.Popen([sys.executable, "-c", LAUNCH, *map(str, words)], env=os.environ | path) as program:
        try:
            assert eventually(lambda: len(processes_with(str(kernel.image))) >= 3), "us, the keeper and QEMU"
            folder = next(
                Path(word.removeprefix("FOLDER="))
                for pid in processes_with(str(kernel.image))
                for word in Path("/proc", pid, "environ").read_text().split("\0")
                if word.startswith("FOLDER=")
            )
            assert folder.is_dir()
        finally:
            program.kill()
            program.wait()
    assert eventually(lambda: not processes_with(str(kernel.image)))
    assert eventually(lambda: not folder.exists())


def _chroot() -> str:
    found = shutil.which("chroot", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found
    return found


def processes_with(words: str) -> list[str]:
    """Give the ids of processes that have some words in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 40
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
