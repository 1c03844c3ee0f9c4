"""The first root file system of the micro-VM, made of what is installed: Python, our agent, drivers, LVM.

It is built once for each version of its parts and kept in the state folder.
"""

import hashlib
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hotspare
from hotspare.errors import PlatformUnavailable
from hotspare.guest.files.appliance import archive as archive_module
from hotspare.guest.files.appliance.archive import Archive
from hotspare.guest.files.appliance.inside import agent
from hotspare.guest.files.appliance.kernel import INSTALL_HINT, Kernel

_AGENT = agent.__name__
_KEPT_SECONDS = 24 * 3600
_LIBRARY = "/hotspare"
"""Where our modules are inside; the standard library is where it is outside."""
_INIT = "#!{python} -ISB\nimport sys\nsys.path.insert(0, '{library}')\nfrom {agent} import main\nmain()\n"
_CHECKSUMS = (
    "crc32c_generic",
    "crc32c_intel",
    "libcrc32c",
    "xxhash_generic",
    "sha256_generic",
    "blake2b_generic",
)
_CHARACTERS = ("nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8")
NEEDED = ("virtio_pci", "virtio_blk", "virtio_console")
MODULES: dict[str, tuple[str, ...]] = {
    "start": NEEDED,
    "lvm": (
        "dm_mod",
        "dm_thin_pool",
        "dm_snapshot",
        "dm_mirror",
        "dm_raid",
        "dm_cache",
        "dm_cache_smq",
        "dm_writecache",
    ),
    "ext4": (*_CHECKSUMS, "ext4"),
    "xfs": (*_CHECKSUMS, "xfs"),
    "btrfs": (*_CHECKSUMS, "btrfs"),
    "ntfs3": (*_CHARACTERS, "ntfs3"),
    "vfat": (*_CHARACTERS, "vfat"),
    "exfat": (*_CHARACTERS, "exfat"),
    "f2fs": (*_CHECKSUMS, "f2fs"),
    "jfs": (*_CHARACTERS, "jfs"),
    "reiserfs": ("reiserfs",),
    "nilfs2": ("nilfs2",),
    "hfsplus": (*_CHARACTERS, "hfsplus"),
    "iso9660": (*_CHARACTERS, "isofs"),
    "udf": (*_CHARACTERS, "udf"),
    "squashfs": ("squashfs",),
    "erofs": (*_CHECKSUMS, "erofs"),
    "ufs": ("ufs",),
}
"""What has to be loaded for the start, for logical volumes, and for each file system that can be mounted."""
_LIST_MODULES = f"""
import sys
sys.path.insert(0, sys.argv[1])
import {_AGENT}
for name, module in sys.modules.items():
    if getattr(module, "__file__", None):
        print(name, module.__file__, sep=chr(9))
"""


def initramfs(kernel: Kernel, cache: Path) -> Path:
    """Give the archive for a kernel, building it if this version is not in the cache folder yet.

    Raises:
        PlatformUnavailable: something it is made of is missing.
    """
    try:
        return _cached(kernel, cache)
    except OSError as error:
        raise PlatformUnavailable(
            f"The micro-VM that reads this file system cannot be built: {error}",
            meaning="Nothing was changed",
            hint=f"Check {cache} and its space, and that {kernel.image} may be read",
        ) from error


def _cached(kernel: Kernel, cache: Path) -> Path:
    path = cache / f"initramfs-{_recipe(kernel)}"
    if not path.exists():
        content = build(kernel)
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in cache.glob("initramfs-*"):
            # Another program may be about to boot one with another kernel.
            if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
                old.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, prefix="new-", delete=False) as file:
            file.write(content)
        Path(file.name).rename(path)
    os.utime(path)
    return path


def build(kernel: Kernel) -> bytes:
    """Make the archive, uncompressed: unpacking takes an emulated processor longer than loading.

    Raises:
        PlatformUnavailable: something it is made of is missing.
    """
    missing = [module for module in NEEDED if not kernel.has(module)]
    if missing:
        raise PlatformUnavailable(
            f"The kernel {kernel.image} has no drivers for virtual machines ({', '.join(missing)})",
            meaning="The micro-VM that reads this file system cannot be started",
            hint=INSTALL_HINT,
        )
    archive = Archive()
    for folder in ("/dev", "/proc", "/sys", "/etc", "/run", "/tmp", "/volumes"):  # noqa: S108  # inside of the micro-VM
        archive.folder(folder)
    archive.console()
    programs = [*_add_python(archive), *_add_lvm(archive)]
    for library in sorted({library for program in programs for library in _libraries(program)}):
        archive.file(library, Path(library).read_bytes(), executable=True)
    drivers: dict[str, bytes] = {}
    for purpose, wanted in MODULES.items():
        found = kernel.in_order(wanted)
        drivers |= found
        archive.file(f"/modules/{purpose}.order", "\n".join(found).encode())
    for name, content in drivers.items():
        archive.file(f"/modules/{name}.ko", content)
    return archive.to_bytes()


def _python() -> Path:
    return Path(os.path.realpath(sys.executable))


def _package_root() -> Path:
    return Path(hotspare.__file__).parent.parent


def _recipe(kernel: Kernel) -> str:
    """Give a name that changes whenever a part does."""
    here = Path(__file__).parent
    parts = [kernel.image, kernel.modules, _python(), *_lvm()]
    described = [f"{part} {part.stat().st_size} {part.stat().st_mtime_ns}" for part in parts]
    recipe = hashlib.sha256("\n".join([*described, sys.version]).encode())
    for source in sorted((Path(__file__), Path(archive_module.__file__), *(here / "inside").glob("*.py"))):
        recipe.update(source.read_bytes())
    return recipe.hexdigest()[:16]


def _add_python(archive: Archive) -> list[Path]:
    """Add the interpreter and the modules that our agent imports; give what has shared libraries."""
    python, root = _python(), _package_root()
    listed = _run([str(python), "-ISB", "-c", _LIST_MODULES, str(root)])
    init = _INIT.format(python=python, library=_LIBRARY, agent=_AGENT)
    archive.file("/init", init.encode(), executable=True)
    archive.file(str(python), python.read_bytes(), executable=True)
    linked = [python]
    for name, file in (line.split("\t") for line in listed.splitlines()):
        path = Path(file)
        if path.suffix != ".py":
            archive.file(file, path.read_bytes())
            linked.append(path)
            continue
        ours = path.is_relative_to(root) and name.partition(".")[0] == hotspare.__name__
        inside = f"{_LIBRARY}/{path.relative_to(root)}" if ours else file
        archive.file(f"{inside}c", _compiled(path))
    # By these two the interpreter finds its standard library.
    archive.file(str(Path(os.__file__)), Path(os.__file__).read_bytes())
    archive.folder(str(Path(os.__file__).parent / "lib-dynload"))
    return linked


def _compiled(source: Path) -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".pyc") as file:
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(source), file.name, doraise=True, invalidation_mode=mode, quiet=2)
        return Path(file.name).read_bytes()


def _lvm() -> list[Path]:
    found = shutil.which("lvm", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return [Path(found)] if found else []


def _add_lvm(archive: Archive) -> list[Path]:
    for program in _lvm():
        archive.file("/sbin/lvm", program.read_bytes(), executable=True)
    return _lvm()


def _libraries(program: Path) -> list[str]:
    listing = _run(["ldd", str(program)])
    if missing := re.findall(r"(\S+) => not found", listing):
        raise PlatformUnavailable(
            f"{program} needs {', '.join(missing)}", hint="Install what it belongs to again"
        )
    return re.findall(r"(/\S+) \(0x", listing)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise PlatformUnavailable(f"{command[0]} cannot be run: {error}", hint="Install it") from error
    if done.returncode:
        # ldd says so of what is linked statically.
        if "not a dynamic executable" in done.stderr:
            return ""
        raise PlatformUnavailable(
            f"{command[0]} failed: {done.stderr.strip()}",
            meaning="The micro-VM that reads this file system cannot be built",
            hint="Report this as a defect of Hotspare",
        )
    return done.stdout
