"""Disks of guests that mean harm, or are broken: an answer in bounded time, and nobody's bytes unused."""

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.guest.volumes.hostile import SIZE, checked
from tests.guest.volumes.images import image, read, run, sfdisk
from tests.memory_disk import MemoryDisk

fuzzing = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Give disks of 4 MiB with a valid table each."""
    folder = tmp_path_factory.mktemp("tables")
    sfdisk(image(folder / "dos", SIZE), "label: dos\nstart=64, size=512\nstart=600, size=7000, type=5\n")
    options = ["start=700, size=900", "start=1700, size=900", "start=2700, size=900", "start=4000, size=3000"]
    script = "label: dos\nstart=64, size=512\nstart=600, size=7000, type=5\n" + "\n".join(options) + "\n"
    sfdisk(image(folder / "dos", SIZE), script)
    sfdisk(image(folder / "gpt", SIZE), "label: gpt\nstart=64, size=512\nstart=700, size=900\nsize=400\n")
    run("sgdisk", "--hybrid=1:2", image_copy(folder / "gpt", folder / "hybrid"))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def image_copy(source: Path, target: Path) -> Path:
    target.write_bytes(read(source, 0, source.stat().st_size))
    return target


CHAIN = [600, 700, 1700, 2700, 4000]


@pytest.mark.parametrize("name", ["dos", "gpt", "hybrid"])
@fuzzing
@given(data=st.data())
def test_mutated_tables(tables: dict[str, bytes], name: str, data: st.DataObject) -> None:
    disk = bytearray(tables[name])
    first = st.integers(440, 700) | st.integers(SIZE - 512, SIZE - 400) | st.integers(1024, 1500)
    links = [at for at in range(0, SIZE - 512, 512) if disk[at + 510 : at + 512] == b"\x55\xaa"]
    anywhere = first | st.sampled_from(links).flatmap(lambda at: st.integers(at + 446, at + 480))
    for at, content in data.draw(
        st.lists(st.tuples(anywhere, st.binary(min_size=1, max_size=8)), max_size=4)
    ):
        disk[at : at + len(content)] = content
    if data.draw(st.booleans()):
        repair_gpt(disk)
    checked({"vda": MemoryDisk(disk[: data.draw(st.sampled_from([SIZE, SIZE - 1, SIZE // 2, 513]))])})


def repair_gpt(disk: bytearray) -> None:
    """Make the checksums of a GPT fit again, so that what is wrong in it gets further."""
    for at in (512, SIZE - 512):
        array = int.from_bytes(disk[at + 72 : at + 80], "little") * 512
        length = int.from_bytes(disk[at + 80 : at + 84], "little") * int.from_bytes(
            disk[at + 84 : at + 88], "little"
        )
        disk[at + 88 : at + 92] = zlib.crc32(disk[array : array + min(length, SIZE)]).to_bytes(4, "little")
        size = int.from_bytes(disk[at + 12 : at + 16], "little")
        blank = disk[at : at + 16] + bytes(4) + disk[at + 20 : at + min(size, 512)]
        disk[at + 16 : at + 20] = zlib.crc32(blank).to_bytes(4, "little")


@fuzzing
@given(st.binary(max_size=2000), st.integers(0, 70_000), st.integers(1, 200_000))
def test_any_bytes_as_a_disk(content: bytes, at: int, size: int) -> None:
    disk = bytearray(size)
    part = content[: max(0, size - at)]
    disk[at : at + len(part)] = part
    checked({"vda": MemoryDisk(disk)})


def extended_loop(disk: bytearray) -> None:
    """Let each link of a chain lead to the one before, 300 links long."""
    disk[446:462] = bytes([0, 0, 0, 0, 5, 0, 0, 0]) + (1).to_bytes(4, "little") + (8000).to_bytes(4, "little")
    disk[510:512] = b"\x55\xaa"
    for link in range(300):
        at = (1 + 2 * link) * 512
        one = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (1).to_bytes(4, "little") + (1).to_bytes(4, "little")
        following = bytes([0, 0, 0, 0, 5, 0, 0, 0]) + (2 * link + 2).to_bytes(4, "little") + b"\1\0\0\0"
        disk[at + 446 : at + 478] = one + following
        disk[at + 510 : at + 512] = b"\x55\xaa"


def everything_is_a_link(disk: bytearray) -> None:
    """Let all four entries of each sector be partitions and links at once."""
    entry = bytes([0, 0, 0, 0, 5, 0, 0, 0]) + (1).to_bytes(4, "little") + (8000).to_bytes(4, "little")
    for at in range(0, SIZE, 512):
        disk[at + 446 : at + 512] = entry * 4 + b"\x55\xaa"


@pytest.mark.parametrize("fill", [extended_loop, everything_is_a_link])
def test_tables_without_an_end(fill: Callable[[bytearray], None]) -> None:
    disk = bytearray(SIZE)
    fill(disk)

    found = checked({"vda": MemoryDisk(disk)})

    assert all(volume.keep_because for volume in found.volumes)


def test_a_gpt_with_entries_without_number() -> None:
    disk = bytearray(SIZE)
    disk[446:462] = bytes([0, 0, 0, 0, 0xEE, 0, 0, 0]) + b"\1\0\0\0" + b"\xff" * 4
    disk[510:512] = b"\x55\xaa"
    disk[512:520], disk[520:524], disk[524:528] = b"EFI PART", b"\0\0\1\0", (92).to_bytes(4, "little")
    for at, value in ((24, 1), (32, 8191), (40, 34), (48, 8000), (72, 2)):
        disk[512 + at : 520 + at] = value.to_bytes(8, "little")
    disk[592:596], disk[596:600] = (16384).to_bytes(4, "little"), (128).to_bytes(4, "little")
    for entry in range(16384):
        disk[1024 + 128 * entry : 1040 + 128 * entry] = b"\1" * 16
    repair_gpt(disk)

    found = checked({"vda": MemoryDisk(disk)})

    assert [volume.keep_because for volume in found.volumes] == [
        "the partition table (GPT) and its copy are damaged"
    ]
