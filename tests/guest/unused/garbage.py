"""Proof that nobody needs what a map calls unused: overwrite all of it with garbage, then look at every file.

Used by the tests of every file system's map::

    unused = ext_unused(reader, Quiet.OFFLINE)
    prove_unused(image, unused, listing=by_mount("ext4"), fsck=["e2fsck", "-fn"])

``listing`` says how files are read: by the kernel (``by_mount``) or by a FUSE program (``by_program``).
"""

import hashlib
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hotspare.block.file import RawFile
from hotspare.block.ranges import Ranges
from hotspare.guest.unused.unused import UnusedBlocks
from hotspare.units import MIB

LONG = 64 * MIB
"""From this length on only the ends of a range are filled: a terabyte of garbage proves no more."""
END = 4 * MIB
_PIECE = MIB


@dataclass(frozen=True)
class FileFacts:
    """All that can be told of one name in a file system."""

    mode: int
    uid: int
    gid: int
    size: int
    blocks: int
    links: int
    device: int
    modified: int
    changed: int
    attributes: tuple[tuple[str, bytes], ...]
    content: str
    """SHA-256 of a file's bytes; where a link leads."""


Listing = Callable[[Path], dict[str, FileFacts]]
"""Gives the facts of every file of the image, by path, without writing to it."""


def by_mount(kind: str, *options: str) -> Listing:
    """Read files with the kernel's own driver, through a read-only loop device."""

    def listing(image: Path) -> dict[str, FileFacts]:
        with mounted(image, kind, "ro", *options) as root:
            return facts_below(root)

    return listing


def by_program(*command: str) -> Listing:
    """Read files with a FUSE program: ``{image}`` and ``{folder}`` in its arguments are filled in."""

    def listing(image: Path) -> dict[str, FileFacts]:
        with tempfile.TemporaryDirectory() as folder:
            words = [word.format(image=image, folder=folder) for word in command]
            run(words)
            try:
                return facts_below(Path(folder))
            finally:
                run(["umount", folder])

    return listing


@contextmanager
def mounted(image: Path, kind: str, *options: str) -> Iterator[Path]:
    """Mount an image at a new folder by a loop device; all of it is undone at the end."""
    with tempfile.TemporaryDirectory() as folder:
        run(["mount", "-t", kind, "-o", ",".join(("loop", *options)), str(image), folder])
        try:
            yield Path(folder)
        finally:
            run(["umount", folder])


def run(command: Sequence[str], *, statuses: Collection[int] = (0,)) -> str:
    """Run a program and give what it printed; any other exit status fails the test with its words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    assert done.returncode in statuses, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def facts_below(root: Path) -> dict[str, FileFacts]:
    """Read every file below a folder, and the folder itself."""
    paths = [root]
    for folder, folders, files in os.walk(root, onerror=_fail):
        paths += [Path(folder, name) for name in (*folders, *files)]
    return {str(path.relative_to(root)): facts_of(path) for path in paths}


def facts_of(path: Path) -> FileFacts:
    """Read one file with everything that belongs to it."""
    status = path.lstat()
    content = ""
    if stat.S_ISREG(status.st_mode):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    return FileFacts(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size,
        blocks=status.st_blocks,
        links=status.st_nlink,
        device=status.st_rdev,
        modified=status.st_mtime_ns,
        changed=status.st_ctime_ns,
        attributes=_attributes(path),
        content=content,
    )


def fill(image: Path, ranges: Ranges, *, seed: int = 1) -> None:
    """Overwrite ranges of an image with bytes that are random and never zero; of long ones only both ends."""
    garbage = np.random.default_rng(seed).integers(1, 256, _PIECE, dtype=np.uint8).tobytes()
    with image.open("r+b", buffering=0) as file:
        for start, end in ranges:
            parts = [(start, end)] if end - start < LONG else [(start, start + END), (end - END, end)]
            for first, last in parts:
                for at in range(first, last, _PIECE):
                    piece = garbage[: min(_PIECE, last - at)]
                    assert os.pwrite(file.fileno(), piece, at) == len(piece)


def stale_bytes(image: Path, unused: UnusedBlocks) -> int:
    """Count what is not zero in free space."""
    found = 0
    with RawFile.open(image) as volume:
        for extent in volume.extents(0, unused.size):
            for start, end in unused.free.within(extent.offset, extent.end):
                if extent.kind.value == "data":
                    octets = np.empty(end - start, dtype=np.uint8)
                    volume.read_into(start, octets.data)
                    found += int(np.count_nonzero(octets))
    return found


def prove_unused(
    image: Path,
    unused: UnusedBlocks,
    *,
    listing: Listing,
    fsck: Sequence[str] | None,
    statuses: Collection[int] = (0,),
    worthless: Collection[str] = (),
) -> dict[str, FileFacts]:
    """Fail unless the file system is sound, and every file the same, after its unused bytes were overwritten.

    The image itself is overwritten. Nothing is proven if the map is empty or no file was ever deleted:
    that is for the caller to see to.

    Args:
        image: what the map was read from.
        unused: the map; both ``free`` and ``scratch`` are filled.
        listing: how to read the files.
        fsck: a command that checks without repairing, to which the image is appended; or None.
        statuses: of the check, when all is well.
        worthless: paths whose content is ``scratch``: all but that must stay the same.

    Returns:
        The facts of all files.
    """
    size = image.stat().st_size
    assert unused.size <= size
    assert not len(unused.free & unused.scratch)
    for ranges in (unused.free, unused.scratch):
        assert not len(ranges - Ranges.whole(unused.size)), "claims more than the file system"
    before = listing(image)
    assert set(worthless) <= set(before)
    fill(image, unused.free)
    fill(image, unused.scratch, seed=2)
    if fsck is not None:
        run([*fsck, str(image)], statuses=statuses)
    after = listing(image)
    for path in worthless:
        before[path] = replace(before[path], content="")
        after[path] = replace(after[path], content="")
    differences = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert not differences, f"{len(differences)} of {len(before)} files differ: {sorted(differences)[:10]}"
    assert image.stat().st_size == size
    return after


def copy_of(image: Path, name: str) -> Path:
    """Copy an image beside itself, keeping its holes."""
    copy = image.with_name(name)
    run(["cp", "--sparse=always", str(image), str(copy)])
    return copy


def _attributes(path: Path) -> tuple[tuple[str, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # a FUSE program that has none
        return ()
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))


def _fail(error: OSError) -> None:
    raise error
