"""Our server against the clients of QEMU and libnbd, and against our own."""

import json
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.file import RawFile
from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.extents import changed_extents
from hotspare.block.nbd.server import Export, NbdServer
from hotspare.errors import (
    HotspareError,
    NoSpace,
    PermissionRefused,
    SourceLost,
    TargetExists,
    UsageError,
)
from hotspare.units import GIB, KIB, MIB
from tests.block.nbd.programs import run
from tests.contracts.block_suite import CONTENT, SIZE, ReadBack, ReaderSuite, WriterSuite, read


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The content with its zeroes as holes."""
    path = tmp_path / "disk.raw"
    with RawFile.create(path, SIZE) as disk:
        for start in range(0, SIZE, 4096):
            block = CONTENT[start : start + 4096]
            if any(block):
                disk.write(start, block)
    return path


@pytest.fixture
def server(tmp_path: Path, image: Path) -> Iterator[NbdServer]:
    with RawFile.open(image, read_only=False) as disk:
        exports = {"vda": Export(disk, disk), "": Export(disk)}
        with NbdServer.start(tmp_path / "ours.sock", exports) as server:
            yield server


def uri(server: NbdServer, export: str = "vda") -> str:
    if isinstance(server.address, tuple):
        return f"nbd://{server.address[0]}:{server.address[1]}/{export}"
    return f"nbd+unix:///{export}?socket={server.address}"


class TestReading(ReaderSuite):
    @pytest.fixture
    def reader(self, server: NbdServer) -> Iterator[NbdClient]:
        with NbdClient.connect(server.address, "vda") as reader:
            yield reader


class TestWriting(WriterSuite):
    @pytest.fixture
    def writer(self, server: NbdServer) -> Iterator[NbdClient]:
        with NbdClient.connect(server.address, "vda") as writer:
            yield writer

    @pytest.fixture
    def read_back(self, image: Path) -> ReadBack:
        return image.read_bytes


def test_qemu_reads_the_same(server: NbdServer, image: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri(server), copy)
    assert run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri(server), image).endswith("identical.\n")
    assert run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", copy, image).endswith("identical.\n")


def test_qemu_sees_the_same_map(server: NbdServer, image: Path) -> None:
    maps = []
    for source in (uri(server), str(image)):
        runs = json.loads(run("qemu-img", "map", "-f", "raw", "--output=json", source))
        maps.append([(part["start"], part["length"], part["zero"]) for part in runs])
    assert maps[0] == maps[1]
    assert len(maps[0]) > 3


def test_qemu_writes(server: NbdServer, image: Path) -> None:
    commands = [
        "write -P 7 100 300000",
        "write -z 1M 64k",
        "write -zu 3M 64k",
        "discard 4M 1M",
        "write -f -P 9 0 1",
    ]
    arguments = [word for command in commands for word in ("-c", command)]
    run("qemu-io", "-f", "raw", "-d", "unmap", *arguments, uri(server))

    expected = bytearray(CONTENT)
    expected[100:300_100] = b"\7" * 300_000
    for start, length in ((MIB, 64 * KIB), (3 * MIB, 64 * KIB), (4 * MIB, MIB)):
        expected[start : start + length] = bytes(length)
    expected[0] = 9
    assert image.read_bytes() == expected


def test_nbdcopy_reads_and_writes_over_several_connections(
    server: NbdServer, image: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    run("nbdcopy", "--connections=4", "--request-size=65536", uri(server), copy)
    assert copy.read_bytes() == CONTENT

    other = tmp_path / "other"
    other.write_bytes(CONTENT[::-1])
    run("nbdcopy", "--connections=4", "--flush", other, uri(server))
    assert image.read_bytes() == CONTENT[::-1]


def test_nbdinfo_lists_the_exports(server: NbdServer) -> None:
    told = json.loads(run("nbdinfo", "--json", "--list", uri(server)))["exports"]
    assert {export["export-name"]: export["is_read_only"] for export in told} == {"vda": False, "": True}
    assert all(export["export-size"] == SIZE for export in told)
    assert all(export["can_multi_conn"] for export in told)


def test_serves_over_loopback(tmp_path: Path, image: Path) -> None:
    with RawFile.open(image) as disk, NbdServer.start(("127.0.0.1", 0), {"vda": Export(disk)}) as server:
        run("nbdcopy", uri(server), tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == CONTENT
        with NbdClient.connect(server.address, "vda") as client:
            assert client.read_only
            assert read(client, 0, SIZE) == CONTENT


def test_serves_a_dirty_bitmap_beside_the_data(tmp_path: Path, image: Path) -> None:
    def dirty(offset: int, length: int) -> Iterator[tuple[int, int]]:
        for at in range(offset, offset + length, 512):
            yield 512, int(at < 3 * 512 or 2 * MIB <= at < 2 * MIB + 1024)

    with RawFile.open(image) as disk:
        export = Export(disk, contexts={"test:dirty": dirty})
        with NbdServer.start(tmp_path / "sock", {"": export}) as server:
            assert "test:dirty" in run("nbdinfo", uri(server, ""))
            contexts = ("base:allocation", "test:dirty", "test:unknown")
            with NbdClient.connect(server.address, contexts=contexts) as client:
                assert client.contexts == ("base:allocation", "test:dirty")
                assert list(changed_extents(client, "test:dirty")) == [
                    Extent(0, 1536, ExtentKind.DATA),
                    Extent(2 * MIB, 1024, ExtentKind.ZERO),
                ]


class BrokenDisk:
    """A disk that fails in one way, or waits until it is let go."""

    size = GIB

    def __init__(self, failure: HotspareError | None = None) -> None:
        self.failure = failure
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.entered.release()
        if self.failure is not None:
            raise self.failure
        assert self.release.wait(60)
        buffer[:] = offset.to_bytes(8, "big") * (len(buffer) // 8)

    def write(self, offset: int, data: object) -> None:
        self.read_into(offset, memoryview(bytearray(8)))

    def write_zeroes(self, offset: int, length: int) -> None:
        self.read_into(offset, memoryview(bytearray(8)))

    def flush(self) -> None: ...

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, ExtentKind.DATA)

    def clone(self) -> "BrokenDisk":
        return self

    def close(self) -> None: ...


@pytest.mark.parametrize("kind", [NoSpace, PermissionRefused, SourceLost])
def test_failures_of_the_disk_reach_the_client_in_words(tmp_path: Path, kind: type[HotspareError]) -> None:
    disk = BrokenDisk(kind("the dog ate it"))
    with (
        NbdServer.start(tmp_path / "sock", {"": Export(disk, disk)}) as server,
        NbdClient.connect(server.address) as client,
    ):
        for _ in range(2):
            with pytest.raises(kind, match="the dog ate it"):
                read(client, 0, 4096)
        client.write(0, b"x")
        with pytest.raises(kind, match="the dog ate it"):
            client.flush()


def test_requests_of_one_connection_are_done_at_the_same_time(tmp_path: Path) -> None:
    disk = BrokenDisk()
    with (
        NbdServer.start(tmp_path / "sock", {"": Export(disk)}, workers=4) as server,
        NbdClient.connect(server.address) as client,
    ):
        buffer = bytearray(4 * MIB)
        thread = threading.Thread(target=client.read_into, args=(0, memoryview(buffer)))
        thread.start()
        assert all(disk.entered.acquire(timeout=60) for _ in range(4))
        disk.release.set()
        thread.join()
        for number in range(4):
            assert buffer[number * MIB :][:8] == (number * MIB).to_bytes(8, "big")


def test_closing_hangs_up_on_idle_and_busy_clients(tmp_path: Path) -> None:
    disk = BrokenDisk()
    server = NbdServer.start(tmp_path / "sock", {"": Export(disk)})
    idle, busy = NbdClient.connect(server.address), NbdClient.connect(server.address)
    failures: list[HotspareError] = []

    def read_until_lost() -> None:
        try:
            read(busy, 0, 8)
        except SourceLost as error:
            failures.append(error)

    thread = threading.Thread(target=read_until_lost)
    thread.start()
    assert disk.entered.acquire(timeout=60)
    threading.Timer(0.2, disk.release.set).start()
    started = time.monotonic()
    server.close()
    server.close()
    assert time.monotonic() - started < 15
    thread.join()
    assert len(failures) == 1
    with pytest.raises(SourceLost):
        read(idle, 0, 8)
    idle.close()
    busy.close()
    assert not (tmp_path / "sock").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nbd-")]


def test_a_client_that_talks_nonsense_does_not_disturb_the_others(server: NbdServer) -> None:
    with NbdClient.connect(server.address, "vda") as client:
        for nonsense in (b"", b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\3IHAVEOPT" + b"\xff" * 50):
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(str(server.address))
                other.sendall(nonsense)
                other.shutdown(socket.SHUT_WR)
                other.settimeout(5)
                with suppress(ConnectionResetError):  # it hangs up without reading all of it
                    while other.recv(4096):
                        pass
        assert read(client, 0, SIZE) == CONTENT


def test_more_connections_than_allowed_are_turned_away(server: NbdServer) -> None:
    clients = [NbdClient.connect(server.address, "vda") for _ in range(64)]
    with pytest.raises(SourceLost):
        NbdClient.connect(server.address, "vda")
    for client in clients:
        client.close()


def test_only_the_owner_may_connect(server: NbdServer) -> None:
    assert isinstance(server.address, Path)
    assert stat.S_IMODE(server.address.stat().st_mode) == 0o600


def test_a_taken_address_is_named(server: NbdServer) -> None:
    with pytest.raises(TargetExists, match=r"ours\.sock"):
        NbdServer.start(server.address, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "localhost.example"])
def test_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(UsageError, match="loopback"):
        NbdServer.start((host, 0), {})


def test_a_path_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceLost, match="Cannot listen"):
        NbdServer.start(tmp_path / "nowhere" / "sock", {})
    with pytest.raises(SourceLost, match="Cannot listen"):
        NbdServer.start(tmp_path / ("x" * 200), {})
