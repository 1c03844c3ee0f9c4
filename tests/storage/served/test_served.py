"""The served store against the contract: over a pipe, and over OpenSSH's real server."""

import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from hotspare.errors import HotspareError, NoSpace, PermissionRefused, StorageError
from hotspare.storage.local import LocalBackend
from hotspare.storage.registry import open_backend
from hotspare.storage.served import protocol
from hotspare.storage.served.client import ServedBackend
from hotspare.storage.served.connection import ServedConnection
from hotspare.storage.served.frames import encode_head
from hotspare.storage.served.protocol import MAGIC, Get, Hello, Message, Piece, Put, Size
from hotspare.storage.wrappers.retry import RetryBackend
from tests.contracts.storage_suite import StorageSuite
from tests.storage.servers import SERVE, Sshd

PATIENCE = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def backend(folder: Path) -> Iterator[ServedBackend]:
    backend = ServedBackend.over("pipe", [*SERVE, str(folder)], str(folder))
    yield backend
    backend.close()


def _emptied(backend: ServedBackend) -> ServedBackend:
    for item in backend.list(""):
        backend.delete(item.name)
    return backend


@pytest.fixture(scope="module")
def over_a_pipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedBackend]:
    folder = str(tmp_path_factory.mktemp("served"))
    backend = ServedBackend.over("pipe", [*SERVE, folder], folder)
    yield backend
    backend.close()


class TestServedOverAPipe(StorageSuite):
    @pytest.fixture
    def backend(self, over_a_pipe: ServedBackend) -> ServedBackend:
        return _emptied(over_a_pipe)


@pytest.fixture(scope="module")
def full_access(any_sshd: Sshd) -> dict[str, str]:
    return any_sshd.served_environment()


@pytest.fixture(scope="module")
def over_ssh(
    any_sshd: Sshd, full_access: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedBackend]:
    backend = ServedBackend.at(any_sshd.served_url(tmp_path_factory.mktemp("served")), full_access)
    yield backend
    backend.close()


class TestServedOverSsh(StorageSuite):
    @pytest.fixture
    def backend(self, over_ssh: ServedBackend) -> ServedBackend:
        return _emptied(over_ssh)


def test_puts_are_durable_and_files_private(backend: ServedBackend, folder: Path) -> None:
    backend.put("data/aa/x", [b"x"])
    backend.put("data/aa/x", [b"y"])

    assert backend.durability == "fsync"
    assert backend.capabilities.access == "full"
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["x"]
    assert (folder / "data/aa/x").stat().st_mode & 0o777 == 0o600


def test_small_objects_pass_a_large_one(backend: ServedBackend) -> None:
    backend.put("large", [bytes(64 << 20)])
    connection = backend._connected()
    order: list[str] = []

    def get_large() -> None:
        backend.get("large")
        order.append("large")

    reader = threading.Thread(target=get_large)
    # Asked for on the same connection before the large one can have been read by anybody.
    with connection._calls_lock:
        reader.start()
        sizes = [threading.Thread(target=lambda: order.append(str(backend.size("large")))) for _ in range(3)]
        for thread in sizes:
            thread.start()
    for thread in [*sizes, reader]:
        thread.join(PATIENCE)
    assert sorted(order) == ["67108864"] * 3 + ["large"]


def test_a_large_listing_comes_in_parts(backend: ServedBackend, folder: Path) -> None:
    (folder / "points").mkdir(parents=True)
    names = [f"points/{number:05}" for number in range(2 * protocol.LISTED_MAX + 7)]
    for name in names:
        (folder / name).touch()

    assert [item.name for item in backend.list("points/")] == names


# Connections that are lost.


def _server_of(folder: Path) -> list[int]:
    """Give the processes that serve a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"serve" in words and str(folder).encode() in words and not words[0].endswith(b"ssh"):
            found.append(int(path.parent.name))
    return found


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_server_that_dies_in_the_middle_of_a_put_leaves_nothing(
    backend: ServedBackend, folder: Path
) -> None:
    backend.put("data/before", [b"whole"])
    (server,) = _server_of(folder)
    os.kill(server, signal.SIGSTOP)
    failures: list[HotspareError] = []

    def put() -> None:
        try:
            backend.put("data/large", [bytes(50_000_000)])
        except HotspareError as error:
            failures.append(error)

    writer = threading.Thread(target=put)
    writer.start()
    os.kill(server, signal.SIGKILL)
    writer.join(PATIENCE)

    assert isinstance(failures[0], StorageError)
    assert failures[0].may_pass
    assert [item.name for item in backend.list("")] == ["data/before"], "a new connection was made"
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["before"]


def test_calls_go_on_over_a_new_connection(any_sshd: Sshd, full_access: dict[str, str], folder: Path) -> None:
    backend = open_backend(any_sshd.served_url(folder), full_access)
    assert isinstance(backend, RetryBackend)
    for number in range(3):
        backend.put(f"data/{number}", [b"x"])
        any_sshd.kill_sessions()
    assert len(list(backend.list("data/"))) == 3
    backend.close()


def test_the_server_ends_with_its_client(folder: Path) -> None:
    folder.mkdir()
    client = subprocess.Popen([*SERVE, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdin
    half = Put(1, "data/half", 10)
    client.stdin.write(MAGIC + encode_head(Hello(protocol.VERSION, "test", str(folder))))
    client.stdin.write(encode_head(half) + encode_head(Piece(1), 5) + b"01234")
    client.stdin.close()

    assert client.wait(PATIENCE) == 0
    assert client.stdout
    client.stdout.close()
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_the_end_of_a_session_ends_what_ssh_started(
    any_sshd: Sshd, full_access: dict[str, str], folder: Path
) -> None:
    backend = ServedBackend.at(any_sshd.served_url(folder), full_access)
    backend.put("x", [b"x"])
    assert _server_of(folder)
    backend.close()
    assert _eventually(lambda: not _server_of(folder))


# What a server refuses.


def _every_verb(backend: ServedBackend, name: str) -> list[Callable[[], object]]:
    return [
        lambda: backend.put(name, [b"evil"]),
        lambda: backend.get(name),
        lambda: backend.get_range(name, 0, 1),
        lambda: backend.size(name),
        lambda: backend.delete(name),
    ]


def test_no_name_leads_out_of_the_folder(backend: ServedBackend, folder: Path) -> None:
    backend.put("there", [b"x"])
    before = sorted(folder.parent.rglob("*"))
    odd = ["../outside", "/etc/passwd", "a//b", "a/../../b", ".tmp-1", "a/.hidden", "A", "a/", "a\0b"]
    for name in [*odd, "x" * 600]:
        for call in _every_verb(backend, name):
            with pytest.raises(StorageError, match="name"):
                call()
        with pytest.raises(StorageError, match="names begin"):
            list(backend.list(f"{name}/"))
    for call in _every_verb(backend, ""):
        with pytest.raises(StorageError, match="name"):
            call()
    assert sorted(folder.parent.rglob("*")) == before


def test_a_read_only_server_changes_nothing(folder: Path) -> None:
    LocalBackend(folder).put("data/x", [b"x"])
    backend = ServedBackend.over("pipe", [*SERVE, "--read-only", str(folder)], str(folder))
    with pytest.raises(PermissionRefused, match="can only be read"):
        backend.put("data/y", [b"y"])
    with pytest.raises(PermissionRefused, match="can only be read"):
        backend.delete("data/x")
    assert backend.get("data/x") == b"x"
    assert backend.capabilities.access == "read-only"
    backend.close()


def test_a_key_leads_to_one_folder_only(any_sshd: Sshd, folder: Path, tmp_path: Path) -> None:
    environment = any_sshd.served_environment(f"repo serve --append-only {folder}")
    wrong = ServedBackend.at(any_sshd.served_url(tmp_path / "other"), environment)
    with pytest.raises(PermissionRefused, match=f"leads to the folder {folder}"):
        wrong.put("x", [b"x"])
    wrong.close()
    right = ServedBackend.at(any_sshd.served_url(folder), environment)
    assert right.capabilities.access == "append-only"
    right.close()


class _Raw:
    """A client that says what no client of ours does."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [*SERVE, *options, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def say(self, *messages: tuple[Message, bytes]) -> tuple[int, str]:
        stream = MAGIC + b"".join(encode_head(message, len(body)) + body for message, body in messages)
        _, words = self.process.communicate(stream, timeout=PATIENCE)
        return self.process.returncode, words.decode()


HELLO = protocol.VERSION, "test"


@pytest.mark.parametrize(
    "messages",
    [
        [(Put(1, "x", 3), b"")],
        [(Piece(5), b"x")],
        [(Put(1, "x", 3), b""), (Piece(1), b"four")],
        [(Put(1, "x", 3), b""), (Piece(1), b"")],
        [(Put(1, "x", -1), b"")],
        [(Put(1, "x", 3), b""), (Put(1, "y", 3), b"")],
        [(Put(number, f"x{number}", 3), b"") for number in range(70)],
        [(protocol.Done(1), b"")],
    ],
)
def test_who_breaks_the_rules_is_hung_up_on(folder: Path, messages: list[tuple[Message, bytes]]) -> None:
    folder.mkdir()
    hello: tuple[Message, bytes] = Hello(*HELLO, str(folder)), b""
    ungreeted = messages == [(Put(1, "x", 3), b"")]
    status, words = _Raw(folder).say(*(messages if ungreeted else [hello, *messages]))

    assert status == 27
    assert "does not keep to the protocol" in words
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_another_version_is_named_on_both_sides(folder: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    body = repr(MAGIC + encode_head(protocol.Failed(0, "storage", "speaks version 9", "", "upgrade", False)))
    old.write_text(f"#!/usr/bin/env python3\nimport sys\nsys.stdout.buffer.write({body})\n")
    old.chmod(0o755)
    backend = ServedBackend.over("pipe", [str(old)], str(folder))
    with pytest.raises(StorageError, match="speaks version 9") as caught:
        backend.put("x", [b"x"])
    assert not caught.value.may_pass
    backend.close()

    process = _Raw(folder).process
    said, _ = process.communicate(MAGIC + encode_head(Hello(9, "8.8", str(folder))), timeout=PATIENCE)
    assert b"this is Hotspare 8.8, which speaks version 9" in said


def test_a_full_file_system_leaves_no_part_and_the_connection_goes_on(small_file_system: Path) -> None:
    backend = ServedBackend.over("pipe", [*SERVE, str(small_file_system)], str(small_file_system))
    backend.put("data/fits", [bytes(300_000)])
    connection = backend._connected()

    with pytest.raises(NoSpace, match="full"):
        backend.put("data/does-not", [bytes(5_000_000)])
    backend.put("data/fits-too", [bytes(300_000)])
    assert backend._connected() is connection
    assert [item.name for item in backend.list("")] == ["data/fits", "data/fits-too"]
    backend.close()
    assert _eventually(lambda: not _server_of(small_file_system))


def test_requests_of_one_connection_are_told_apart(backend: ServedBackend) -> None:
    for number in range(40):
        backend.put(f"data/{number:02}", [secrets.token_bytes(number * 50_000)])
    connection: ServedConnection = backend._connected()
    wrong: list[int] = []

    def check(number: int) -> None:
        whole = backend.get(f"data/{number:02}")
        if backend.size(f"data/{number:02}") != len(whole) or len(whole) != number * 50_000:
            wrong.append(number)
        if number and backend.get_range(f"data/{number:02}", 7, 9) != whole[7:16]:
            wrong.append(number)

    threads = [threading.Thread(target=check, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert wrong == []
    assert not connection._calls
    assert connection.ask(Size(connection.next_id(), "data/01"), timeout=PATIENCE).value == 50_000
    with pytest.raises(StorageError, match="ends before"):
        connection.ask(Get(connection.next_id(), "data/01", 50_000, 1), timeout=PATIENCE)


def test_it_tells_how_full_the_servers_file_system_is(backend: ServedBackend, folder: Path) -> None:
    backend.put("data/aa/x", [b"x"])
    ask = backend.capabilities.space
    assert ask is not None
    space = ask()
    assert space is not None
    status = os.statvfs(folder)
    assert space.total == status.f_blocks * status.f_frsize
    assert 0 < space.free <= space.total


def test_an_older_server_is_not_asked_for_it(backend: ServedBackend) -> None:
    connection = backend._connected()
    connection.welcome = msgspec.structs.replace(connection.welcome, offers=())
    assert backend.capabilities.space is None
    assert backend._space() is None
