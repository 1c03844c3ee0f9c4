"""A disk image in memory with some bytes exchanged, for tests of maps on broken and hostile volumes."""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.ranges import Ranges
from hotspare.guest.unused.unused import UnusedBlocks


class Patched:
    """A ``BlockReader`` over bytes, some of which are overlaid by others."""

    def __init__(self, base: bytes, patches: Mapping[int, bytes] | None = None) -> None:
        self.base = base
        self.size = len(base)
        self.patches = dict(patches or {})
        self.bytes_read = 0

    def with_patches(self, patches: Mapping[int, bytes]) -> "Patched":
        return Patched(self.base, {**self.patches, **patches})

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, ExtentKind.DATA)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        end = offset + len(buffer)
        assert 0 <= offset <= end <= self.size
        self.bytes_read += len(buffer)
        buffer[:] = self.base[offset:end]
        for at, octets in self.patches.items():
            first, last = max(at, offset), min(at + len(octets), end)
            if first < last:
                buffer[first - offset : last - offset] = octets[first - at : last - at]

    def read(self, offset: int, length: int) -> bytes:
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def clone(self) -> Self:
        raise NotImplementedError

    def close(self) -> None:
        pass


def check_sane(unused: UnusedBlocks, size: int) -> None:
    """Fail if a map claims what no map can."""
    assert 0 < unused.size <= size
    for ranges in (unused.free, unused.scratch):
        assert Ranges.of(ranges.bounds) == ranges
        assert not len(ranges - Ranges.whole(unused.size))
    assert not len(unused.free & unused.scratch)


def kept_by_partclone(kind: str, image: Path) -> Ranges:
    """Ask partclone which bytes of a file system it would copy."""
    log, domain = image.with_suffix(".partclone"), image.with_suffix(".domain")
    command = [f"partclone.{kind}", "-D", "-q", "-s", str(image), "-o", str(domain), "-L", str(log)]
    domain.unlink(missing_ok=True)
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    rows = [line.split() for line in domain.read_text().splitlines() if line.startswith("0x")]
    found = [(int(row[0], 16), int(row[1], 16)) for row in rows if len(row) == 3 and row[2] == "+"]
    assert found
    return Ranges.of((at, at + length) for at, length in found)


@contextmanager
def served(command: Sequence[str]) -> Iterator[Path]:
    """Mount with a FUSE program that stays in the foreground; it has ended when this ends."""
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([*command, folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program,
    ):
        deadline = time.monotonic() + 30
        while not Path(folder).is_mount():
            assert program.poll() is None, f"{command} ended"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)
            assert program.wait(60) == 0
