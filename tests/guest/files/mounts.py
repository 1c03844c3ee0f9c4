"""Images with file systems, mounted by what is trusted to read and write them, and comparisons with that."""

import fcntl
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hotspare.errors import FileSystemUnreadable
from hotspare.guest.files.file_system import FileEntry, FileSystem


def run(*command: str | Path, stdin: str = "") -> str:
    words = [str(part) for part in command]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60, input=stdin)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def new_image(path: Path, size: str) -> Path:
    path.unlink(missing_ok=True)
    run("truncate", "-s", size, path)
    return path


@contextmanager
def mounted(image: Path, options: str = "rw") -> Iterator[Path]:
    """Mount by the host's kernel."""
    point = image.with_suffix(".mounted")
    point.mkdir(exist_ok=True)
    run("mount", "-o", f"loop,{options}", image, point)
    try:
        yield point
        if "rw" in options:
            # Clean even where a process with mounts of its own keeps this one for a while.
            run("mount", "-o", "remount,ro", point)
    finally:
        run("umount", point)


@contextmanager
def mounted_ntfs(image: Path, options: str = "rw", *, streams: str = "xattr") -> Iterator[Path]:
    point = image.with_suffix(".mounted")
    point.mkdir(exist_ok=True)
    run("ntfs-3g", "-o", f"{options},streams_interface={streams},compression", image, point)
    try:
        yield point
    finally:
        run("umount", point)
        with image.open("r+b") as file:  # its driver writes on for a moment, and has the image locked so long
            until(lambda: _locked(file.fileno()))


@contextmanager
def mounted_exfat(image: Path) -> Iterator[Path]:
    point = image.with_suffix(".mounted")
    point.mkdir(exist_ok=True)
    device = run("losetup", "-f", "--show", image).strip()
    try:
        run("mount.exfat-fuse", device, point)
        try:
            yield point
        finally:
            run("umount", point)
    finally:
        run("losetup", "-d", device)
        until(lambda: not run("losetup", "-j", image))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def differences(file_system: FileSystem, point: Path) -> tuple[list[str], int]:
    """Compare everything with a mounted file system; give what differs, and how many names were compared."""
    found = Comparison(file_system)
    found.compare(file_system.entry("/"), os.fsencode(point))
    return found.differences, found.compared


class Comparison:
    def __init__(self, file_system: FileSystem) -> None:
        self.file_system = file_system
        self.differences: list[str] = []
        self.compared = 0

    def note(self, entry: FileEntry, what: str, ours: object, theirs: object) -> None:
        if ours != theirs:
            self.differences.append(f"{entry.path[-80:]!r}: {what} {ours!r:.120} instead of {theirs!r:.120}")

    def compare(self, entry: FileEntry, path: bytes) -> None:
        self.compared += 1
        about = os.lstat(path)
        self.metadata(entry, about)
        self.attributes(entry, path)
        if entry.kind == "link":
            self.note(
                entry, "target", os.fsencode(entry.target), os.fsencode(Path(os.fsdecode(path)).readlink())
            )
        if entry.kind == "file":
            self.content(entry, Path(os.fsdecode(path)).read_bytes())
        if entry.kind == "folder":
            self.folder(entry, path)

    def metadata(self, entry: FileEntry, about: os.stat_result) -> None:
        kinds = {
            stat.S_IFREG: "file",
            stat.S_IFDIR: "folder",
            stat.S_IFLNK: "link",
            stat.S_IFBLK: "block-device",
            stat.S_IFCHR: "character-device",
            stat.S_IFIFO: "fifo",
            stat.S_IFSOCK: "socket",
        }
        self.note(entry, "kind", entry.kind, kinds[stat.S_IFMT(about.st_mode)])
        self.note(entry, "mode", entry.mode, stat.S_IMODE(about.st_mode))
        self.note(entry, "owner", (entry.uid, entry.gid), (about.st_uid, about.st_gid))
        self.note(entry, "inode", (entry.inode, entry.links), (about.st_ino, about.st_nlink))
        self.note(entry, "time", entry.modified, about.st_mtime_ns)
        if entry.kind in {"file", "link"}:
            self.note(entry, "size", entry.size, about.st_size)
        if entry.kind in {"block-device", "character-device"}:
            self.note(entry, "device", entry.device, (os.major(about.st_rdev), os.minor(about.st_rdev)))

    def attributes(self, entry: FileEntry, path: bytes) -> None:
        theirs = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        self.note(entry, "attributes", self.file_system.attributes(entry.path), theirs)

    def content(self, entry: FileEntry, theirs: bytes) -> None:
        ours = self.file_system.open(entry.path)
        self.note(entry, "content size", ours.size, len(theirs))
        if ours.read(0, len(theirs) + 100) != theirs:
            self.differences.append(f"{entry.path[-80:]!r}: content differs")
        for start in (1, len(theirs) // 2, len(theirs) - 1):
            self.note(
                entry, f"piece at {start}", ours.read(start, 5000), theirs[max(0, start) : start + 5000]
            )
        at = 0
        for start, end in ours.holes():
            if not at <= start < end <= len(theirs) or any(theirs[start:end]):
                self.differences.append(f"{entry.path[-80:]!r}: hole from {start} to {end} is none")
            at = end
        ours.close()

    def folder(self, entry: FileEntry, path: bytes) -> None:
        names = {os.fsencode(child.name) for child in Path(os.fsdecode(path)).iterdir()}
        for child in self.file_system.entries(entry.path):
            name = os.fsencode(child.name)
            if name in names:
                names.remove(name)
                self.compare(child, path + b"/" + name)
            else:
                self.differences.append(f"{child.path[-80:]!r} is not there, or twice")
        if names:
            self.differences.append(
                f"{entry.path[-80:]!r}: {len(names)} missing, such as {sorted(names)[:3]!r}"
            )


def walked(file_system: FileSystem, folder: str = "/") -> tuple[list[FileEntry], FileSystemUnreadable | None]:
    """Walk as far as it goes; give what was found, and what went wrong."""
    found: list[FileEntry] = []
    try:
        found.extend(file_system.walk(folder))
    except FileSystemUnreadable as error:
        return found, error
    return found, None
