"""Files read by the kernel of the micro-VM, held against this host's kernel and its mount of a copy."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.block.extent import Extent
from hotspare.block.file import RawFile
from hotspare.errors import FileSystemUnreadable, PathNotFound, RepositoryDamaged
from hotspare.guest.files.appliance.appliance import Appliance
from hotspare.guest.files.appliance.kernel import Kernel
from hotspare.guest.files.appliance.mounted import MountedFiles
from hotspare.guest.files.file_system import FileEntry
from hotspare.units import MIB
from lab.kernel import kernel_with_modules
from tests.guest.files.appliance_images import LATE, Machine, make_machine
from tests.guest.unused.garbage import FileFacts, mounted, run

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

VOLUMES = ("vda", "vdb1", "vdb2", "vg0/my-root")


class BrokenDisk:
    """A disk that cannot be read, as if its packs were damaged."""

    size = 64 * MIB

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        raise RepositoryDamaged("pack 7 is damaged")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if offset:
            raise RepositoryDamaged("pack 7 is damaged")
        buffer[:] = bytes(len(buffer))

    def clone(self) -> "BrokenDisk":
        return self

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return make_machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def appliance(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One micro-VM for all tests of this module; the disks must be the same afterwards."""
    before = {name: digest(path) for name, path in machine.disks.items()}
    disks = {name: RawFile.open(path) for name, path in machine.disks.items()}
    noise = tmp_path_factory.mktemp("noise") / "noise"
    noise.write_bytes(os.urandom(MIB))
    disks["noise"] = RawFile.open(noise)
    cache = tmp_path_factory.mktemp("cache")
    try:
        with Appliance.launch(
            {**disks, "broken": BrokenDisk()}, cache=cache, kernel=Kernel(*kernel_with_modules())
        ) as running:
            yield running
    finally:
        for disk in disks.values():
            disk.close()
    assert {name: digest(path) for name, path in machine.disks.items()} == before


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def facts(files: MountedFiles, entry: FileEntry) -> tuple[object, ...]:
    content = entry.target
    if entry.kind == "file":
        opened = files.open(entry.path)
        content = hashlib.sha256(opened.read(0, opened.size + 1)).hexdigest()
    attributes = tuple(sorted(files.attributes(entry.path).items()))
    size = entry.size if entry.kind in {"file", "link"} else 0
    owner = (entry.uid, entry.gid, entry.mode)
    return (entry.kind, *owner, size, entry.links, entry.modified, entry.device, attributes, content)


def facts_of_kernel(known: FileFacts) -> tuple[object, ...]:
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "folder",
        stat.S_IFLNK: "link",
        stat.S_IFIFO: "fifo",
        stat.S_IFCHR: "character-device",
    }
    kind = kinds[stat.S_IFMT(known.mode)]
    size = known.size if kind in {"file", "link"} else 0
    device = (os.major(known.device), os.minor(known.device)) if kind == "character-device" else None
    owner = (known.uid, known.gid, stat.S_IMODE(known.mode))
    attributes = tuple(sorted(known.attributes))
    return (kind, *owner, size, known.links, known.modified, device, attributes, known.content)


def test_the_volumes_were_taken_in_the_middle_of_their_work(machine: Machine, tmp_path: Path) -> None:
    """Otherwise the test below would prove little: without a replay, files are missing."""
    folder = machine.disks["vda"].parent
    with mounted(folder / "xfs.taken", "xfs", "ro", "norecovery") as root:
        assert not list(root.glob("late-*"))
    assert "needs_recovery" in run(["dumpe2fs", "-h", str(folder / "ext4.taken")])
    assert "inline_data" in run(["dumpe2fs", "-h", str(folder / "ext4.taken")])
    superblock = run(["btrfs", "inspect-internal", "dump-super", str(folder / "btrfs.taken")])
    assert "log_root\t\t0\n" not in superblock


@pytest.mark.parametrize("volume", VOLUMES)
def test_every_file_is_as_the_kernel_of_this_host_shows_it(
    appliance: Appliance, machine: Machine, volume: str
) -> None:
    files = appliance.open(volume, content=machine.contents[volume])
    known = {path: facts_of_kernel(each) for path, each in machine.files[volume].items() if path != "."}
    # Thousands of names of one file: their facts are those of the first.
    many = {path for path in known if path.startswith("many/")}
    found = list(files.walk())

    assert sorted(entry.path[1:] for entry in found) == sorted(known)
    assert {each.path[1:]: facts(files, each) for each in found if each.path[1:] not in many} == {
        path: each for path, each in known.items() if path not in many
    }
    assert sum(entry.name.startswith("late-") for entry in found) == LATE
    seen: set[str] = {""}
    for entry in found:
        assert entry.path.rpartition("/")[0] in seen, "a folder comes before what is in it"
        if entry.kind == "folder":
            seen.add(entry.path)
    assert files.entry("/in/side").kind == "folder"
    files.close()


def test_names_of_one_inode_are_known_as_such(appliance: Appliance) -> None:
    files = appliance.open("vdb1", content="btrfs")
    by_path = {entry.path: entry.inode for entry in files.walk()}
    assert by_path["/big"] == by_path["/in/big-again"]
    # Each subvolume numbers for itself.
    assert by_path["/sub/file"] != by_path["/snapshot/file"]
    assert len(set(by_path.values())) == len(by_path) - 1


@pytest.mark.parametrize("volume", ["vda", "vg0/my-root"])
def test_holes_are_told(appliance: Appliance, machine: Machine, volume: str) -> None:
    opened = appliance.open(volume, content=machine.contents[volume]).open("/sparse")
    holes = list(opened.holes())
    assert sum(end - start for start, end in holes) > 23 * MIB
    assert holes[-1][1] == opened.size
    for start, end in holes:
        assert not any(opened.read(start, min(end - start, MIB)))


def test_a_folder_is_listed_in_pieces(appliance: Appliance) -> None:
    files = appliance.open("vda", content="xfs")
    listing = files.entries("/many")
    assert next(listing).name.endswith("m" * 240)
    assert files.entry("/odd").links == 2301, "in between something else can be asked"
    assert len(list(listing)) == 2299


def test_a_volume_whose_kind_is_unknown_is_tried_with_all_drivers(appliance: Appliance) -> None:
    assert appliance.open("vdb1").kind == "btrfs"


@pytest.mark.parametrize("volume", ["vde", "vda1", "vdb3", "vdb0", "vg0/other", "vg1/root", "vd"])
def test_a_volume_that_is_not_there(appliance: Appliance, volume: str) -> None:
    with pytest.raises(PathNotFound):
        appliance.open(volume)


@pytest.mark.parametrize("path", ["/none", "/odd/none", "/link/tiny 1", "/in/side/tiny 1\0x"])
def test_a_path_that_is_not_there(appliance: Appliance, path: str) -> None:
    files = appliance.open("vda", content="xfs")
    with pytest.raises(PathNotFound):
        files.entry(path)
    with pytest.raises(PathNotFound):
        list(files.entries(path))
    with pytest.raises(PathNotFound):
        files.attributes(path)
    with pytest.raises(PathNotFound):
        files.open(path)


@pytest.mark.parametrize("path", ["/link", "/fifo", "/device", "/in"])
def test_what_is_no_file_has_no_content(appliance: Appliance, path: str) -> None:
    with pytest.raises(FileSystemUnreadable, match="is no file"):
        appliance.open("vda", content="xfs").open(path)


def test_a_volume_that_is_not_as_large_as_it_should_be_is_another_one(appliance: Appliance) -> None:
    with pytest.raises(FileSystemUnreadable, match="should have 4096"):
        appliance.open("vda", content="xfs", size=4096)
    appliance.open("vda", content="xfs", size=320 * MIB).close()


def test_noise_cannot_be_mounted(appliance: Appliance) -> None:
    with pytest.raises(FileSystemUnreadable, match="cannot mount noise"):
        appliance.open("noise", content="xfs")


def test_damage_of_the_repository_is_told_as_such(appliance: Appliance) -> None:
    with pytest.raises(RepositoryDamaged, match="pack 7"):
        appliance.open("broken", content="btrfs")
