"""The reader that is chosen for a volume, on volumes that were found on real disks."""

from pathlib import Path

import pytest

from hotspare.block.file import RawFile
from hotspare.errors import FileSystemUnreadable
from hotspare.guest.files.file_system import NeedsAppliance
from hotspare.guest.files.machine import MachineFiles
from hotspare.guest.files.opening import open_file_system
from hotspare.guest.volumes.find import find_volumes
from hotspare.guest.volumes.reader import VolumeReader
from hotspare.guest.volumes.volume import Volume
from tests.guest.files.fake_files import volume
from tests.guest.files.mounts import mounted, new_image, run
from tests.memory_disk import MemoryDisk

MAKERS = {
    "ext4": ("8M", ["mkfs.ext4", "-q", "-F"]),
    "ext2": ("8M", ["mke2fs", "-q", "-F", "-t", "ext2"]),
    "fat12": ("4M", ["mkfs.vfat"]),
    "fat32": ("64M", ["mkfs.vfat", "-F", "32"]),
    "exfat": ("8M", ["mkfs.exfat"]),
    "ntfs": ("8M", ["mkntfs", "-q", "-F", "-f"]),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_readers_are_chosen_by_content(kind: str, tmp_path: Path) -> None:
    size, command = MAKERS[kind]
    image = new_image(tmp_path / "image", size)
    run(*command, image)
    disk = RawFile.open(image)
    (found,) = find_volumes({"vda": disk}).volumes
    file_system = open_file_system(found, disk)
    assert file_system.kind == kind
    assert all(entry.path == "/lost+found" for entry in file_system.entries("/"))
    file_system.close()
    file_system.close()
    disk.close()


@pytest.mark.parametrize("content", ["xfs", "btrfs"])
def test_what_only_a_kernel_reads(content: str) -> None:
    with pytest.raises(NeedsAppliance) as caught:
        open_file_system(volume("vda1", content), MemoryDisk(bytes(512)))
    assert caught.value.kind == content


@pytest.mark.parametrize("content", ["swap", "luks", "bitlocker", "lvm", "refs", "", "something new"])
def test_what_has_no_files(content: str) -> None:
    with pytest.raises(FileSystemUnreadable, match="vda1 has no files") as caught:
        open_file_system(volume("vda1", content), MemoryDisk(bytes(512)))
    assert not isinstance(caught.value, NeedsAppliance)


def test_a_machine_of_two_disks(tmp_path: Path) -> None:
    """From partitions to a path, as a user writes it."""
    root, home = new_image(tmp_path / "root.img", "12M"), new_image(tmp_path / "home.img", "8M")
    run("mkfs.ext4", "-q", "-F", "-L", "the-home", home)
    run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", root, stdin="label: gpt\n2048,18432\n")
    part = new_image(tmp_path / "part.img", "9M")
    run("mkfs.ext4", "-q", "-F", part)
    with mounted(part) as point:
        (point / "etc").mkdir()
        (point / "etc/fstab").write_text("/dev/sda1 / ext4\nLABEL=the-home /home ext4\n")
        (point / "home").mkdir()
        (point / "notes").symlink_to("/home/notes")
    with mounted(home) as point:
        (point / "notes").write_text("hello")
    run("dd", f"if={part}", f"of={root}", "bs=1M", "seek=1", "conv=notrunc")
    disks = {"vda": RawFile.open(root), "vdb": RawFile.open(home)}
    readers: list[VolumeReader] = []

    def open_volume(one: Volume) -> object:
        readers.append(VolumeReader(one.layout, disks))
        return open_file_system(one, readers[-1])

    files = MachineFiles(find_volumes(disks).volumes, open_volume)  # type: ignore[arg-type]
    tree, path = files.locate("/notes")
    assert tree.open(path).read(0, 10) == b"hello"
    assert [(mount.point, mount.volume.name) for mount in tree.mounts] == [("/", "vda1"), ("/home", "vdb")]
    files.close()
    for disk in disks.values():
        disk.close()
