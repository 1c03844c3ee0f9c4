"""Disks of guests that mean harm, or are broken: an answer in bounded time, and nobody's bytes unused."""

import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotspare.block.device import BlockReader
from hotspare.block.ranges import NOTHING, Ranges
from hotspare.guest.volumes.find import FoundVolumes, find_volumes
from hotspare.guest.volumes.lvm.text import BadText, parse
from hotspare.units import KIB, MIB
from tests.guest.volumes.images import image, read, run, sfdisk
from tests.guest.volumes.volume_groups import lvm_checksum
from tests.memory_disk import MemoryDisk

SIZE = 4 * MIB
UUIDS = [f"{letter * 6}-aaaa-bbbb-cccc-dddd-eeee-{letter * 6}" for letter in "xy"]
fuzzing = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def checked(disks: dict[str, BlockReader]) -> FoundVolumes:
    """Find volumes, and hold the result against what must be true whatever the disks say."""
    begun = time.process_time()
    found = find_volumes(disks)
    assert time.process_time() - begun < 10
    names = [volume.name for volume in found.volumes] + [one.name for one in found.unreadable]
    assert len(names) == len(set(names))
    claimed: dict[str, Ranges] = dict.fromkeys(disks, NOTHING)
    for volume in found.volumes:
        assert volume.size > 0
        on_disks = volume.layout.on_disks(Ranges.whole(volume.size))
        assert sum(ranges.total for ranges in on_disks.values()) == volume.size, "a byte is there twice"
        for disk, ranges in on_disks.items():
            assert not len(ranges - Ranges.whole(disks[disk].size)), "beyond the disk"
            if volume.keep_because is None or "/" in volume.name:
                assert not len(ranges & claimed[disk]), (
                    "two volumes whose unused bytes are believed share some"
                )
                claimed[disk] |= ranges
    for disk, ranges in found.unused.items():
        assert not len(ranges - Ranges.whole(disks[disk].size))
        assert not len(ranges & claimed[disk]), "unused, and in a volume"
    return found


def physical_volume(number: int, text: bytes, size: int = SIZE, area: int = 1 * MIB - 4096) -> bytearray:
    """Write a physical volume with all checksums as LVM2 wants them, whatever the text says."""
    disk = bytearray(max(size, 4096 + area))
    label = bytearray(512)
    label[:8], label[8:16], label[24:32] = b"LABELONE", (0).to_bytes(8, "little"), b"LVM2 001"
    label[8:16], label[20:24] = (1).to_bytes(8, "little"), (32).to_bytes(4, "little")
    label[32:64] = UUIDS[number].replace("-", "").encode()
    for at, value in enumerate((size, 4096 + area, 0, 0, 0, 4096, area, 0, 0)):
        label[64 + 8 * at : 72 + 8 * at] = value.to_bytes(8, "little")
    label[16:20] = lvm_checksum(bytes(label[20:])).to_bytes(4, "little")
    disk[512:1024] = label
    header = bytearray(512)
    header[4:20] = b" LVM2 x[5A%r0N*>"
    header[20:24] = (1).to_bytes(4, "little")
    for at, value in enumerate((4096, area, 512, len(text))):
        header[24 + 8 * at : 32 + 8 * at] = value.to_bytes(8, "little")
    # A fast checksum, since the text may be long: see test_checksum_is_that_of_lvm.
    header[56:60] = (zlib.crc32(text, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF).to_bytes(4, "little")
    header[:4] = lvm_checksum(bytes(header[4:])).to_bytes(4, "little")
    disk[4096:4608] = header
    disk[4608 : 4608 + len(text)] = text
    return disk


GROUP = f"""hs {{
id = "gggggg-aaaa-bbbb-cccc-dddd-eeee-gggggg"
seqno = 3
format = "lvm2"
status = ["RESIZEABLE", "READ", "WRITE"]
extent_size = 128
physical_volumes {{
pv0 {{ id = "{UUIDS[0]}" status = ["ALLOCATABLE"] pe_start = 2048 pe_count = 48 }}
pv1 {{ id = "{UUIDS[1]}" status = ["ALLOCATABLE"] pe_start = 2048 pe_count = 48 }}
}}
logical_volumes {{
root {{ status = ["READ", "WRITE", "VISIBLE"] segment_count = 2
segment1 {{ start_extent = 0 extent_count = 6 type = "striped" stripe_count = 1 stripes = ["pv0", 0] }}
segment2 {{ start_extent = 6 extent_count = 8 type = "striped" stripe_size = 8
stripes = ["pv1", 3, "pv0", 9] }}
}}
fast {{ status = ["READ", "VISIBLE"] segment_count = 1
segment1 {{ start_extent = 0 extent_count = 4 type = "raid0" stripe_size = 8 raid0_lvs = ["im0", "im1"] }} }}
im0 {{ status = ["READ"] segment_count = 1
segment1 {{ start_extent = 0 extent_count = 2 type = "striped" stripes = ["pv0", 20] }} }}
im1 {{ status = ["READ"] segment_count = 1
segment1 {{ start_extent = 0 extent_count = 2 type = "striped" stripes = ["pv1", 20] }} }}
snap {{ status = ["READ"] segment_count = 1
segment1 {{ start_extent = 0 extent_count = 1 type = "striped" stripes = ["pv1", 40] }} }}
snapshot0 {{ status = ["READ"] segment_count = 1
segment1 {{ start_extent = 0 extent_count = 14 type = "snapshot" origin = "root" cow_store = "snap" }} }}
}}
}}
"""


def group_of(text: bytes) -> FoundVolumes:
    return checked({f"vd{'ab'[number]}": MemoryDisk(physical_volume(number, text)) for number in range(2)})


def test_the_group_is_valid_before_it_is_mutated() -> None:
    found = group_of(GROUP.encode())

    assert [volume.name for volume in found.volumes] == ["vda", "vdb", "hs/root", "hs/fast"]
    assert [volume.keep_because for volume in found.volumes[2:]] == [
        "a snapshot is taken of it",
        "nothing known is in it",
    ]
    assert {disk: ranges.total // (64 * KIB) for disk, ranges in found.unused.items()} == {
        "vda": 48 - 6 - 4 - 2,
        "vdb": 48 - 4 - 2 - 1,
    }
    assert found.remarks == []


WORDS = GROUP.replace(",", " , ").replace("[", " [ ").replace("]", " ] ").split()
ODD = st.sampled_from(
    [
        *sorted(set(WORDS)),
        "-1",
        "99999999999999999999",
        "9007199254740992",
        '"',
        "#",
        "{" * 40,
        '"../../x"',
        '"pv0"',
    ]
) | st.integers(-5, 60).map(str)


@fuzzing
@given(st.lists(st.tuples(st.integers(0, len(WORDS) - 1), ODD), min_size=1, max_size=4))
def test_mutated_metadata_with_valid_checksums(changes: list[tuple[int, str]]) -> None:
    words = list(WORDS)
    for at, word in changes:
        words[at] = word
    group_of(" ".join(words).encode())


@fuzzing
@given(st.integers(0, len(WORDS) - 1), st.integers(0, len(WORDS) - 1), st.booleans())
def test_metadata_with_parts_left_out_or_twice(one: int, other: int, twice: bool) -> None:
    low, high = sorted((one, other))
    group_of(" ".join(WORDS[:high] + WORDS[low if twice else high :]).encode())


@fuzzing
@given(st.binary(max_size=300))
def test_any_bytes_as_metadata(text: bytes) -> None:
    group_of(text or b" ")


def test_bytes_that_two_logical_volumes_claim_belong_to_neither() -> None:
    found = group_of(GROUP.replace('["pv0", 20]', '["pv0", 10]').encode())

    assert [volume.name for volume in found.volumes] == ["vda", "vdb"]
    assert found.unused == {}
    assert found.remarks == [
        "hs: no extents of this volume group count as unused: "
        "its metadata cannot be understood: an extent of pv0 belongs to two segments"
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (('"snapshot" origin', '"wonder" origin'), "snapshot0 is of the unknown type 'wonder'"),
        (("cow_store =", 'cow_on = "pv1" cow_store ='), "snapshot0 uses pv1 for its cow_on"),
        (("logical_volumes {", "more_volumes { }\nlogical_volumes {"), "it has a section more_volumes"),
        (('format = "lvm2"', 'format = "lvm3"'), "its format is not lvm2"),
        (('format = "lvm2"', 'lock_type = "sanlock"'), "its lock_type is set"),
        (("cow_store =", "parts { } cow_store ="), "snapshot0 has a segment with a section 'parts'"),
        (
            ("pe_start = 2048 pe_count = 48 }\n}", 'pe_start = 2048 pe_count = 48 flags = ["MISSING"] }\n}'),
            "a physical volume is missing",
        ),
        (("pe_start = 2048", "pe_start = 2176"), "label and metadata of vda differ"),
    ],
)
def test_what_is_not_understood_leaves_nothing_unused(change: tuple[str, str], problem: str) -> None:
    found = group_of(GROUP.replace(*change).replace("pe_count = 48", "pe_count = 46").encode())

    assert found.unused == {}
    assert found.remarks[0] == f"hs: no extents of this volume group count as unused: {problem}"


@pytest.mark.parametrize(
    "text",
    [
        b"{" * MIB,
        b"a{" * MIB,
        b"#" * MIB,
        b"# \n" * (MIB // 2),
        b'"' * MIB,
        b'a = "' + b"\\" * MIB,
        b"a = [" + b"1, " * (MIB // 4),
        b"a = " + b"9" * MIB,
        b" \n" * MIB,
        b"".join(b"k%d = 1\n" % n for n in range(50_000)),
    ],
    ids=lambda text: text[:6].decode().strip(),
)
def test_metadata_that_takes_long_to_read(text: bytes) -> None:
    disk = physical_volume(0, text, area=4 * MIB)

    assert checked({"vda": MemoryDisk(disk)}).unused == {}


def test_a_group_of_very_many_volumes_is_refused() -> None:
    segment = 'segment1 { start_extent = 0 extent_count = 1 type = "zero" }'
    many = "".join(f'v{n} {{ status = ["VISIBLE"] segment_count = 1 {segment} }}\n' for n in range(9000))
    text = GROUP.replace("logical_volumes {", "logical_volumes {\n" + many)

    found = checked({"vda": MemoryDisk(physical_volume(0, text.encode(), area=4 * MIB))})

    assert "more than 8192 logical volumes" in found.remarks[0]


@fuzzing
@given(st.text(alphabet=' \n#"\\{}[]=,a1-', max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(BadText):
        parse(text)


def test_text_is_parsed() -> None:
    text = '# a comment\na = 1 b = -2\nc { d = "x \\"y\\" \\\\" e = [] f = [1, "two", ] }'

    assert parse(text) == {"a": 1, "b": -2, "c": {"d": 'x "y" \\', "e": [], "f": [1, "two"]}}


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
