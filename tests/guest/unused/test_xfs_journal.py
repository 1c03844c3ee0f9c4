"""Whether XFS stands still: unmounted, frozen, missed by a freeze, idle; by its journal."""

import hashlib
import os
import re
import time
from itertools import pairwise
from pathlib import Path

import pytest

from hotspare.guest.unused.unused import Quiet
from hotspare.units import KIB, MIB
from tests.guest.unused.ext_images import frozen, peek, poke
from tests.guest.unused.garbage import copy_of, fill, run
from tests.guest.unused.garbage import facts_below as facts
from tests.guest.unused.live import Writer, clone, cloning, mounted
from tests.guest.unused.xfs_images import asked, find, make, make_filled, reason

MISSED = "it is mounted, and missed by the freeze: "
CHANGES = MISSED + "its journal holds changes"
BUSY = {CHANGES, MISSED + "its journal is not empty"}
"""Which of them depends on how much was written since the journal was last emptied."""
NOT_UNMOUNTED = "its journal is not empty: it was not unmounted"


def prove_replayed(view: Path, files: dict[str, str], quiet: Quiet = Quiet.FROZEN) -> None:
    """Fill what is free with garbage; then mount, which replays the journal, and look for the files."""
    unused = find(view, quiet)
    assert unused.free.total > 100 * MIB
    fill(view, unused.free)
    with mounted(view, "xfs", "nouuid") as root:
        for name, digest in files.items():
            assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest, name
    run(["xfs_repair", "-n", "-f", str(view)])
    again = find(view)
    assert not len(unused.free - again.free), "something is in use now that was called free"


@pytest.mark.parametrize(
    "options", ["", "-l su=262144", "-l version=2,su=32768 -s size=4096", "-m rmapbt=1 -b size=1024"]
)
def test_frozen_under_load(tmp_path: Path, options: str) -> None:
    image = make(tmp_path / "image", options)
    with mounted(image, "xfs") as root, Writer(root) as writer:
        for number in range(2):
            time.sleep(0.15)
            with frozen(root):
                files = writer.snapshot()
                view = copy_of(image, f"view{number}")
            assert reason(view, Quiet.OFFLINE) == NOT_UNMOUNTED
            assert "<DIRTY>" in run(["xfs_logprint", "-t", str(view)])
            assert files
            prove_replayed(view, files)
            view.unlink()
    assert reason(image) == ""
    assert "<CLEAN>" in run(["xfs_logprint", "-t", str(image)])


def test_not_frozen(tmp_path: Path) -> None:
    """Whenever there is a map of one that is mounted, it holds."""
    with cloning(tmp_path) as folder:
        image = make(folder / "image")
        told = []
        with mounted(image, "xfs") as root:
            writer = Writer(root)
            with writer:
                for _ in range(6):
                    time.sleep(0.2)
                    before = writer.snapshot()
                    view = clone(image, "view")
                    after = writer.snapshot()
                    assert reason(view, Quiet.OFFLINE) == NOT_UNMOUNTED
                    told.append(reason(view, Quiet.FROZEN))
                    if not told[-1]:
                        prove_replayed(
                            view, {name: sum_ for name, sum_ in before.items() if after.get(name) == sum_}
                        )
            assert sum(one in BUSY for one in told) >= 4
            assert all(why.startswith((MISSED, "its journal makes no sense")) for why in told if why)
            files = writer.flushed
            assert reason(clone(image, "busy"), Quiet.FROZEN) in BUSY
            with frozen(root):
                pass
            idle = clone(image, "idle")  # thawed, and nothing was written since
            assert reason(idle, Quiet.OFFLINE) == NOT_UNMOUNTED
            prove_replayed(idle, files)
            (root / "one more").touch()
            run(["sync", "--file-system", str(root)])
            assert reason(clone(image, "idle no more"), Quiet.FROZEN) in BUSY


def test_deleted_and_still_open(tmp_path: Path) -> None:
    """The next mount frees what they own, after it has read what is marked as in use."""
    image = make(tmp_path / "image")
    with mounted(image, "xfs") as root, (root / "open").open("wb") as file:
        for number in range(300):
            os.pwrite(file.fileno(), b"o" * 4 * KIB, number * 8 * KIB)
        os.fsync(file.fileno())
        (root / "open").unlink()
        with frozen(root):
            view = copy_of(image, "view")
    unused = find(view, Quiet.FROZEN)
    prove_replayed(view, {})
    assert find(view).free.total > unused.free.total + MIB


def test_mounted_read_only(tmp_path: Path) -> None:
    image = make_filled(tmp_path / "image")
    with mounted(image, "xfs", "ro"):
        assert reason(image) == reason(image, Quiet.FROZEN) == ""


def test_round_the_journal(tmp_path: Path) -> None:
    """The head is found wherever it is, and so is the last record when it goes round the end."""
    image = make(tmp_path / "image", "-b size=4096 -l size=1368b --unsupported")
    heads = []
    with mounted(image, "xfs") as root:
        folder = root / "folder"
        for turn in range(16):
            folder.mkdir()
            for number in range(300 + 5 * turn):
                (folder / f"{number}").symlink_to("x" * 900)
            run(["sync", "--file-system", str(root)])
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
            with frozen(root):
                told = run(["xfs_logprint", "-t", str(image)])
                found = reason(image, Quiet.FROZEN)
            heads.append(int(re.findall(r"head: (\d+)", told)[0]))
            assert (found, turn) == ("", turn)
    assert sum(one > other for one, other in pairwise(heads)) >= 1, "never went round"
    assert reason(image) == ""


def log_of(image: Path) -> tuple[int, int, int]:
    """Give where the journal starts and how long it is, in bytes, and its head, in basic blocks."""
    size, group_blocks, bits, start, blocks = asked(
        image, "sb 0", "print blocksize agblocks agblklog logstart logblocks"
    )
    told = run(["xfs_logprint", "-t", str(image)])
    at = ((start >> bits) * group_blocks + (start & ((1 << bits) - 1))) * size
    return at, blocks * size, int(re.findall(r"head: (\d+)", told)[0])


@pytest.fixture(scope="module")
def halted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """An image that is frozen, and the place of the head of its journal."""
    image = make(tmp_path_factory.mktemp("xfs") / "image")
    with mounted(image, "xfs") as root:
        (root / "file").write_bytes(b"x" * MIB)
        with frozen(root):
            halted = copy_of(image, "halted")
    start, _, head = log_of(halted)
    return halted, start + head * 512


@pytest.mark.parametrize(
    ("blocks_back", "within", "data"),
    [
        (2, 40, b"\x07"),  # number of operations
        (2, 304, b"other"),  # UUID
        (2, 14, b"\x03"),  # length
        (2, 24, b"\x09"),  # tail
        (2, 16, b"\x09"),  # place
        (2, 0, b"\x01"),  # magic number
        (1, 100, b"?"),  # data
        (4, 100, b"?"),  # header of the record before
        (3, 100, b"?"),  # its data
        (0, 3, b"\x01"),  # after the head, a block of the newer cycle
        (-100, 3, b"\x01"),
        (6, 3, b"\x07"),
    ],
)
def test_a_journal_that_makes_no_sense(
    halted: tuple[Path, int], blocks_back: int, within: int, data: bytes
) -> None:
    image, head = halted
    assert reason(image, Quiet.FROZEN) == ""
    at = head - blocks_back * 512 + within
    found = peek(image, at, len(data))
    assert found != data
    try:
        poke(image, at, data)
        for quiet in Quiet:
            assert reason(image, quiet).startswith(("its journal", MISSED))
    finally:
        poke(image, at, found)


def test_an_empty_journal(tmp_path: Path) -> None:
    image = make(tmp_path / "image")
    start, size, _ = log_of(image)
    poke(image, start, bytes(4 * KIB))
    assert reason(image) == "its journal makes no sense (nothing was ever written)"
    poke(image, start, os.urandom(size // 16) * 16)
    assert reason(image) == "its journal makes no sense (cycles)"


def test_the_unmount_record_is_not_believed_before_the_head(tmp_path: Path) -> None:
    """A block after it means that it is not the last."""
    image = make_filled(tmp_path / "image")
    start, _, head = log_of(image)
    poke(image, start + head * 512, b"\x00\x00\x00\x01")
    assert reason(image) == NOT_UNMOUNTED
    assert reason(image, Quiet.FROZEN).startswith(("its journal makes no sense", MISSED))


def test_proof_of_the_proof(tmp_path: Path) -> None:
    """Of one that is busy, the map on the disk is wrong: that is why all of it is kept."""
    with cloning(tmp_path) as folder:
        image = make(folder / "image")
        with mounted(image, "xfs") as root:
            run(["sync", "--file-system", str(root)])
            unused = find(clone(image, "early"), Quiet.FROZEN)
            for number in range(50):
                with (root / f"{number}").open("wb") as file:
                    file.write(os.urandom(100 * KIB))
                    os.fsync(file.fileno())
            view = clone(image, "view")
            wanted = facts(root)
        assert reason(view, Quiet.FROZEN) == CHANGES
        fill(view, unused.free)
        with mounted(view, "xfs", "nouuid") as root:
            assert facts(root) != wanted
