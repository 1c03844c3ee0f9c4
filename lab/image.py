"""The guest's system: kernel, first root file system and boot loader, built once per version of its parts."""

import fcntl
import hashlib
import inspect
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hotspare.guest.files.appliance.archive import Archive
from hotspare.guest.files.appliance.kernel import Kernel
from lab.errors import LabError
from lab.packages import guest_packages, unpack
from lab.programs import run
from lab.vmlinux import unpacked

CACHE = Path("/var/cache/hotspare-lab")

_HERE = Path(__file__).parent
_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "button", "evdev")
_LOADED_BY_TESTS = ("efivarfs", "virtio_net")
_BUILDERS = (__file__, *(inspect.getfile(part) for part in (Archive, Kernel, unpacked)))
_PAYLOAD = {
    "init": "/init",
    "inittab": "/etc/inittab",
    "start-agent": "/sbin/start-agent",
    "shutdown": "/sbin/shutdown",
    "fsfreeze-hook": "/etc/qemu/fsfreeze-hook",
}
_COMPILED = {"flush-latency.c": "/bin/flush-latency", "workload.c": "/bin/workload"}
# Where busybox acpid looks for what to do about the power button.
_POWER_BUTTON = "/etc/acpi/PWRF/00000080"
_KEEP_SECONDS = 14 * 24 * 3600


@dataclass(frozen=True, slots=True)
class GuestImage:
    """Files of one version of the guest's system, readable by everybody."""

    folder: Path

    @property
    def kernel(self) -> Path:
        """The distribution's kernel, for any boot loader."""
        return self.folder / "vmlinuz"

    @property
    def vmlinux(self) -> Path:
        """The same unpacked, for QEMU with a BIOS."""
        return self.folder / "vmlinux"

    @property
    def initramfs(self) -> Path:
        """Everything else of the guest."""
        return self.folder / "initramfs"

    @property
    def boot_sector(self) -> Path:
        """GRUB's ``boot.img``."""
        return self.folder / "boot.img"

    @property
    def boot_core(self) -> Path:
        """GRUB's ``core.img``, which reads ``/boot/grub/grub.cfg`` of the first partition."""
        return self.folder / "core.img"


@cache
def guest_image() -> GuestImage:
    """Give the guest's system, building it if this version of it is not there yet.

    Raises:
        LabError: a package, a program or a library it is made of cannot be had.
    """
    packages = guest_packages()
    recipe = hashlib.sha256(" ".join(str(package) for package in packages).encode())
    for source in (*sorted(_HERE.glob("payload/*")), *map(Path, _BUILDERS)):
        recipe.update(source.read_bytes())
    image = GuestImage(CACHE / recipe.hexdigest()[:16])
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with one_builder():
        if not image.folder.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                tree, result = Path(scratch, "tree"), Path(scratch, "result")
                unpack(packages, tree)
                _build(tree, result)
                result.rename(image.folder)
            remove_old_versions(image.folder)
    return image


@contextmanager
def one_builder() -> Iterator[None]:
    """Let one process at a time build something in the cache."""
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_old_versions(current: Path) -> None:
    """Note that a folder of the cache is in use, and remove those that have not been for long."""
    os.utime(current)
    for folder in CACHE.iterdir():
        old = time.time() - folder.stat().st_mtime > _KEEP_SECONDS
        if old and folder.is_dir() and folder != current:
            shutil.rmtree(folder)


def _build(tree: Path, result: Path) -> None:
    result.mkdir(mode=0o755)
    modules = _only(tree, "modules.builtin").parent
    kernel = Kernel(_only(tree, f"boot/vmlinuz-{modules.name}"), modules)
    # Uncompressed: unpacking takes an emulated processor longer than loading.
    (result / "initramfs").write_bytes(_system(tree, kernel).to_bytes())
    shutil.copyfile(kernel.image, result / "vmlinuz")
    (result / "vmlinux").write_bytes(unpacked(kernel.image))
    loader = _only(tree, "i386-pc/boot.img").parent
    shutil.copyfile(loader / "boot.img", result / "boot.img")
    early = tree / "early.cfg"
    early.write_text("set root=(hd0,msdos1)\nconfigfile /boot/grub/grub.cfg\n")
    run(
        _only(tree, "bin/grub-mkimage"),
        *("--format", "i386-pc", "--directory", loader, "--config", early, "--prefix", "/boot/grub"),
        *("--output", result / "core.img"),
        *("biosdisk", "part_msdos", "ext2", "linux", "normal", "configfile", "boot"),
    )
    for path in result.iterdir():
        path.chmod(0o644)


def _system(tree: Path, kernel: Kernel) -> Archive:
    archive = Archive()
    for folder in ("dev", "proc", "sys", "run", "tmp", "root", "var/log", "var/run"):
        archive.folder(folder)
    archive.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    for source, path in _PAYLOAD.items():
        archive.file(path, (_HERE / "payload" / source).read_bytes(), executable=True)
    archive.link(_POWER_BUTTON, "/sbin/shutdown")
    for source, path in _COMPILED.items():
        binary = tree / Path(path).name
        run("gcc", "-O2", "-static", "-Wall", "-o", binary, _HERE / "payload" / source)
        archive.file(path, binary.read_bytes(), executable=True)

    busybox = _only(tree, "bin/busybox")
    archive.file("/bin/busybox", busybox.read_bytes(), executable=True)
    for applet in set(run(busybox, "--list").split()) - {"busybox"}:
        archive.link(f"/bin/{applet}", "busybox")
    archive.link("/sbin/init", "/bin/busybox")

    agent = _only(tree, "bin/qemu-ga")
    archive.file("/usr/sbin/qemu-ga", agent.read_bytes(), executable=True)
    for library in _libraries(agent):
        archive.file(library, Path(library).read_bytes(), executable=True)

    drivers = drivers_in_order(kernel, _MODULES)
    for name, content in drivers.items():
        archive.file(f"/modules/{name}.ko", content)
    for name, content in drivers_in_order(kernel, _LOADED_BY_TESTS).items():
        archive.file(f"/modules/{name}.ko", content)
    archive.file("/modules/order", "".join(f"{name}\n" for name in drivers).encode())
    return archive


def drivers_in_order(kernel: Kernel, wanted: Sequence[str]) -> dict[str, bytes]:
    """Read modules and all that they need, in loading order. Raises ``LabError``: the kernel lacks one."""
    if lacking := [name for name in wanted if not kernel.has(name)]:
        raise LabError(f"The kernel {kernel.modules.name} has no module {', '.join(lacking)}")
    return kernel.in_order(wanted)


def _libraries(program: Path) -> list[str]:
    """Find the shared libraries that a program needs, on the host."""
    listing = run("ldd", program)
    if missing := re.findall(r"(\S+) => not found", listing):
        raise LabError(f"{program.name} needs {', '.join(missing)}: run scripts/install-system-packages")
    return re.findall(r"(/\S+) \(0x", listing)


def _only(tree: Path, path: str) -> Path:
    """Find a file whose folder differs between distributions (/lib or /usr/lib, bin or sbin)."""
    wanted = Path(path)
    for found in tree.rglob(wanted.name):
        if found.parts[-len(wanted.parts) :] == wanted.parts or found.parent.name == f"s{wanted.parent}":
            return found
    raise LabError(f"The guest's packages hold no {path}")
