"""Two disks become alike, and no more is sent than differs."""

import random
import subprocess
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.block.file import RawFile
from hotspare.block.qemu import QemuNbd, create_image
from hotspare.cancellation import Cancellation
from hotspare.errors import Interrupted, UsageError
from hotspare.replication.compare import bring_alike as module
from hotspare.replication.compare.bring_alike import CompareCounts, bring_alike, differing_runs
from hotspare.replication.compare.digests import BATCH, BLOCK, LocalHasher, digests_of
from hotspare.units import KIB, MIB
from tests.memory_disk import MemoryDisk


def alike(
    source: MemoryDisk,
    target: MemoryDisk,
    *,
    start: int = 0,
    on_progress: Callable[[CompareCounts], None] = lambda _counts: None,
    cancellation: Cancellation | None = None,
) -> CompareCounts:
    return bring_alike(
        source,
        target,
        LocalHasher(target),
        on_progress=on_progress,
        cancellation=cancellation or Cancellation(),
        start=start,
    )


blocks = st.lists(
    st.sampled_from(["same", "other", "zero here", "zero there", "zero"]), min_size=1, max_size=24
)


@given(blocks, st.integers(1, BLOCK))
def test_makes_alike_and_sends_what_differs(kinds: list[str], tail: int) -> None:
    dice = random.Random(len(kinds) * BLOCK + tail)
    here, there = bytearray(), bytearray()
    differing = sent = 0
    for number, kind in enumerate(kinds):
        size = tail if number == len(kinds) - 1 else BLOCK
        one, two = (dice.randbytes(8).ljust(size, b"x")[:size] for _ in range(2))
        one, two = (b"\1" + one[1:], b"\2" + two[1:])
        pair = {
            "same": (one, one),
            "other": (one, two),
            "zero here": (bytes(size), two),
            "zero there": (one, bytes(size)),
            "zero": (bytes(size), bytes(size)),
        }[kind]
        here += pair[0]
        there += pair[1]
        differing += size if pair[0] != pair[1] else 0
        sent += size if pair[0] != pair[1] and any(pair[0]) else 0
    source, target = MemoryDisk(here), MemoryDisk(there)

    counts = alike(source, target)

    assert target.data == source.data
    assert (counts.compared, counts.differing, counts.sent) == (len(here), differing, sent)
    assert alike(source, target).differing == 0


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from([0, 1, 2])), max_size=40),
    st.integers(0, BLOCK - 1),
)
def test_runs_cover_what_differs_and_nothing_else(pairs: list[tuple[int, int]], missing: int) -> None:
    digest = [bytes(32), b"a" * 32, b"b" * 32]
    here = b"".join(digest[one] for one, _ in pairs)
    there = b"".join(digest[other] for _, other in pairs)
    length = max(0, len(pairs) * BLOCK - missing)

    runs = list(differing_runs(here, there, length))

    covered = {at // BLOCK: zero for start, end, zero in runs for at in range(start, end, BLOCK)}
    assert covered == {number: one == 0 for number, (one, other) in enumerate(pairs) if one != other}
    assert all(start < end <= length and start % BLOCK == 0 for start, end, _ in runs)
    assert all(one[1] < other[0] or one[2] != other[2] for one, other in pairwise(runs))


def test_reads_nothing_that_is_known_to_be_zero() -> None:
    source, target = MemoryDisk(bytes(8 * MIB)), MemoryDisk(bytes(8 * MIB))
    source.data[5 * MIB] = 1
    alike(source, target)
    assert source.bytes_read <= BLOCK
    assert target.bytes_read == 0


def test_different_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot be compared"):
        alike(MemoryDisk(bytes(BLOCK)), MemoryDisk(bytes(2 * BLOCK)))


def test_goes_on_where_it_was_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_STEP", BATCH)
    source = MemoryDisk(random.Random(1).randbytes(6 * BATCH))
    target = MemoryDisk(bytes(6 * BATCH))
    cancellation = Cancellation()
    durable = []

    def stop_after_two(counts: CompareCounts) -> None:
        durable.append(counts.durable)
        if counts.compared >= 2 * BATCH:
            cancellation.cancel()

    with pytest.raises(Interrupted):
        alike(source, target, on_progress=stop_after_two, cancellation=cancellation)
    assert durable[-1] == 2 * BATCH
    assert target.data[: durable[-1]] == source.data[: durable[-1]]
    again = alike(source, target, start=durable[-1])

    assert target.data == source.data
    assert again.compared == 4 * BATCH
    assert again.sent <= 4 * BATCH


def test_a_short_block_has_a_digest_of_its_own() -> None:
    data = memoryview(b"x" * (BLOCK + 10))
    digests = digests_of(data)
    assert len(digests) == 64
    assert digests[:32] != digests[32:]


def make_alike(source: RawFile, server: QemuNbd) -> CompareCounts:
    with closing(server.connect()) as target, closing(LocalHasher(server.connect())) as theirs:
        return bring_alike(source, target, theirs, on_progress=lambda _: None, cancellation=Cancellation())


def test_files_and_images_become_alike_by_the_judgement_of_other_programs(tmp_path: Path) -> None:
    dice = random.Random(7)
    size = 24 * MIB + 4 * KIB
    raw, image = tmp_path / "source.raw", tmp_path / "target.qcow2"
    with RawFile.create(raw, size) as source:
        for _ in range(30):
            source.write(dice.randrange(size // MIB) * MIB + 512 * dice.randrange(100), dice.randbytes(9000))
        source.flush()
    create_image(image, "qcow2", size)
    with RawFile.open(raw, read_only=False) as source, QemuNbd(image, "qcow2", read_only=False) as server:
        make_alike(source, server)
        source.write(3 * MIB, dice.randbytes(100))
        source.write_zeroes(5 * MIB, MIB)
        counts = make_alike(source, server)
    assert 0 < counts.sent <= BLOCK
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(raw), str(image)]
    compared = subprocess.run(compare, capture_output=True, text=True, check=False)
    assert compared.returncode == 0, compared.stdout
