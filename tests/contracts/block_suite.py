"""What every disk must do that can be read or written.

The test module of an implementation subclasses ``ReaderSuite`` and gives ``reader``, a disk that holds
``CONTENT``; and ``WriterSuite`` with ``writer`` on such a disk and ``read_back``, which gives all its bytes
as somebody else sees them.
"""

import random
import threading
from array import array
from collections.abc import Callable
from itertools import pairwise

import pytest

from hotspare.block.device import BlockReader, BlockWriter
from hotspare.block.extent import ExtentKind
from hotspare.units import KIB, MIB

ReadBack = Callable[[], bytes]

_RANDOM = random.Random(20)
CONTENT = b"".join(
    [
        _RANDOM.randbytes(1 * MIB),
        bytes(2 * MIB),
        _RANDOM.randbytes(64 * KIB),
        bytes(192 * KIB),
        _RANDOM.randbytes(3 * MIB),
        bytes(1 * MIB),
        _RANDOM.randbytes(512),
    ]
)
SIZE = len(CONTENT)

RANGES = [
    (0, SIZE),
    (0, 1),
    (SIZE - 1, 1),
    (511, 2),
    (1 * MIB - 3, 7),
    (1 * MIB, 2 * MIB),
    (123_457, 5 * MIB + 11),
    (SIZE - 700, 700),
]


def read(reader: BlockReader, offset: int, length: int) -> bytes:
    buffer = bytearray(b"?" * length)
    reader.read_into(offset, memoryview(buffer))
    return bytes(buffer)


class ReaderSuite:
    def test_knows_its_size(self, reader: BlockReader) -> None:
        assert reader.size == SIZE

    @pytest.mark.parametrize(("offset", "length"), RANGES)
    def test_reads_what_is_there(self, reader: BlockReader, offset: int, length: int) -> None:
        assert read(reader, offset, length) == CONTENT[offset : offset + length]

    def test_reads_nothing(self, reader: BlockReader) -> None:
        assert read(reader, 4096, 0) == b""

    @pytest.mark.parametrize(("offset", "length"), RANGES)
    def test_extents_cover_the_range_exactly(self, reader: BlockReader, offset: int, length: int) -> None:
        extents = list(reader.extents(offset, length))

        assert extents[0].offset == offset
        assert extents[-1].end == offset + length
        assert all(extent.length > 0 for extent in extents)
        assert all(before.end == after.offset for before, after in pairwise(extents))

    def test_zero_extents_are_zero(self, reader: BlockReader) -> None:
        for extent in reader.extents(0, SIZE):
            if extent.kind is ExtentKind.ZERO:
                assert not any(CONTENT[extent.offset : extent.end])

    def test_an_empty_range_has_no_extents(self, reader: BlockReader) -> None:
        assert list(reader.extents(4096, 0)) == []

    def test_clones_read_at_the_same_time(self, reader: BlockReader) -> None:
        wrong: list[int] = []

        def compare(clone: BlockReader, seed: int) -> None:
            choose = random.Random(seed)
            for _ in range(40):
                offset = choose.randrange(SIZE)
                length = min(choose.randrange(300_000), SIZE - offset)
                if read(clone, offset, length) != CONTENT[offset : offset + length]:
                    wrong.append(offset)

        clones = [reader.clone() for _ in range(3)]
        threads = [threading.Thread(target=compare, args=(clone, n)) for n, clone in enumerate(clones)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for clone in clones:
            clone.close()

        assert wrong == []

    def test_a_clone_outlives_its_original(self, reader: BlockReader) -> None:
        clone = reader.clone()
        reader.close()
        reader.close()

        assert read(clone, 77, 1000) == CONTENT[77:1077]
        clone.close()


class WriterSuite:
    def test_writes_anywhere(self, writer: BlockWriter, read_back: ReadBack) -> None:
        expected = bytearray(CONTENT)
        for number, (offset, length) in enumerate(RANGES):
            data = bytes([number + 1]) * length
            expected[offset : offset + length] = data
            writer.write(offset, data)
        writer.flush()

        assert read_back() == expected

    def test_the_last_of_overlapping_writes_wins(self, writer: BlockWriter, read_back: ReadBack) -> None:
        expected = bytearray(CONTENT)
        for number in range(1, 60):
            offset, data = number * 1000, bytes([number]) * (100_000 + number)
            expected[offset : offset + len(data)] = data
            writer.write(offset, data)
        writer.flush()

        assert read_back() == expected

    def test_takes_any_buffer_and_lets_go_of_it(self, writer: BlockWriter, read_back: ReadBack) -> None:
        buffer = bytearray(b"first" * 200_000)
        writer.write(0, buffer)
        buffer[:] = bytes(len(buffer))
        writer.write(2_000_000, array("I", range(1000)))
        writer.write(3_000_000, memoryview(b"third"))
        writer.flush()

        back = read_back()
        assert back[:1_000_000] == b"first" * 200_000
        assert back[2_000_000:2_004_000] == array("I", range(1000)).tobytes()
        assert back[3_000_000:3_000_005] == b"third"

    @pytest.mark.parametrize(("offset", "length"), RANGES)
    def test_zeroes_exactly_the_range(
        self, writer: BlockWriter, read_back: ReadBack, offset: int, length: int
    ) -> None:
        writer.write(0, b"x" * SIZE)
        writer.write_zeroes(offset, length)
        writer.flush()

        assert read_back() == b"x" * offset + bytes(length) + b"x" * (SIZE - offset - length)

    def test_nothing_to_write_is_no_error(self, writer: BlockWriter, read_back: ReadBack) -> None:
        writer.write(512, b"")
        writer.write_zeroes(512, 0)
        writer.flush()

        assert read_back() == CONTENT

    def test_flush_covers_clones_even_closed_ones(self, writer: BlockWriter, read_back: ReadBack) -> None:
        open_clone, closed_clone = writer.clone(), writer.clone()
        open_clone.write(0, b"a" * MIB)
        closed_clone.write(2 * MIB, b"b" * MIB)
        closed_clone.close()
        writer.flush()

        assert read_back() == b"a" * MIB + CONTENT[MIB : 2 * MIB] + b"b" * MIB + CONTENT[3 * MIB :]
        open_clone.close()
