"""Whether an ext2/3/4 file system stands still: mounted, frozen, missed by a freeze, crashed, in trouble."""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hotspare.guest.unused.unused import Quiet
from hotspare.units import KIB, MIB
from tests.guest.unused.ext_images import (
    find,
    free_by_dumpe2fs,
    frozen,
    make,
    peek,
    poke,
    populate,
    reason,
    set_field,
)
from tests.guest.unused.garbage import by_mount, copy_of, facts_of, mounted, prove_unused, run

MISSED = "it is mounted, and was missed by the freeze"
MARKED = "it is marked as mounted, perhaps by another machine"
CRASHED = "its journal was not replayed: it was not unmounted cleanly"
WITH_JOURNAL = {
    "ext4": "",
    "ext3": "-O ^extent,^64bit,^metadata_csum,^flex_bg,^huge_file",
    "uninit_bg": "-O ^metadata_csum,uninit_bg",
    "bigalloc": "-b 4096 -O bigalloc -C 16384",
    "orphan_file": "-O orphan_file",
    "fast_commit": "-O fast_commit,inline_data",
    "mmp": "-O mmp",
}


class Writer:
    """Writes, flushes and deletes files in a thread of its own until it is told to stop."""

    def __init__(self, root: Path) -> None:
        self.acknowledged: list[str] = []
        """Names of files that are to stay and were flushed."""
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def wait_for(self, count: int) -> None:
        while len(self.acknowledged) < count:
            assert self._thread.is_alive()
            self._over.wait(0.01)

    def _write(self) -> None:
        dice = random.Random(3)
        for number in range(100_000):
            path = Path(self._root, f"written{number}")
            with path.open("wb") as file:
                file.write(dice.randbytes(dice.randrange(1, 60 * KIB)))
                file.flush()
                if number % 3 == 0:
                    os.fsync(file.fileno())
            if number % 3 == 0:
                self.acknowledged.append(path.name)
            if number % 3 == 2:
                path.unlink()
            if number > 600:
                Path(self._root, f"written{number - number % 3 - 540}").unlink(missing_ok=True)
            if self._over.is_set():
                return


@contextmanager
def writing(root: Path) -> Iterator[Writer]:
    writer = Writer(root)
    writer._thread.start()
    try:
        writer.wait_for(40)
        yield writer
    finally:
        writer._over.set()
        writer._thread.join()


@pytest.mark.parametrize("name", sorted(WITH_JOURNAL))
def test_frozen_under_load(tmp_path: Path, name: str) -> None:
    image = make(tmp_path / "image", f"-b 1024 {WITH_JOURNAL[name]}")
    with mounted(image, "ext4") as root, writing(root) as writer:
        with frozen(root):
            done = list(writer.acknowledged)
            view = copy_of(image, "view")
            facts = {path: facts_of(Path(root, path)) for path in done}
        live = copy_of(image, "live")
    unused = find(view, Quiet.FROZEN)
    assert (unused.free, unused.free.total) == free_by_dumpe2fs(view)
    found = prove_unused(view, unused, listing=by_mount("ext4"), fsck=["e2fsck", "-fn"])
    assert {path: found[path] for path in done} == facts
    assert reason(live, Quiet.FROZEN) == MISSED
    assert reason(live, Quiet.OFFLINE) == CRASHED
    assert reason(view, Quiet.OFFLINE) == (MARKED if name == "mmp" else "")
    assert reason(image) == ""  # unmounted since


@pytest.mark.parametrize("options", ["", "-O orphan_file", "-O ^extent,^64bit"])
def test_files_that_are_deleted_and_still_open_do_no_harm(tmp_path: Path, options: str) -> None:
    """The next mount frees what they own, after it has read what is marked as in use."""
    image = make(tmp_path / "image", f"-b 1024 {options}")
    with mounted(image, "ext4") as root:
        populate(root)
        kept = {path.name: facts_of(path) for path in root.iterdir() if path.is_file()}
        with Path(root, "open").open("wb") as file:
            for number in range(600):
                os.pwrite(file.fileno(), b"o" * KIB, number * 2 * KIB)
            os.fsync(file.fileno())
            Path(root, "open").unlink()
            with frozen(root):
                view = copy_of(image, "view")
    unused = find(view, Quiet.FROZEN)
    assert (unused.free, unused.free.total) == free_by_dumpe2fs(view)
    prove_unused(view, unused, listing=by_mount("ext4"), fsck=None)
    with mounted(view, "ext4") as root:
        assert {name: facts_of(Path(root, name)) for name in kept} == kept
    run(["e2fsck", "-fn", str(view)])
    assert find(view).free.total > unused.free.total + 500 * KIB


@pytest.mark.parametrize("kind", ["ext2", "ext4"])
def test_without_a_journal(tmp_path: Path, kind: str) -> None:
    image = make(tmp_path / "image", "-O ^has_journal", kind=kind)
    with mounted(image, "ext4") as root:
        populate(root)
        with frozen(root):
            view = copy_of(image, "view")
    assert (
        reason(view, Quiet.FROZEN) == "it is mounted without a journal, and nothing shows that it was frozen"
    )
    assert reason(view, Quiet.OFFLINE) == "it has no journal, and was not unmounted cleanly"
    assert reason(image, Quiet.FROZEN) == ""


def test_mounted_read_only_it_stands_still(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "")
    with mounted(image, "ext4", "ro"):
        assert reason(image, Quiet.FROZEN) == ""


def test_with_its_journal_on_another_device(tmp_path: Path) -> None:
    journal = make(tmp_path / "journal", "-b 4096 -O journal_dev")
    image = tmp_path / "image"
    device = run(["losetup", "--find", "--show", str(journal)]).strip()
    try:
        make(image, f"-b 4096 -J device={device}")
        with mounted(image, "ext4") as root:
            populate(root)
            live = copy_of(image, "live")
            with frozen(root):
                view = copy_of(image, "view")
        assert reason(live, Quiet.FROZEN) == MISSED
        for still in (image, view):
            unused = find(still, Quiet.FROZEN)
            assert (unused.free, unused.free.total) == free_by_dumpe2fs(still)
            prove_unused(still, unused, listing=by_mount("ext4"), fsck=["e2fsck", "-fn", "-j", device])
    finally:
        run(["losetup", "--detach", device])
    assert reason(journal) == "it is the journal of another file system"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("state", 3, "the kernel has found errors in it, and it was not checked since"),
        ("error_count", 1, "the kernel has found errors in it, and it was not checked since"),
        ("state", 0, "it is marked as not clean, and has to be checked"),
        ("state", 5, "it is marked as not clean, and has to be checked"),
    ],
)
def test_in_trouble(tmp_path: Path, field: str, value: int, expected: str) -> None:
    image = make(tmp_path / "image", "")
    set_field(image, field, value)
    for quiet in Quiet:
        assert reason(image, quiet) == expected


def journal_of(image: Path) -> int:
    """Give where the journal starts, in bytes."""
    return int(run(["debugfs", "-R", "blocks <8>", str(image)]).split()[0]) * KIB


@pytest.mark.parametrize("options", ["", "-O ^extent,^64bit"])
def test_a_journal_that_holds_something_is_not_trusted_to_be_needless(tmp_path: Path, options: str) -> None:
    image = make(tmp_path / "image", f"-b 1024 {options}")
    with mounted(image, "ext4") as root:
        Path(root, "file").write_bytes(b"x" * MIB)
        run(["sync", "--file-system", str(root)])
        live = copy_of(image, "live")
    run(["debugfs", "-w", "-R", "feature -needs_recovery", str(live)])
    assert reason(live) == "its journal is not empty"
    journal = journal_of(image)
    poke(image, journal + 0x20, b"\xff\xff\xff\xfb")
    assert reason(image) == "its journal has noted an error, and it was not checked since"
    poke(image, journal, b"\0")
    assert reason(image) == "its journal makes no sense"
    set_field(image, "journal_inum", 13)
    assert reason(image).startswith("its journal cannot be read: ")


@pytest.mark.parametrize(
    ("sequence", "offline", "frozen_too"),
    [
        (0xE24D4D50, "it is being checked, or a check of it was broken off", True),
        (0x11223344, MARKED, False),
    ],
)
def test_guarded_against_multiple_mounts(
    tmp_path: Path, sequence: int, offline: str, frozen_too: bool
) -> None:
    image = make(tmp_path / "image", "-b 1024 -O mmp,^metadata_csum")
    assert reason(image) == ""
    guard = int.from_bytes(peek(image, 1024 + 0x168, 8), "little") * KIB
    poke(image, guard + 4, sequence.to_bytes(4, "little"))
    assert reason(image) == offline
    assert reason(image, Quiet.FROZEN) == (offline if frozen_too else "")
    poke(image, guard, b"!")
    assert reason(image, Quiet.FROZEN) == "its mount guard makes no sense"
