"""Swap files in an ext2/3/4 file system: what they hold is worth nothing after a restart.

A swap file is believed when it is a regular file without holes whose first page ends with the signature of
mkswap, and when nothing says that a sleeping system lies in it. Its head is always kept, so that it is a swap
file after a restore.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hotspare.block.ranges import NOTHING, Ranges
from hotspare.guest.unused.ext.files import Files
from hotspare.guest.unused.ext.inode import Inode, Odd
from hotspare.guest.unused.ext.superblock import Superblock
from hotspare.units import KIB, MIB

HEAD = 64 * KIB
"""Of a swap file is kept: the largest page that Linux has, as signatures are at the end of the first one."""
_USUAL_PLACES = ("/swapfile", "/swap.img", "/swap/swapfile")
_FSTAB_MAX = 1 * MIB
_NAMED_MAX = 16
_PAGES = tuple(KIB << power for power in range(2, 7))
"""Sizes of a page, 4 to 64 KiB."""
_SIGNATURE = b"SWAPSPACE2"
_ASLEEP = (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001", b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c")
"""What takes the place of the signature while a system sleeps: the kernel's, uswsusp's, TuxOnIce's."""


@dataclass(frozen=True, slots=True)
class SwapFiles:
    """What was found: bytes of the volume, and what was kept for which reason."""

    content: Ranges = NOTHING
    remarks: tuple[str, ...] = ()


def find_swap_files(files: Files, superblock: Superblock) -> SwapFiles:
    """Look at the usual places and at those that ``/etc/fstab`` names.

    Raises:
        SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
    """
    parts: list[Ranges] = []
    remarks: list[str] = []
    for path in dict.fromkeys((*_USUAL_PLACES, *_named(files))):
        try:
            inode = files.find(path)
        except Odd:
            continue  # a folder or file that is not usual; that there is a swap file is only a guess
        if inode is None:
            continue
        try:
            parts.append(_content(files, superblock, inode))
        except Odd as odd:
            remarks.append(f"{path} is kept: {odd.reason}")
    return SwapFiles(Ranges.union(parts), tuple(remarks))


def _named(files: Files) -> Iterator[str]:
    """Yield the swap files that ``/etc/fstab`` names, but for those below another mount point."""
    try:
        inode = files.find("/etc/fstab")
        if inode is None or not inode.is_file or inode.size > _FSTAB_MAX:
            return
        text = files.content(inode, _FSTAB_MAX).decode("utf-8", "surrogateescape")
    except Odd:
        return
    lines = [line.split() for line in text.splitlines() if not line.lstrip().startswith("#")]
    entries = [(fields[0], fields[1], fields[2]) for fields in lines if len(fields) >= 3]
    elsewhere = [point.rstrip("/") + "/" for _, point, _ in entries if point.startswith("/") and point != "/"]
    named = 0
    for path, _, kind in entries:
        plain = (
            path.startswith("/") and not path.startswith("/dev/") and "\\" not in path and "/../" not in path
        )
        if kind == "swap" and plain and not any(path.startswith(point) for point in elsewhere):
            named += 1
            if named > _NAMED_MAX:
                return
            yield path


def _content(files: Files, superblock: Superblock, inode: Inode) -> Ranges:
    """Give what is in a swap file after its head, in whole blocks."""
    if not inode.is_file:
        raise Odd("it is not a regular file")
    if inode.size <= HEAD:
        raise Odd("it is too small for swap space")
    _check_signature(files.content(inode, HEAD), inode.size)
    runs = files.runs(inode)
    blocks = inode.size // superblock.block_size
    runs = runs[runs[:, 0] < blocks]
    starts, ends = runs[:, 0], np.minimum(runs[:, 0] + runs[:, 2], blocks)
    if not len(runs) or starts[0] or ends[-1] != blocks or (starts[1:] != ends[:-1]).any():
        raise Odd("it has holes")
    skipped = np.clip(HEAD // superblock.block_size - starts, 0, ends - starts)
    rows = np.column_stack((runs[:, 1] + skipped, runs[:, 1] + ends - starts))
    return Ranges.of(rows * superblock.block_size)


def _check_signature(head: bytes, size: int) -> None:
    """Refuse what is no swap space, and what holds a sleeping system.

    Layout: the union ``swap_header`` of the kernel's ``linux/swap.h``: the signature in the last ten bytes of
    the first page; from byte 1024 on the version (1), the number of the last page, and how many pages are
    bad.
    """
    if any(head[page - len(_SIGNATURE) :].startswith(_ASLEEP) for page in _PAGES):
        raise Odd("a system sleeps in it")
    pages = [page for page in _PAGES if head[page - len(_SIGNATURE) : page] == _SIGNATURE]
    if len(pages) != 1:
        raise Odd("it has no signature of swap space")
    version, last = head[1024:1028], head[1028:1032]
    order: Literal["little", "big"] = "little" if version[0] else "big"  # that of the machine's processor
    if int.from_bytes(version, order) != 1 or not 0 < int.from_bytes(last, order) < size // pages[0]:
        raise Odd("its header of swap space makes no sense")
