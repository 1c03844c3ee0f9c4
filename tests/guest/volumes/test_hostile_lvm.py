"""Volume groups that mean harm, or are broken: an answer in bounded time, and nobody's bytes unused."""

import zlib
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotspare.block.device import BlockReader
from hotspare.guest.volumes.find import FoundVolumes
from hotspare.guest.volumes.lvm.text import BadText, parse
from hotspare.units import KIB, MIB
from tests.guest.volumes.hostile import SIZE, checked
from tests.guest.volumes.volume_groups import lvm_checksum
from tests.memory_disk import MemoryDisk

UUIDS = [f"{letter * 6}-aaaa-bbbb-cccc-dddd-eeee-{letter * 6}" for letter in "xy"]
fuzzing = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


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


def disks_of(*texts: str) -> dict[str, BlockReader]:
    """Give a disk for each text, the physical volumes of ``GROUP`` in turn."""
    return {
        f"vd{'ab'[number]}": MemoryDisk(physical_volume(number, text.encode()))
        for number, text in enumerate(texts)
    }


def only_remark(found: FoundVolumes) -> str:
    assert found.unused == {}
    (remark,) = found.remarks
    return remark.removeprefix("hs: no extents of this volume group count as unused: ")


def test_two_copies_of_one_version_that_differ() -> None:
    """One of them was written by somebody who did not know of the other."""
    found = checked(disks_of(GROUP, GROUP.replace('["pv0", 20]', '["pv0", 22]')))

    assert only_remark(found) == "two copies of its metadata are equally new and differ"
    assert [volume.name for volume in found.volumes] == ["vda", "vdb"]


def test_a_physical_volume_with_the_metadata_of_another_group() -> None:
    other = (
        GROUP.replace("hs {", "other {").replace("gggggg", "oooooo").replace("xx", "zz").replace("yy", "ww")
    )

    found = checked(disks_of(GROUP, other))

    assert found.unused == {}
    assert all(volume.keep_because for volume in found.volumes)
    assert [remark.rpartition(": ")[2] for remark in found.remarks] == [
        "vdb has the metadata of two volume groups",
        "a physical volume is missing",
    ]


def test_a_physical_volume_that_two_groups_claim() -> None:
    """The second says nothing of its own on vdb, as without a metadata area there."""
    text = (
        GROUP.replace("hs {", "other {")
        .replace("gggggg", "oooooo")
        .replace(UUIDS[0], UUIDS[0].replace("x", "z"))
    )
    disks = disks_of(GROUP, GROUP)
    third = physical_volume(0, text.encode())
    third[512 + 32 : 512 + 64] = UUIDS[0].replace("x", "z").replace("-", "").encode()
    third[512 + 16 : 512 + 20] = lvm_checksum(bytes(third[512 + 20 : 1024])).to_bytes(4, "little")

    found = checked({**disks, "vdc": MemoryDisk(third)})

    assert found.unused == {}
    assert all(volume.keep_because for volume in found.volumes)
    assert found.remarks[0].endswith("another volume group has one of its physical volumes too")


@pytest.mark.parametrize(
    "change", [("hs {", ".. {"), ("hs {", "-x {"), ("root {", ".. {"), ("im0 {", f"{'a' * 129} {{")]
)
def test_names_that_are_paths_or_options(change: tuple[str, str]) -> None:
    found = group_of(GROUP.replace(*change).encode())

    assert [volume.name for volume in found.volumes] == ["vda", "vdb"]
    assert found.unused == {}


def test_extents_beyond_the_last_one_of_the_physical_volume() -> None:
    """They are on the disk, but not the group's: something else may lie behind it."""
    found = group_of(GROUP.replace("pe_count = 48", "pe_count = 40").encode())

    assert only_remark(found) == "its metadata cannot be understood: snap has extents beyond the end of pv1"


def test_a_part_of_another_volume_is_no_volume_even_if_it_can_be_seen() -> None:
    """LVM2 shows an image that is split off a mirror for a while."""
    found = group_of(GROUP.replace('im0 { status = ["READ"]', 'im0 { status = ["READ", "VISIBLE"]').encode())

    assert [(one.name, one.reason) for one in found.unreadable if one.name == "hs/im0"] == [
        ("hs/im0", "it is a part of fast")
    ]
    assert "hs/im0" not in [volume.name for volume in found.volumes]


@pytest.mark.parametrize("status", ["LOCKED", "CONVERTING", "MERGING", "whatever-comes"])
def test_a_volume_in_a_state_that_is_not_plain(status: str) -> None:
    text = GROUP.replace(
        'root { status = ["READ", "WRITE", "VISIBLE"]', f'root {{ status = ["VISIBLE", "{status}"]'
    )

    found = group_of(text.encode())

    assert [(one.name, one.reason) for one in found.unreadable if one.name == "hs/root"] == [
        ("hs/root", f"its state is {status}")
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
