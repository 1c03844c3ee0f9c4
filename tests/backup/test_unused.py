"""What no file system needs is left out, and nothing else ever is: a disk whose blocks come and go."""

import random
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.backup.content import store_content
from hotspare.backup.plan import plan_transfer
from hotspare.backup.transfer import transfer_disk
from hotspare.backup.unused import Unused
from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.ranges import NOTHING, Ranges, blank
from hotspare.errors import RepositoryDamaged
from hotspare.repository.disk_map import DiskMap
from hotspare.repository.left_out import decode_ranges, encode_ranges
from hotspare.repository.point import PointContent
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.units import KIB
from tests.memory_disk import MemoryDisk

BLOCK = 4 * KIB
CHUNK = 64 * KIB
BLOCKS = 100
"""The last chunk is a short one."""
SIZE = BLOCKS * BLOCK

blocks = st.sets(st.integers(0, BLOCKS - 1))


def ranges_of(blocks: set[int]) -> Ranges:
    return Ranges.of((block * BLOCK, (block + 1) * BLOCK) for block in blocks)


def extents_of(blocks: set[int], kinds: dict[int, ExtentKind]) -> Iterator[Extent]:
    for block in sorted(blocks):
        yield Extent(block * BLOCK, BLOCK, kinds[block])


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder: Path = tmp_path_factory.mktemp("repository")
    return Repository.create(LocalBackend(folder), "secret", chunk_size=CHUNK)


class Guest:
    """A disk of which the used blocks are known, and the platform's record of what changed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = MemoryDisk(bytearray(self.random.randbytes(SIZE)))
        self.used = set(range(BLOCKS))
        self.changed = set(range(BLOCKS))

    def write(self, blocks: set[int]) -> None:
        for block in blocks:
            zero = self.random.random() < 0.2
            data = bytes(BLOCK) if zero else self.random.randbytes(BLOCK)
            self.disk.data[block * BLOCK : (block + 1) * BLOCK] = data
        self.changed |= blocks

    def kinds(self) -> dict[int, ExtentKind]:
        """Tell some of the zero blocks, as platforms do."""
        return {
            block: ExtentKind.ZERO
            if not any(self.disk.data[block * BLOCK : (block + 1) * BLOCK]) and self.random.random() < 0.5
            else ExtentKind.DATA
            for block in range(BLOCKS)
        }


class Chain:
    """Backups of a guest, each upon the one before."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.left_out = NOTHING
        self.root = b""
        self.read = 0

    def back_up(self, guest: Guest, *, skip: bool = True) -> bytearray:
        """Back up, and give what the restore point holds."""
        unused = Unused(ranges_of(set(range(BLOCKS)) - guest.used) if skip else NOTHING, self.left_out)
        plan = plan_transfer(
            unused.extents(extents_of(guest.changed, guest.kinds()), SIZE, CHUNK), SIZE, CHUNK
        )
        parent: DiskMap | None = None
        if self.root:
            parent = self.repository.disk(PointContent(name="vda", size=SIZE, root=self.root)).map
        with self.repository.writer() as writer:
            if parent:
                writer.keep_inherited(parent, self.repository.reader())
            self.root, counts = transfer_disk(
                guest.disk, writer, plan, parent, CHUNK, lambda: None, lambda _: None, unused=unused.now
            )
            writer.flush()
        self.repository.refresh_index()
        self.read = counts.read
        self.left_out = unused.after(plan, CHUNK)
        guest.changed.clear()
        content = bytearray(SIZE)
        self.repository.disk(PointContent(name="vda", size=SIZE, root=self.root)).read_into(
            0, memoryview(content)
        )
        return content


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(st.tuples(blocks, blocks, st.booleans()), min_size=1, max_size=5),
)
def test_what_is_used_is_always_there(
    repository: Repository, seed: int, steps: list[tuple[set[int], set[int], bool]]
) -> None:
    """Blocks come into use without being written, as a file system that replays a journal may have it."""
    guest, chain = Guest(seed), Chain(repository)
    for written, used, skip in steps:
        guest.write(written)
        guest.used = used

        content = chain.back_up(guest, skip=skip)

        expected = bytearray(guest.disk.data)
        blank(chain.left_out, 0, memoryview(expected))
        assert content == expected, "the list says exactly where the point differs from the disk"
        kept = ranges_of(used) if skip else Ranges.whole(SIZE)
        assert (chain.left_out & kept).total == 0


def test_unused_chunks_are_not_read(repository: Repository) -> None:
    guest, chain = Guest(1), Chain(repository)
    guest.used = set(range(8))

    chain.back_up(guest)

    assert chain.read == CHUNK
    assert chain.left_out == ranges_of(set(range(8, BLOCKS)))


def test_what_was_deleted_since_is_given_up_unread(repository: Repository) -> None:
    guest, chain = Guest(2), Chain(repository)
    chain.back_up(guest)
    guest.used = set(range(20))

    content = chain.back_up(guest)

    assert chain.read == 0
    assert content == guest.disk.data[: 32 * BLOCK] + bytes(SIZE - 32 * BLOCK)


def test_leaving_out_no_longer_reads_what_was_left_out(repository: Repository) -> None:
    guest, chain = Guest(3), Chain(repository)
    guest.used = set(range(50))
    chain.back_up(guest)

    content = chain.back_up(guest, skip=False)

    assert content == guest.disk.data
    assert chain.left_out == NOTHING
    assert chain.read == SIZE - 3 * CHUNK


def test_nothing_to_leave_out_changes_nothing() -> None:
    changed = [Extent(0, 100, ExtentKind.DATA), Extent(200, 5, ExtentKind.ZERO)]

    assert list(Unused(NOTHING).extents(iter(changed), SIZE, CHUNK)) == changed


@given(blocks, st.integers(0, 3))
def test_the_list_in_the_repository(blocks: set[int], shift: int) -> None:
    ranges = ranges_of(blocks).moved(shift)

    assert decode_ranges(encode_ranges(ranges), SIZE + 3) == ranges


@given(st.lists(st.integers(0, 2**64 - 1), max_size=9), st.binary(max_size=15))
def test_a_list_that_is_none(numbers: list[int], rest: bytes) -> None:
    data = array("Q", numbers).tobytes() + rest
    try:
        found = decode_ranges(data, SIZE)
    except RepositoryDamaged:
        return
    assert encode_ranges(found) == data
    assert (found - Ranges.whole(SIZE)).total == 0


def test_a_list_is_stored_as_an_extra(repository: Repository) -> None:
    starts = np.arange(0, 40_000 * BLOCK, 2 * BLOCK, dtype=np.int64)
    ranges = Ranges(np.column_stack((starts, starts + BLOCK)))
    with repository.writer() as writer:
        stored = store_content(repository, writer, "unused/vda", encode_ranges(ranges), None)
        writer.flush()
    repository.refresh_index()
    content = bytearray(stored.size)
    repository.disk(stored).read_into(0, memoryview(content))

    assert decode_ranges(bytes(content), 40_000 * BLOCK) == ranges
    assert stored.bytes_stored < stored.size / 50
