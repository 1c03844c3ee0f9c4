"""Whether Btrfs stands still: frozen, missed by a freeze, with a log tree, in the middle of something."""

import hashlib
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hotspare.guest.unused.unused import Quiet
from hotspare.units import KIB, MIB
from tests.guest.unused.btrfs_images import Editor, find, make, make_filled, reason
from tests.guest.unused.ext_images import frozen
from tests.guest.unused.garbage import copy_of, fill, run
from tests.guest.unused.live import Writer, clone, cloning, mounted

LOGGED = "its log tree is not empty: it was not unmounted, and not frozen"
BALANCED = "a balance goes on, or was broken off"


def prove_mounted(view: Path, files: dict[str, str], quiet: Quiet) -> None:
    """Fill what is free with garbage; then mount and look for the files."""
    unused = find(view, quiet)
    assert unused.free.total > 100 * MIB
    fill(view, unused.free)
    run(["btrfs", "check", "--check-data-csum", str(view)])
    with mounted(view, "btrfs") as root:
        for name, digest in files.items():
            assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest, name
    run(["btrfs", "check", "--check-data-csum", str(view)])


def test_frozen_and_not(tmp_path: Path) -> None:
    """Whenever there is a map, it holds: also of one that is mounted, if there is no log tree."""
    told = []
    with cloning(tmp_path) as folder:
        image = make(folder / "image")
        with mounted(image, "btrfs", "commit=1") as root:
            writer = Writer(root)
            with writer:
                for turn in range(6):
                    time.sleep(0.3)
                    if turn % 3 == 2:
                        with frozen(root):
                            before = after = writer.snapshot()
                            view = clone(image, "view")
                        assert reason(view, Quiet.FROZEN) == ""
                    else:
                        before = writer.snapshot()
                        view = clone(image, "view")
                        after = writer.snapshot()
                    told.append(reason(view, Quiet.OFFLINE))
                    if not told[-1]:
                        same = {name: digest for name, digest in before.items() if after.get(name) == digest}
                        prove_mounted(view, same, Quiet.OFFLINE if turn % 2 else Quiet.FROZEN)
    assert set(told) <= {"", LOGGED}
    assert told[2] == told[5] == ""


def test_with_a_log_tree(tmp_path: Path) -> None:
    image = make(tmp_path / "image")
    with mounted(image, "btrfs", "commit=300") as root:
        with (root / "file").open("wb") as file:
            file.write(os.urandom(100 * KIB))
            os.fsync(file.fileno())
        view = copy_of(image, "view")
        with frozen(root):
            still = copy_of(image, "still")
    for quiet in Quiet:
        assert reason(view, quiet) == LOGGED
        assert reason(still, quiet) == reason(image, quiet) == ""
    with mounted(view, "btrfs"):
        pass
    assert reason(view) == ""


def test_a_mirror_of_the_superblock_that_is_newer(tmp_path: Path) -> None:
    """As a power cut may leave it between two writes."""
    image = make(tmp_path / "image")
    older = copy_of(image, "older")
    with mounted(image, "btrfs"):
        pass
    with image.open("rb") as source, older.open("r+b") as target:
        source.seek(64 * MIB)
        target.seek(64 * MIB)
        target.write(source.read(4096))
    assert reason(image) == ""
    assert reason(older) == "a mirror of its superblock is newer than the superblock"


def test_seed_and_sprout(tmp_path: Path) -> None:
    seed, other = make_filled(tmp_path / "seed"), tmp_path / "other"
    run(["btrfstune", "-S", "1", str(seed)])
    assert reason(seed) == "it is a seed, an image of metadata, or being converted"
    with other.open("xb") as file:
        file.truncate(300 * MIB)
    device = run(["losetup", "--find", "--show", str(other)]).strip()
    try:
        with mounted(seed, "btrfs") as root:
            run(["btrfs", "device", "add", "-f", device, str(root)])
            run(["mount", "-o", "remount,rw", str(root)])
            (root / "file").write_bytes(b"x" * 100_000)
        run(["btrfs", "device", "scan", "--forget"], statuses=(0, 1))
    finally:
        run(["losetup", "--detach", device])
    assert reason(other, Quiet.OFFLINE).startswith("it spans 2 devices")
    assert reason(other, Quiet.FROZEN) != ""


def balance(editor: Editor) -> None:
    roots = editor.leaf(editor.root(1))
    editor.change(1, [*roots, ((2**64 - 4, 248, 0), bytes(448))])


def relocation(editor: Editor) -> None:
    roots = editor.leaf(editor.root(1))
    editor.change(1, [*roots, ((2**64 - 8, 132, 5), dict(roots)[5, 132, 0])])


def replacement(state: int) -> Callable[[Editor], None]:
    def change(editor: Editor) -> None:
        devices = editor.leaf(editor.root(4))
        item = struct.pack("<QQQQQQQQQ", 1, 0, 0, 0, state, 0, 0, 0, 0)
        editor.change(4, [one for one in devices if one[0][1] != 250] + [((0, 250, 0), item)])

    return change


def log_tree(editor: Editor) -> None:
    editor.change_superblock(96, struct.pack("<Q", 30_000_000))


def flag(bit: int) -> Callable[[Editor], None]:
    return lambda editor: editor.change_superblock(56, struct.pack("<Q", 1 | 1 << bit))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (balance, BALANCED),
        (relocation, BALANCED),
        (replacement(0), ""),
        (replacement(1), "one of its devices is being replaced"),
        (replacement(2), ""),
        (replacement(3), ""),
        (replacement(4), "one of its devices is being replaced"),
        (log_tree, LOGGED),
        (flag(2), "it is a seed, an image of metadata, or being converted"),
        (flag(33), "it is a seed, an image of metadata, or being converted"),
        (flag(35), "it is a seed, an image of metadata, or being converted"),
    ],
    ids=[
        "balance",
        "relocation",
        *(f"replacement-{state}" for state in range(5)),
        "log",
        *(f"flag-{bit}" for bit in (2, 33, 35)),
    ],
)
def test_in_the_middle_of_something(tmp_path: Path, change: Callable[[Editor], None], expected: str) -> None:
    image = make(tmp_path / "image")
    assert reason(image) == ""
    change(Editor(image))
    for quiet in Quiet:
        assert reason(image, quiet) == expected


def test_a_paused_balance(tmp_path: Path) -> None:
    image = make(tmp_path / "image")
    with mounted(image, "btrfs") as root:
        (root / "file").write_bytes(os.urandom(60 * MIB))
        run(["sync", "--file-system", str(root)])
        run(["btrfs", "balance", "start", "--background", "--full-balance", str(root)])
        paused = run(["btrfs", "balance", "pause", str(root)], statuses=(0, 2))
        status = run(["btrfs", "balance", "status", str(root)], statuses=(0, 1))
        with frozen(root):
            view = copy_of(image, "view")
    assert paused is not None
    assert reason(view, Quiet.FROZEN) == (BALANCED if "paused" in status else "")
