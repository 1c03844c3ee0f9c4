"""How fast files inside disks are listed: ``python -m benchmarks.file_listing [files [folder for images]]``.

Makes file systems with that many files (100,000 unless told otherwise), 1,000 in a folder, and one folder
with a fifth as many; then times, in new processes, the first folder and a walk over everything, beside
the host's own driver with cold caches where it has one. ext by the kernel, exFAT and NTFS by their FUSE
drivers. Needs root.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hotspare.block.file import RawFile
from hotspare.guest.files.opening import open_file_system
from hotspare.guest.volumes.find import find_volumes

_IN_A_FOLDER = 1000


def run(*command: str | Path) -> str:
    """Run a program that must succeed."""
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


@contextmanager
def mounted(kind: str, image: Path) -> Iterator[Path]:
    """Mount an image by whoever can."""
    point = image.with_suffix(".mounted")
    point.mkdir(exist_ok=True)
    device = run("losetup", "-f", "--show", image).strip()
    mounts = {"ext4": ["mount"], "ntfs": ["ntfs-3g"], "exfat": ["mount.exfat-fuse"]}
    try:
        run(*mounts[kind], device, point)
        try:
            yield point
            if kind == "ext4":  # clean, even where somebody with mounts of his own keeps this one for a while
                run("mount", "-o", "remount,ro", point)
        finally:
            run("umount", point)
    finally:
        run("losetup", "-d", device)
        while run("losetup", "-j", image):  # its driver may write for some time yet
            time.sleep(0.2)


def fill(point: Path, files: int) -> None:
    """Write small files."""
    for number in range(files):
        folder = point / f"folder-{number // _IN_A_FOLDER:04d}"
        if number % _IN_A_FOLDER == 0:
            folder.mkdir()
        (folder / f"a file with number {number:07d}.txt").write_bytes(b"x")
    (point / "large").mkdir()
    for number in range(files // 5):
        (point / "large" / f"one of many {number:07d}").write_bytes(b"")


def measure(image: Path) -> None:
    """Time one image, and print the seconds."""
    began = time.monotonic()
    disk = RawFile.open(image)
    (volume,) = find_volumes({"vda": disk}).volumes
    file_system = open_file_system(volume, disk)
    count = sum(1 for _ in file_system.entries("/folder-0000"))
    first = time.monotonic() - began
    began = time.monotonic()
    everything = sum(1 for _ in file_system.walk())
    walk = time.monotonic() - began
    file_system.close()
    disk.close()
    used = time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    print(
        f"{file_system.kind:6} first folder ({count}) {first:.2f} s, {everything} names {walk:.2f} s",
        end=", ",
    )
    print(f"{used:.2f} s of processors in all")


def listed(point: Path) -> int:
    """List everything with the host's driver, as our walk does: with what each name leads to."""
    found = 0
    for folder, folders, files in os.walk(point):
        for name in (*folders, *files):
            (Path(folder) / name).lstat()
            found += 1
    return found


def main(files: int, where: Path) -> None:
    """Make images and measure them."""
    makers: dict[str, Callable[[Path], str]] = {
        "ext4": lambda image: run("mkfs.ext4", "-q", "-F", "-N", str(files * 2), image),
        "exfat": lambda image: run("mkfs.exfat", "-c", "4096", image),
        "ntfs": lambda image: run("mkntfs", "-q", "-F", "-f", image),
    }
    for kind, make in makers.items():
        image = where / f"{kind}.img"
        run("truncate", "-s", "2G", image)
        make(image)
        with mounted(kind, image) as point:
            fill(point, files)
        run(sys.executable, "-c", "import os; os.sync()")
        print(run(sys.executable, "-m", "benchmarks.file_listing", "--measure", image).strip(), flush=True)
        with mounted(kind, image) as point:
            began = time.monotonic()
            print(
                f"{kind:6} the host's driver: {listed(point)} names {time.monotonic() - began:.2f} s",
                flush=True,
            )
        image.unlink()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as scratch:
            main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, Path(scratch))
