"""Volumes as one tree, and the paths that users write."""

import pytest

from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.file_system import FileSystem, NeedsAppliance
from hotspare.guest.files.machine import MachineFiles
from hotspare.guest.files.tree import Mount, Tree
from hotspare.guest.volumes.volume import Volume
from tests.guest.files.fake_files import MemoryFiles, volume
from tests.guest.files.mounts import walked

ROOT = {
    "/etc/fstab": (
        "# <file system> <mount point>\n"
        "UUID=AAAA / ext4 errors=remount-ro 0 1\n"
        "UUID=bbbb\t/home ext4 defaults 0 2\n"
        "/dev/mapper/vg0-var--lib /var/lib xfs defaults\n"
        'LABEL="my\\040data" /mnt/with\\040space ext4\n'
        "UUID=cccc /gone ext4\n"
        "UUID=dddd none swap sw 0 0\n"
        "tmpfs /tmp tmpfs size=1G\n"
        "server:/export /net nfs\n"
        "/dev/sdb1 /later ext4 noauto\n"
    ),
    "/etc/hosts": "localhost",
    "/home/hidden": "below the mount",
    "/home/hidden-folder/file": "x",
    "/var/lib": "/",
    "/mnt/with space": "/",
    "/bin": "->usr/bin",
    "/usr/bin/sh": "shell",
    "/absolute": "->/home/ann",
    "/up": "->../../../etc/hosts",
    "/loop": "->loop",
    "/loop1": "->/loop2/x",
    "/loop2": "->loop1",
    "/dangling": "->nothing",
    "/to-mount": "->/var/lib/",
}
HOME = {"/ann/notes": "hello", "/back": "->../etc/hosts", "/ann/out": "->/usr/bin"}
VAR_LIB = {"/dpkg/status": "packages"}
DATA = {"/file": "data"}


class Openers:
    """Opens what is asked for, and remembers."""

    def __init__(self, found: dict[str, FileSystem | FileSystemUnreadable]) -> None:
        self.found = found
        self.asked: list[str] = []

    def __call__(self, one: Volume) -> FileSystem:
        self.asked.append(one.name)
        found = self.found[one.name]
        if isinstance(found, FileSystemUnreadable):
            raise found
        return found


def linux() -> tuple[MachineFiles, Openers]:
    openers = Openers(
        {
            "vda1": MemoryFiles({"/grub/grub.cfg": "boot"}),
            "vda2": MemoryFiles(ROOT),
            "vdb": MemoryFiles(HOME),
            "vg0/var-lib": MemoryFiles(VAR_LIB),
            "vdc1": MemoryFiles(DATA),
        }
    )
    volumes = [
        volume("vg0/var-lib", "xfs"),
        volume("vda1"),
        volume("vda2", uuid="aaaa"),
        volume("vdb", uuid="BBBB"),
        volume("vdc1", label="my data"),
        volume("vda3", "swap", uuid="dddd"),
    ]
    return MachineFiles(volumes, openers), openers


def text_of(files: MachineFiles, path: str) -> str:
    tree, inner = files.locate(path)
    content = tree.open(inner)
    return content.read(0, 1000).decode()


def test_a_linux_machine() -> None:
    files, openers = linux()
    assert text_of(files, "/etc/hosts") == "localhost"
    assert openers.asked == ["vda1", "vda2"]  # nothing else was needed
    assert [(mount.point, mount.volume.name) for mount in files.tree().mounts] == [
        ("/", "vda2"),
        ("/home", "vdb"),
        ("/mnt/with space", "vdc1"),
        ("/var/lib", "vg0/var-lib"),
    ]
    assert files.remarks == ["/gone is empty here: UUID=cccc is not among the volumes"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/home/ann/notes", "hello"),
        ("/absolute/notes", "hello"),
        ("/bin/sh", "shell"),
        ("/up", "localhost"),
        ("/home/back", "localhost"),
        ("/home/../etc/./hosts", "localhost"),
        ("/home/ann/out/sh", "shell"),
        ("/to-mount/dpkg/status", "packages"),
        ("/var/lib/dpkg/status", "packages"),
        ("/mnt/with space/file", "data"),
        ("vda2:/home/hidden", "below the mount"),
        ("vda2:home/hidden", "below the mount"),
        ("vg0/var-lib:/dpkg/status", "packages"),
        ("/../../etc/hosts", "localhost"),
    ],
)
def test_paths(path: str, text: str) -> None:
    assert text_of(linux()[0], path) == text


@pytest.mark.parametrize(
    "path",
    [
        "/home/hidden",
        "/loop",
        "/loop1/y",
        "/dangling",
        "/etc/hosts/x",
        "vdb:/../etc/hosts",
        "vdb:/back",
        "/gone",
    ],
)
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(PathNotFound):
        text_of(linux()[0], path)


@pytest.mark.parametrize("path", ["nothing:/etc", "etc/hosts", "D:/x", "vda9", ""])
def test_volumes_that_are_not_there(path: str) -> None:
    with pytest.raises(PathNotFound) as caught:
        linux()[0].locate(path)
    assert "vda1, vda2, vdb, vdc1" in str(caught.value)


def test_entries_tell_of_links_and_mounts() -> None:
    tree = linux()[0].tree()
    assert tree.entry("/bin").kind == "link"
    assert tree.entry("/absolute/notes").path == "/home/ann/notes"
    assert tree.attributes("/absolute") == {"user.node": b"/absolute"}
    assert tree.attributes("/absolute/notes") == {"user.node": b"/ann/notes"}
    assert (tree.entry("/home").path, tree.entry("/home").volume) == ("/home", "vdb")
    top = {entry.path: entry.volume for entry in tree.entries("/")}
    assert top["/home"] == "vdb"
    assert top["/etc"] == "vda2"
    assert {entry.path for entry in tree.entries("/to-mount")} == {"/var/lib/dpkg"}
    assert {entry.path for entry in tree.entries("/var")} == {"/var/lib"}
    with pytest.raises(PathNotFound, match="no folder"):
        tree.entries("/etc/hosts")


def test_a_walk_crosses_into_mounts() -> None:
    tree = linux()[0].tree()
    found, failure = walked(tree)
    paths = [entry.path for entry in found]
    assert failure is None
    assert len(set(paths)) == len(paths)
    assert {"/home/ann/notes", "/var/lib/dpkg/status", "/mnt/with space/file", "/etc/hosts"} <= set(paths)
    assert not any("hidden" in path for path in paths)
    for entry in found:
        assert entry.path.rpartition("/")[0] in {"", *paths}
        assert (
            paths.index(entry.path) > paths.index(entry.path.rpartition("/")[0] or paths[0])
            or entry.path.count("/") == 1
        )
    assert {entry.path for entry in walked(tree, "/var")[0]} == {
        "/var/lib",
        "/var/lib/dpkg",
        "/var/lib/dpkg/status",
    }
    assert {entry.volume for entry in walked(tree, "/home")[0]} == {"vdb"}


def test_one_volume_is_shown_as_it_is() -> None:
    files, openers = linux()
    tree, path = files.locate("vda2:/")
    assert {entry.path for entry in tree.walk(path)} >= {"/home/hidden", "/etc/fstab"}
    assert {entry.volume for entry in tree.walk(path)} == {""}
    files.volume("vda2")
    assert openers.asked == ["vda2"]
    files.close()
    assert openers.found["vda2"].closed == 1  # type: ignore[union-attr]


def test_volumes_that_cannot_be_read_leave_the_others() -> None:
    files, openers = linux()
    openers.found["vdb"] = NeedsAppliance("ext4", "its journal has to be replayed")
    openers.found["vda1"] = NeedsAppliance("ext4", "reasons")
    found, failure = walked(files.tree())
    assert "journal" in str(failure)
    assert "/var/lib/dpkg/status" in {entry.path for entry in found}
    assert "/home" not in {entry.path for entry in found}
    with pytest.raises(NeedsAppliance):
        files.tree().entry("/home/ann")
    assert "vda1 was not looked at" in files.remarks[0]
    assert openers.asked.count("vdb") == 1


def test_what_is_damaged_leaves_the_rest() -> None:
    broken = MemoryFiles({"/a/broken": "!", "/a/sound": "x", "/b/file": "y"})
    tree = Tree([Mount("/", volume("vda"))], lambda _: broken)
    found, failure = walked(tree)
    assert {entry.path for entry in found} == {"/a", "/a/sound", "/b", "/b/file"}
    assert "/a/broken is broken" in str(failure)


def test_subvolumes_of_btrfs() -> None:
    fstab = (
        "UUID=x / btrfs subvol=@\nUUID=x /home btrfs defaults,subvol=/@home\nUUID=x /srv btrfs subvol=none\n"
    )
    everything = MemoryFiles(
        {"/@/etc/fstab": fstab, "/@/home": "/", "/@/srv": "/", "/@home/ann/notes": "hello"}
    )
    files = MachineFiles([volume("vda1", "btrfs", uuid="x")], lambda _: everything)
    assert text_of(files, "/home/ann/notes") == "hello"
    assert {entry.path for entry in files.tree().entries("/")} == {"/etc", "/home", "/srv"}
    assert files.tree().entry("/").path == "/"
    assert "/srv shows all of vda1" in files.remarks[0]


def test_windows() -> None:
    system = {"/Windows/System32/cmd.exe": "cmd", "/Users/Ann/Notes.txt": "hello"}
    found: dict[str, FileSystem | FileSystemUnreadable] = {
        "vda1": MemoryFiles({"/EFI/boot": "x"}, ignores_case=True),
        "vda2": MemoryFiles({"/Recovery/x": "x"}, ignores_case=True),
        "vda3": MemoryFiles(system, ignores_case=True),
    }
    files = MachineFiles(
        [volume("vda1", "fat"), volume("vda2", "ntfs"), volume("vda3", "ntfs")], Openers(found)
    )
    for path in (
        "C:/Users/Ann/Notes.txt",
        "c:\\users\\ANN\\notes.txt",
        "/users/ann/notes.txt",
        "vda3:/Users/Ann/Notes.txt",
    ):
        assert text_of(files, path) == "hello"
    assert files.locate("C:")[1] == "/"
    assert files.tree().entry("/users/ann").path == "/Users/Ann"
    with pytest.raises(PathNotFound, match="no drive D:"):
        files.locate("D:/")


def test_a_lone_volume_is_the_root() -> None:
    for content in ("ntfs", "exfat", "ext", "xfs"):
        files = MachineFiles(
            [volume("vdb", content), volume("vdc", "swap")], Openers({"vdb": MemoryFiles(DATA)})
        )
        assert text_of(files, "/file") == "data"
    files = MachineFiles(
        [volume("vdb"), volume("vdc")], Openers({"vdb": MemoryFiles(DATA), "vdc": MemoryFiles(DATA)})
    )
    with pytest.raises(PathNotFound, match="There are: vdb, vdc"):
        files.locate("/file")
    with pytest.raises(PathNotFound, match="none with files"):
        MachineFiles([], Openers({})).locate("/file")


def test_an_fstab_that_is_a_link() -> None:
    root = MemoryFiles(
        {
            "/etc/fstab": "->static/fstab",
            "/etc/static": "->/store/etc",
            "/store/etc/fstab": "UUID=b /home ext4",
        }
    )
    files = MachineFiles(
        [volume("vda1"), volume("vdb", uuid="b")], Openers({"vda1": root, "vdb": MemoryFiles(HOME)})
    )
    assert [mount.point for mount in files.tree().mounts] == ["/", "/home"]
