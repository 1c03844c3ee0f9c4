"""Our client against the servers of QEMU and nbdkit."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.nbd.client import NbdClient
from hotspare.errors import HotspareError, NoSpace, PermissionRefused, SourceLost
from hotspare.units import GIB, KIB, MIB
from tests.block.nbd.programs import nbdkit, run
from tests.contracts.block_suite import CONTENT, SIZE, ReadBack, ReaderSuite, WriterSuite, read


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def read_back(image: Path) -> ReadBack:
    return image.read_bytes


class TestReading(ReaderSuite):
    @pytest.fixture
    def reader(self, tmp_path: Path, image: Path) -> Iterator[NbdClient]:
        with nbdkit(tmp_path, "file", image) as server, NbdClient.connect(server.socket) as reader:
            yield reader


class TestReadingWithSimpleReplies(ReaderSuite):
    @pytest.fixture
    def reader(self, tmp_path: Path, image: Path) -> Iterator[NbdClient]:
        with (
            nbdkit(tmp_path, "--no-sr", "file", image) as server,
            NbdClient.connect(server.socket) as reader,
        ):
            assert reader.contexts == ()
            yield reader


class TestReadingWholeBlocksOfAStrictServer(ReaderSuite):
    @pytest.fixture
    def reader(self, tmp_path: Path, image: Path) -> Iterator[NbdClient]:
        with (
            nbdkit(tmp_path, *STRICT, "file", image, *STRICT_SIZES) as server,
            NbdClient.connect(server.socket) as reader,
        ):
            assert reader.minimum_block_size == 512
            assert reader.preferred_block_size == 4096
            assert reader.maximum_block_size == 64 * KIB
            yield reader


STRICT = ("--filter=blocksize-policy",)
STRICT_SIZES = (
    "blocksize-error-policy=error",
    "blocksize-minimum=512",
    "blocksize-preferred=4K",
    "blocksize-maximum=64K",
)


class TestWriting(WriterSuite):
    @pytest.fixture
    def writer(self, tmp_path: Path, image: Path) -> Iterator[NbdClient]:
        with nbdkit(tmp_path, "file", image) as server, NbdClient.connect(server.socket) as writer:
            yield writer


class TestWritingWithReordering(WriterSuite):
    """The server delays writes and zeroes differently, so that requests in flight overtake each other."""

    @pytest.fixture
    def writer(self, tmp_path: Path, image: Path) -> Iterator[NbdClient]:
        delays = ("--filter=delay", "file", image, "wdelay=3ms", "delay-zero=0ms")
        with nbdkit(tmp_path, *delays) as server, NbdClient.connect(server.socket) as writer:
            yield writer


class TestWritingWithoutZeroRequests(WriterSuite):
    @pytest.fixture
    def writer(self, tmp_path: Path, image: Path) -> Iterator[NbdClient]:
        arguments = ("--no-sr", "--filter=nozero", "file", image, "zeromode=none")
        with nbdkit(tmp_path, *arguments) as server, NbdClient.connect(server.socket) as writer:
            yield writer


class TestWritingWithoutMultiConn(WriterSuite):
    @pytest.fixture
    def writer(self, tmp_path: Path, image: Path) -> Iterator[NbdClient]:
        arguments = ("--filter=multi-conn", "file", image, "multi-conn-mode=disable")
        with nbdkit(tmp_path, *arguments) as server, NbdClient.connect(server.socket) as writer:
            assert not writer.multi_conn
            yield writer


class TestWritingWholeBlocksOfAStrictServer(WriterSuite):
    @pytest.fixture
    def writer(self, tmp_path: Path, image: Path) -> Iterator[NbdClient]:
        with (
            nbdkit(tmp_path, *STRICT, "file", image, *STRICT_SIZES) as server,
            NbdClient.connect(server.socket) as writer,
        ):
            yield writer


@pytest.mark.parametrize("mode", ["auto", "disable"])
def test_flush_waits_for_what_clones_have_in_flight(
    tmp_path: Path, image: Path, read_back: ReadBack, mode: str
) -> None:
    filters = ("--filter=multi-conn", "--filter=delay", "file", image)
    with (
        nbdkit(tmp_path, *filters, f"multi-conn-mode={mode}", "wdelay=300ms") as server,
        NbdClient.connect(server.socket) as client,
        client.clone() as clone,
    ):
        clone.write(0, b"slowly")
        client.flush()
        assert read_back()[:6] == b"slowly"


def test_reads_over_tcp(image: Path) -> None:
    # nbdkit cannot choose a port itself, but takes a listening socket like systemd's.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        command = 'exec env LISTEN_PID=$$ LISTEN_FDS=1 nbdkit -f file "$0" 3<&$1'
        shell = ["bash", "-c", command, str(image), str(listening.fileno())]
        server = subprocess.Popen(shell, pass_fds=[listening.fileno()])
    try:
        with NbdClient.connect(("127.0.0.1", port)) as client:
            assert read(client, 0, SIZE) == CONTENT
    finally:
        server.kill()
        server.wait()


def test_a_large_sparse_disk_is_mapped_and_read_as_nbdcopy_does(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with nbdkit(tmp_path, "sparse-random", "size=6G", "percent=1", "seed=7", f"runlength={MIB}") as server:
        run("nbdcopy", f"nbd+unix:///?socket={server.socket}", copy)
        with NbdClient.connect(server.socket) as client, copy.open("rb") as expected:
            extents = list(client.extents(0, client.size))
            data = [extent for extent in extents if extent.kind is ExtentKind.DATA]
            assert sum(extent.length for extent in extents) == client.size == 6 * GIB
            assert 8 * MIB < sum(extent.length for extent in data) < 200 * MIB
            assert all(a.kind is not b.kind for a, b in pairwise(extents))
            for extent in data:
                expected.seek(extent.offset)
                assert read(client, extent.offset, extent.length) == expected.read(extent.length)


def test_questions_about_status_stay_below_four_gib(tmp_path: Path) -> None:
    with nbdkit(tmp_path, "memory", "100G") as server, NbdClient.connect(server.socket) as client:
        client.write(50 * GIB, b"x" * 64 * KIB)
        client.flush()
        assert list(client.extents(5, 100 * GIB - 5)) == [
            Extent(5, 50 * GIB - 5, ExtentKind.ZERO),
            Extent(50 * GIB, 64 * KIB, ExtentKind.DATA),
            Extent(50 * GIB + 64 * KIB, 50 * GIB - 64 * KIB, ExtentKind.ZERO),
        ]


def test_zeroes_and_trims_in_bounded_steps(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        nbdkit(tmp_path, "--filter=log", "memory", "3G", f"logfile={log}") as server,
        NbdClient.connect(server.socket) as client,
    ):
        client.write_zeroes(100, 2 * GIB)
        client.trim(0, GIB)
        client.flush()
    lines = log.read_text().splitlines()
    zeroed = [line for line in lines if " Zero id=" in line]
    assert len(zeroed) == 8
    assert len([line for line in lines if " Trim id=" in line]) == 4


def test_a_failed_read_leaves_the_connection_usable(tmp_path: Path) -> None:
    trigger = tmp_path / "trigger"
    arguments = ("--filter=error", "memory", "8M", "error-pread=EIO", "error-pread-rate=100%")
    with (
        nbdkit(tmp_path, *arguments, f"error-pread-file={trigger}") as server,
        NbdClient.connect(server.socket) as client,
    ):
        trigger.touch()
        with pytest.raises(SourceLost, match=r"could not read .* EIO"):
            read(client, 0, 8 * MIB)
        trigger.unlink()
        assert read(client, 0, 8 * MIB) == bytes(8 * MIB)


@pytest.mark.parametrize(("error", "expected"), [("ENOSPC", NoSpace), ("EPERM", PermissionRefused)])
@pytest.mark.parametrize("clone", [False, True])
def test_a_failed_write_fails_the_flush(
    tmp_path: Path, error: str, expected: type[HotspareError], clone: bool
) -> None:
    with (
        nbdkit(
            tmp_path, "--filter=error", "memory", "8M", f"error-pwrite={error}", "error-pwrite-rate=1"
        ) as server,
        NbdClient.connect(server.socket) as client,
    ):
        if clone:
            with client.clone() as writer:
                writer.write(0, b"x")
        else:
            client.write(0, b"x")
        for _ in range(2):
            with pytest.raises(expected, match="could not write 1 bytes at 0"):
                client.flush()
        with pytest.raises(expected):
            client.write(0, b"x")


def test_a_full_server_is_no_space(tmp_path: Path) -> None:
    with nbdkit(tmp_path, "full", "1M") as server, NbdClient.connect(server.socket) as client:
        client.write(0, b"x" * 4096)
        with pytest.raises(NoSpace):
            client.flush()


def test_a_read_only_export_refuses_before_asking(tmp_path: Path) -> None:
    with nbdkit(tmp_path, "-r", "memory", "1M") as server, NbdClient.connect(server.socket) as client:
        assert client.read_only
        with pytest.raises(PermissionRefused, match="read-only"):
            client.write(0, b"x")
        with pytest.raises(PermissionRefused, match="read-only"):
            client.write_zeroes(0, 1)
        with pytest.raises(PermissionRefused, match="read-only"):
            client.trim(0, 1)


def test_ranges_beyond_the_disk_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with nbdkit(tmp_path, "memory", "1M") as server, NbdClient.connect(server.socket) as client:
        with pytest.raises(ValueError, match="not all on a disk"):
            read(client, MIB - 1, 2)
        with pytest.raises(ValueError, match="not all on a disk"):
            client.write(-1, b"xx")
        with pytest.raises(ValueError, match="not all on a disk"):
            client.extents(MIB, 1)


def test_a_server_that_is_killed_is_lost_at_once(tmp_path: Path) -> None:
    with (
        nbdkit(tmp_path, "--filter=delay", "memory", "64M", "rdelay=30") as server,
        NbdClient.connect(server.socket) as client,
    ):
        killer = threading.Timer(0.2, server.kill)
        killer.start()
        started = time.monotonic()
        with pytest.raises(SourceLost, match=r"closed the connection|failed"):
            read(client, 0, 64 * MIB)
        killer.join()
        assert time.monotonic() - started < 25  # of the thirty that the answer takes
        with pytest.raises(SourceLost):
            read(client, 0, 1)


def test_a_silent_server_is_lost_after_the_timeout(tmp_path: Path) -> None:
    with nbdkit(tmp_path, "memory", "64M") as server:
        with NbdClient.connect(server.socket, timeout=0.8) as client:
            server.freeze()
            started = time.monotonic()
            with pytest.raises(SourceLost, match=r"did not answer for 0\.8 seconds"):
                read(client, 0, MIB)
            assert time.monotonic() - started > 0.6
        with pytest.raises(SourceLost, match="did not answer"):
            NbdClient.connect(server.socket, timeout=0.8)


def test_a_writer_whose_server_stops_taking_data_is_lost(tmp_path: Path) -> None:
    with (
        nbdkit(tmp_path, "memory", "64M") as server,
        NbdClient.connect(server.socket, timeout=0.8) as client,
    ):
        server.freeze()
        with pytest.raises(SourceLost, match="did not answer"):
            client.write(0, b"x" * 64 * MIB)
        with pytest.raises(SourceLost):
            client.flush()


def test_nothing_there_is_lost(tmp_path: Path) -> None:
    with pytest.raises(SourceLost, match="Nothing serves"):
        NbdClient.connect(tmp_path / "nowhere")
    with pytest.raises(SourceLost, match="Nothing serves"):
        NbdClient.connect(("127.0.0.1", 1), timeout=5)


def test_an_unknown_export_is_named(tmp_path: Path) -> None:
    with nbdkit(
        tmp_path, "--filter=exportname", "memory", "1M", "exportname=vda", "exportname-strict=true"
    ) as server:
        NbdClient.connect(server.socket, "vda").close()
        with pytest.raises(SourceLost, match="'vdb'"):
            NbdClient.connect(server.socket, "vdb")


def test_an_oldstyle_server_is_refused_in_words(tmp_path: Path) -> None:
    with (
        nbdkit(tmp_path, "--oldstyle", "memory", "1M") as server,
        pytest.raises(SourceLost, match="fixed-newstyle"),
    ):
        NbdClient.connect(server.socket)


def test_a_server_that_wants_tls_says_so(tmp_path: Path) -> None:
    keys = tmp_path / "keys.psk"
    keys.write_text("user:00112233445566778899aabbccddeeff\n")
    with (
        nbdkit(tmp_path, "--tls=require", f"--tls-psk={keys}", "memory", "1M") as server,
        pytest.raises(PermissionRefused, match="encrypted"),
    ):
        NbdClient.connect(server.socket)
