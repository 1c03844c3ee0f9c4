"""Lines of fstab, and the volumes that they mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.guest.files.fstab import mapped_name, parse_fstab, volume_of
from tests.guest.files.fake_files import volume

VOLUMES = [
    volume("vda1", uuid="1f3c-ABCD", label="Root FS", partition="11111111-01"),
    volume("vda2", "xfs", uuid="aaaa-bbbb"),
    volume("vg-0/my-root"),
    volume("vdb", label="data"),
]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("UUID=1F3C-abcd", "vda1"),
        ("UUID=aaaa-bbbb", "vda2"),
        ("PARTUUID=11111111-01", "vda1"),
        ("LABEL=Root\\x20FS", "vda1"),
        ("LABEL=root fs", None),
        ("LABEL=data", "vdb"),
        ("PARTLABEL=data", None),
        ("UUID=", None),
        ("/dev/vda2", "vda2"),
        ("/dev/sda2", "vda2"),
        ("/dev/xvdb", "vdb"),
        ("/dev/sdc", None),
        ("/dev/nvme0n1p1", None),
        ("/dev/mapper/vg--0-my--root", "vg-0/my-root"),
        ("/dev/vg-0/my-root", "vg-0/my-root"),
        ("/dev/disk/by-uuid/aaaa-bbbb", "vda2"),
        ("/dev/disk/by-label/Root\\x20FS", "vda1"),
        ("/dev/disk/by-partuuid/11111111-01", "vda1"),
        ("/dev/disk/by-id/whatever", None),
    ],
)
def test_sources(source: str, name: str | None) -> None:
    found = volume_of(source, VOLUMES)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("mapped", "name"),
    [
        ("vg0-root", "vg0/root"),
        ("a--b-c", "a-b/c"),
        ("a-b--c", "a/b-c"),
        ("a--b--c-d", "a-b-c/d"),
        ("plain", "plain"),
    ],
)
def test_names_of_the_device_mapper(mapped: str, name: str) -> None:
    assert mapped_name(mapped) == name


def test_lines() -> None:
    text = (
        "\n# comment\nUUID=1 / ext4\n  /dev/vda2   /a//b/  xfs  ro,subvol=/x/y,nofail 0 0\n"
        "/dev/sr0 /media/cd auto noauto\nUUID=2 none swap\nproc /proc proc\n/dev/vda3 swap swap\n"
        "/old /new none bind\n/dev/vda5 /b none bind\nUUID=3\n/dev/vda4 relative ext4\n"
    )
    lines = list(parse_fstab(text))
    assert [(line.source, line.point, line.kind) for line in lines] == [
        ("UUID=1", "/", "ext4"),
        ("/dev/vda2", "/a/b", "xfs"),
    ]
    assert lines[1].subvolume == "x/y"


@given(st.text(), st.text())
def test_any_text_is_parsed(text: str, more: str) -> None:
    for line in parse_fstab(f"UUID={text} /{more} ext4 {text}\n{text}\n/dev/{more} /x"):
        assert line.point.startswith("/")
        volume_of(line.source, VOLUMES)
