"""QEMU's image tools: what they tell, what they serve, and what is refused."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hotspare.block.nbd.client import NbdClient
from hotspare.block.qemu import QemuNbd, create_image, image_info
from hotspare.errors import PermissionRefused, PlatformUnavailable, SourceLost, TargetExists, UsageError
from hotspare.units import MIB
from tests.contracts.block_suite import CONTENT, SIZE, ReadBack, ReaderSuite, WriterSuite, read


def qemu(*arguments: str | Path) -> str:
    done = subprocess.run([*map(str, arguments)], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def qcow2(raw: Path) -> Path:
    path = raw.with_suffix(".qcow2")
    qemu("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path)
    return path


class TestReadingQcow2(ReaderSuite):
    @pytest.fixture
    def reader(self, qcow2: Path) -> Iterator[NbdClient]:
        with QemuNbd(qcow2, "qcow2") as server, server.connect() as reader:
            yield reader


class TestWritingQcow2(WriterSuite):
    @pytest.fixture
    def writer(self, qcow2: Path) -> Iterator[NbdClient]:
        with QemuNbd(qcow2, "qcow2", read_only=False, cache="unsafe") as server, server.connect() as writer:
            yield writer

    @pytest.fixture
    def read_back(self, writer: NbdClient) -> ReadBack:
        def read_back() -> bytes:
            with writer.clone() as other:
                return read(other, 0, other.size)

        return read_back


class TestWritingRawWithoutPageCache(WriterSuite):
    @pytest.fixture
    def writer(self, raw: Path) -> Iterator[NbdClient]:
        with QemuNbd(raw, "raw", read_only=False, cache="none") as server, server.connect() as writer:
            yield writer

    @pytest.fixture
    def read_back(self, raw: Path) -> ReadBack:
        return raw.read_bytes


@pytest.mark.parametrize("name", ["raw", "qcow2", "vmdk", "vhdx", "vpc", "vdi"])
def test_what_is_written_into_an_image_is_in_it(tmp_path: Path, raw: Path, name: str) -> None:
    image = tmp_path / f"image.{name}"
    create_image(image, name, SIZE)
    assert image.stat().st_mode & 0o777 == 0o600
    with QemuNbd(image, name, read_only=False, cache="unsafe") as server, server.connect() as disk:
        disk.write(0, CONTENT)
        disk.flush()

    info = image_info(image)
    # VHD rounds its size up to cylinders, and its first sector says nothing about the format.
    assert info.format == name
    assert info.virtual_size >= SIZE
    assert qemu("qemu-img", "compare", "-f", name, "-F", "raw", image, raw).endswith("identical.\n")


def test_tells_the_usable_bitmaps(qcow2: Path) -> None:
    qemu("qemu-img", "bitmap", "--add", qcow2, "b0")
    assert image_info(qcow2, "qcow2").bitmaps == ("b0",)


def test_create_never_overwrites(raw: Path) -> None:
    with pytest.raises(TargetExists):
        create_image(raw, "raw", 4096)
    assert raw.read_bytes() == CONTENT


def test_a_failed_create_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceLost):
        create_image(tmp_path / "image", "qcow2", 1 << 62)
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats_are_refused(raw: Path) -> None:
    with pytest.raises(UsageError, match="blkdebug"):
        image_info(raw, "blkdebug")
    with pytest.raises(UsageError, match="blkdebug"), QemuNbd(raw, "blkdebug"):
        pass


def test_a_wrong_format_is_refused(raw: Path) -> None:
    with pytest.raises(UsageError, match="not in qcow2 format"), QemuNbd(raw, "qcow2"):
        pass


def test_a_missing_image_is_lost(tmp_path: Path) -> None:
    with pytest.raises(SourceLost, match="No such file"):
        image_info(tmp_path / "nowhere", "raw")
    with pytest.raises(SourceLost, match="No such file"), QemuNbd(tmp_path / "nowhere", "raw"):
        pass


def test_an_image_in_use_is_refused_but_can_be_looked_at(qcow2: Path) -> None:
    with QemuNbd(qcow2, "qcow2", read_only=False):
        assert image_info(qcow2, "qcow2").virtual_size == SIZE
        with pytest.raises(PermissionRefused, match="in use"), QemuNbd(qcow2, "qcow2"):
            pass


def test_a_missing_bitmap_is_lost(qcow2: Path) -> None:
    with pytest.raises(SourceLost, match="'b7' is not found"), QemuNbd(qcow2, "qcow2", bitmap="b7"):
        pass


def _overlay(tmp_path: Path, raw: Path) -> Path:
    path = tmp_path / "overlay"
    qemu("qemu-img", "create", "-f", "qcow2", "-b", raw, "-F", "raw", path)
    return path


def _with_data_file(tmp_path: Path, raw: Path) -> Path:
    path = tmp_path / "external"
    qemu("qemu-img", "create", "-f", "qcow2", "-o", f"data_file={raw}", path, str(SIZE))
    return path


def _flat_vmdk(tmp_path: Path, raw: Path) -> Path:
    path = tmp_path / "flat.vmdk"
    qemu("qemu-img", "create", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, str(SIZE))
    return path


@pytest.mark.parametrize(
    ("make", "name"), [(_overlay, "qcow2"), (_with_data_file, "qcow2"), (_flat_vmdk, "vmdk")]
)
def test_images_that_name_other_files_are_refused(
    tmp_path: Path, raw: Path, make: Callable[[Path, Path], Path], name: str
) -> None:
    image = make(tmp_path, raw)

    for guess in (None, name):
        with pytest.raises(PermissionRefused, match="refers to other files"):
            image_info(image, guess)
    with pytest.raises(PermissionRefused), QemuNbd(image, name):
        pass
    assert image_info(image, allow_references=True).references
    with QemuNbd(image, name, allow_references=True) as server, server.connect() as disk:
        assert disk.size == SIZE


def test_a_raw_disk_that_looks_like_an_overlay_is_only_a_raw_disk(tmp_path: Path, raw: Path) -> None:
    trap = _overlay(tmp_path, raw)
    with QemuNbd(trap, "raw") as server, server.connect() as disk:
        # QEMU rounds the size of a raw file up to whole sectors.
        assert read(disk, 0, disk.size).rstrip(b"\0") == trap.read_bytes().rstrip(b"\0")


def test_nothing_stays_behind(qcow2: Path) -> None:
    with QemuNbd(qcow2, "qcow2") as server:
        directory = server.socket.parent
        with server.connect() as disk:
            assert disk.multi_conn
            assert disk.read_only
    assert not directory.exists()
    assert _servers_of(qcow2) == []


def test_a_server_that_was_killed_is_told_when_it_was_writing(qcow2: Path) -> None:
    server = QemuNbd(qcow2, "qcow2", read_only=False)
    server.__enter__()
    (pid,) = _servers_of(qcow2)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(SourceLost, match="ended with status"):
        server.__exit__(None, None, None)


def test_the_server_ends_when_we_are_killed(qcow2: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from hotspare.block.qemu import QemuNbd\n"
        f"with QemuNbd(Path({str(qcow2)!r}), 'qcow2'): print('up', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "TMPDIR": str(qcow2.parent)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as us:
        assert us.stdout is not None
        assert us.stdout.readline() == b"up\n"
        assert len(_servers_of(qcow2)) == 1
        us.kill()
    deadline = time.monotonic() + 60
    while _servers_of(qcow2) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _servers_of(qcow2) == []


def test_missing_programs_are_named(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PlatformUnavailable, match="qemu-img"):
        image_info(raw, "raw")


@pytest.mark.parametrize("make", [_overlay, _with_data_file])
def test_qemu_never_sees_a_qcow2_that_names_other_files(
    tmp_path: Path, raw: Path, make: Callable[[Path, Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make(tmp_path, raw)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PermissionRefused, match="refers to other files"):
        image_info(image)


def test_trim_and_holes_reach_the_image(tmp_path: Path) -> None:
    image = tmp_path / "image"
    create_image(image, "qcow2", 64 * MIB)
    with QemuNbd(image, "qcow2", read_only=False) as server, server.connect() as disk:
        disk.write(0, b"x" * 32 * MIB)
        disk.flush()
        full = image.stat().st_blocks
        disk.write_zeroes(0, 16 * MIB)
        disk.trim(16 * MIB, 16 * MIB)
        disk.flush()
    assert image.stat().st_blocks < full / 4


def _servers_of(image: Path) -> list[int]:
    """Find the qemu-nbd processes of an image by their command lines."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if words[0] == b"qemu-nbd" and str(image).encode() in words:
            found.append(int(process.parent.name))
    return found
