"""Swap spaces made by mkswap."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.block.file import RawFile
from hotspare.block.ranges import Ranges
from hotspare.guest.unused.swap import swap_unused
from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.units import KIB, MIB
from tests.memory_disk import MemoryDisk

SIZE = 2 * MIB
PAGES = [4096, 8192, 16384, 32768, 65536]


def made(path: Path, *options: str, size: int = SIZE) -> Path:
    path.write_bytes(b"")
    with path.open("r+b") as file:
        file.truncate(size)
    subprocess.run(["mkswap", *options, str(path)], check=True, capture_output=True)
    path.chmod(0o600)
    return path


def unused(content: bytes | bytearray, quiet: Quiet = Quiet.OFFLINE) -> UnusedBlocks:
    return swap_unused(MemoryDisk(content), quiet)


def reason_to_keep(content: bytes | bytearray) -> str:
    with pytest.raises(KeepAll) as caught:
        unused(content)
    return caught.value.reason


@pytest.fixture
def swap(tmp_path: Path) -> bytearray:
    return bytearray(made(tmp_path / "swap").read_bytes())


@pytest.mark.parametrize("quiet", Quiet)
@pytest.mark.parametrize("page", PAGES)
def test_all_but_the_first_page_is_scratch(tmp_path: Path, page: int, quiet: Quiet) -> None:
    with RawFile.open(made(tmp_path / "swap", "-p", str(page))) as volume:
        found = swap_unused(volume, quiet)

    assert found.file_system == "swap"
    assert found.size == SIZE
    assert not len(found.free)
    assert found.scratch == Ranges.of([(64 * KIB, SIZE)])


def test_what_the_volume_has_beyond_is_kept(swap: bytearray) -> None:
    assert unused(swap + bytes(3 * KIB)).scratch == Ranges.of([(64 * KIB, SIZE)])


@pytest.mark.skipif(sys.byteorder != "little", reason="mkswap writes the other order here")
def test_the_other_byte_order(tmp_path: Path) -> None:
    swap = made(tmp_path / "swap", "-e", "big").read_bytes() if _has_endianness() else None
    if swap is None:
        swap = bytes(_swapped(bytearray(made(tmp_path / "swap").read_bytes())))

    assert unused(swap).scratch == Ranges.of([(64 * KIB, SIZE)])


def _has_endianness() -> bool:
    return b"endianness" in subprocess.run(["mkswap", "--help"], check=True, capture_output=True).stdout


def _swapped(swap: bytearray) -> bytearray:
    for at in (1024, 1028, 1032):
        swap[at : at + 4] = swap[at : at + 4][::-1]
    return swap


def test_a_swap_space_that_is_too_small_for_scratch(tmp_path: Path) -> None:
    content = made(tmp_path / "swap", size=48 * KIB).read_bytes()

    assert not len(unused(content).scratch)


@pytest.mark.parametrize(
    "magic",
    [b"S1SUSPEND\0", b"S2SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001", bytes.fromhex("edc302e99856e50c")],
)
@pytest.mark.parametrize("page", PAGES)
def test_a_hibernated_system_is_kept(swap: bytearray, magic: bytes, page: int) -> None:
    swap[page - 10 : page - 10 + len(magic)] = magic

    assert "hibernated" in reason_to_keep(swap)


def test_the_kernel_writes_the_signature_of_swap_before_its_own_when_it_hibernates(swap: bytearray) -> None:
    swap[4076:4096] = b"SWAPSPACE2S1SUSPEND\0"

    assert "hibernated" in reason_to_keep(swap)


@pytest.mark.parametrize(
    ("at", "content", "reason"),
    [
        (1024, b"\2\0\0\0", "version"),
        (1028, (SIZE // 4096).to_bytes(4, "little"), "size"),
        (1028, b"\0\0\0\0", "size"),
        (1028, b"\xff\xff\xff\xff", "size"),
        (1032, b"\xff\xff\0\0", "bad pages"),
        (4086, b"SWAP-SPACE", "old kind"),
        (4086, bytes(10), "no signature"),
        (8182, b"SWAPSPACE2", "two sizes"),
        (1048, bytes(32) + b"\x53\xef", "ext"),
        (0, b"XFSB\0\0\x10\0", "xfs"),
    ],
)
def test_any_doubt_keeps_everything(swap: bytearray, at: int, content: bytes, reason: str) -> None:
    swap[at : at + len(content)] = content

    assert reason in reason_to_keep(swap)


def test_a_header_that_is_cut_off(swap: bytearray) -> None:
    for size in (0, 1, 1024, 4085, 4095):
        reason_to_keep(swap[:size])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1100), st.binary(min_size=1, max_size=64))
def test_a_damaged_header_never_reaches_outside(at: int, garbage: bytes) -> None:
    swap = bytearray(256 * KIB)
    swap[1024:1036] = b"\1\0\0\0\x3f\0\0\0\0\0\0\0"
    swap[4086:4096] = b"SWAPSPACE2"
    swap[at : at + len(garbage)] = garbage
    try:
        found = unused(swap)
    except KeepAll:
        return
    assert found.scratch.total <= len(swap) - 64 * KIB
    assert found.scratch.within(0, 64 * KIB).total == 0
