"""The worker of NTFS: what becomes of one that dies, hangs, lies or is not allowed to do anything."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.errors import FileSystemUnreadable, PathNotFound, SourceLost
from hotspare.guest.files.file_system import FileEntry, NeedsAppliance
from hotspare.guest.files.ntfs import isolated, wire
from hotspare.guest.files.ntfs.isolated import IsolatedNtfs
from tests.guest.files.mounts import mounted_ntfs, new_image, run
from tests.memory_disk import MemoryDisk


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = new_image(tmp_path_factory.mktemp("ntfs") / "ntfs.img", "4M")
    run("mkntfs", "-q", "-F", "-f", path)
    with mounted_ntfs(path) as point:
        (point / "file").write_bytes(b"content" * 1000)
        (point / "folder").mkdir()
        for number in range(wire.BATCH * 2 + 1):
            (point / "folder" / f"{number}").touch()
    return path.read_bytes()


@pytest.fixture
def file_system(image: bytes) -> Iterator[IsolatedNtfs]:
    found = IsolatedNtfs(MemoryDisk(image))
    yield found
    found.close()


def worker_of(file_system: IsolatedNtfs) -> int:
    worker = file_system._worker
    assert worker is not None
    return worker._process.pid


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_the_worker_has_nothing(file_system: IsolatedNtfs) -> None:
    pid = worker_of(file_system)
    about = status(pid)
    assert set(about["Uid"].split()) == set(about["Gid"].split()) == {"65534"}
    assert about["Groups"] == ""
    assert int(about["CapEff"], 16) == int(about["CapPrm"], 16) == 0
    assert about["NoNewPrivs"] == "1"
    assert str(Path(f"/proc/{pid}/root").readlink()).endswith("(deleted)")
    assert {path.name for path in Path(f"/proc/{pid}/fd").iterdir()} == {"0", "1", "2"}
    assert Path(f"/proc/{pid}/net/dev").read_text().count(":") == 1  # lo
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert "Max address space         1073741824" in limits
    assert "Max processes             0" in limits
    assert list(Path("/tmp").glob("hotspare-empty-*")) == []


def test_listings_of_several_batches(file_system: IsolatedNtfs) -> None:
    names = {int(entry.name) for entry in file_system.entries("/folder")}
    assert names == set(range(wire.BATCH * 2 + 1))
    listing = file_system.entries("/folder")
    next(listing)
    assert file_system.open("/file").read(0, 7) == b"content"  # in between
    assert sum(1 for _ in listing) == wire.BATCH * 2


def test_a_dead_worker_is_replaced(file_system: IsolatedNtfs) -> None:
    content = file_system.open("/file")
    listing = file_system.entries("/folder")
    next(listing)
    os.kill(worker_of(file_system), 9)
    with pytest.raises(FileSystemUnreadable, match="was stopped"):
        content.read(0, 7)
    assert content.read(0, 7) == b"content"
    with pytest.raises(FileSystemUnreadable, match="within a listing"):
        list(listing)
    assert file_system.entry("/file").size == 7000
    assert file_system.generation == 2
    content.close()


def test_not_without_end(file_system: IsolatedNtfs) -> None:
    for _ in range(isolated._STARTS_MAX):
        os.kill(worker_of(file_system), 9)
        with pytest.raises(FileSystemUnreadable, match="was stopped"):
            file_system.entry("/file")
        if file_system.generation <= isolated._STARTS_MAX:
            file_system.entry("/file")
    with pytest.raises(FileSystemUnreadable, match="too often"):
        file_system.entry("/file")


def test_a_worker_that_hangs_is_ended(image: bytes) -> None:
    file_system = IsolatedNtfs(MemoryDisk(image), seconds_max=5)
    file_system._seconds_max = 0.3
    pid = worker_of(file_system)
    os.kill(pid, 19)
    began = time.monotonic()
    with pytest.raises(FileSystemUnreadable, match="took too long"):
        file_system.entry("/file")
    assert time.monotonic() - began < 60
    assert not Path(f"/proc/{pid}").exists()
    file_system.close()


def test_a_worker_ends_with_its_master(image: bytes, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(image)
    script = (
        "import os; from pathlib import Path; from hotspare.block.file import RawFile\n"
        "from hotspare.guest.files.ntfs.isolated import IsolatedNtfs\n"
        f"found = IsolatedNtfs(RawFile.open(Path({str(tmp_path / 'image')!r})))\n"
        "print(found._worker._process.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    pid = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or status(pid)["State"].startswith("Z"):
            return
        time.sleep(0.05)
    pytest.fail("the worker lives on")


class LosingDisk(MemoryDisk):
    lost = False

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if self.lost:
            raise SourceLost("The disk is gone")
        super().read_into(offset, buffer)


def test_a_lost_disk_is_told_as_such(image: bytes) -> None:
    disk = LosingDisk(image)
    disk.lost = True
    with pytest.raises(SourceLost):
        IsolatedNtfs(disk)
    disk.lost = False
    file_system = IsolatedNtfs(disk)
    file_system.close()
    file_system.close()


LIARS = {
    "nonsense": b"\xc1\xc1\xc1",
    "other type": wire._encoder.encode(wire.done("text")),
    "read outside": wire._encoder.encode(wire.NeedBlock(1 << 60, 10)),
    "read too much": wire._encoder.encode(wire.NeedBlock(0, 1 << 40)),
    "read before": wire._encoder.encode(wire.NeedBlock(-5, 2)),
    "negative": wire._encoder.encode(wire.NeedBlock(5, -2)),
}


@pytest.mark.parametrize("lie", LIARS)
def test_a_worker_that_lies_is_not_believed(
    lie: str, image: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = len(LIARS[lie]).to_bytes(4, "big") + LIARS[lie]
    (tmp_path / "liar.py").write_text(
        f"import sys, time\nsys.stdout.buffer.write({frame!r})\nsys.stdout.flush()\ntime.sleep(9)\n"
    )
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path}/liar.py\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(FileSystemUnreadable, match="was stopped"):
        IsolatedNtfs(MemoryDisk(image))


@pytest.mark.parametrize(
    "error",
    [
        FileSystemUnreadable("what", meaning="meaning", hint="hint"),
        PathNotFound("There is no \udcff here", hint="hint"),
        NeedsAppliance("ntfs", "reason"),
    ],
)
def test_errors_come_over_whole(error: FileSystemUnreadable | PathNotFound) -> None:
    back = wire.error_of(wire.failed(error))
    assert type(back) is type(error)
    assert str(back) == str(error).replace("\udcff", "?")


@pytest.mark.parametrize(
    "path",
    [
        "/folder/../../etc",
        "/other/file",
        "/folder",
        "/folder/a//b",
        "/folder/./a",
        "folder/a",
        "/folder/..",
        "",
    ],
)
def test_paths_that_lead_elsewhere_are_not_believed(path: str, file_system: IsolatedNtfs) -> None:
    lie = FileEntry(path=path, kind="file", size=1, modified=0, inode=100)
    with pytest.raises(FileSystemUnreadable, match="impossible path"):
        file_system._believed(lie, "/folder/")
    assert file_system._believed(
        FileEntry(path="/Folder/x/..y", kind="file", size=1, modified=0, inode=1), "/folder/"
    )
