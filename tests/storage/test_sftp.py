"""The SFTP store against the contract, on OpenSSH's real server."""

import os
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.errors import ConfigError, HotspareError, NoSpace, PermissionRefused, StorageError, UsageError
from hotspare.storage.registry import open_backend
from hotspare.storage.sftp import SftpBackend
from hotspare.storage.sftp_connection import parse_sftp_url
from tests.contracts.storage_suite import StorageSuite
from tests.storage.servers import Sshd


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def backend(sshd: Sshd, folder: Path) -> Iterator[SftpBackend]:
    backend = SftpBackend(sshd.url(folder))
    yield backend
    backend.close()


class TestSftp(StorageSuite):
    @pytest.fixture
    def backend(self, backend: SftpBackend) -> SftpBackend:
        return backend


class TestSftpWithoutExtensions(StorageSuite):
    @pytest.fixture
    def backend(self, plain_sshd: Sshd, folder: Path) -> Iterator[SftpBackend]:
        backend = SftpBackend(plain_sshd.url(folder))
        yield backend
        backend.close()

    def test_it_says_so(self, backend: SftpBackend) -> None:
        assert backend.durability == "best-effort"


def test_with_all_extensions_puts_are_durable(backend: SftpBackend) -> None:
    assert backend.durability == "fsync"


def test_files_are_private_and_nothing_else_is_left(backend: SftpBackend, folder: Path) -> None:
    backend.put("data/aa/x", [b"x"])
    backend.put("data/aa/x", [b"y"])

    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["x"]
    assert (folder / "data/aa/x").stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (folder, folder / "data", folder / "data/aa")} == {0o700}


def test_names_of_the_ssh_configuration_and_the_home_folder(sshd: Sshd) -> None:
    name = f"repository-{secrets.token_hex(4)}"
    # sshd takes the home folder from the system's users, not from our environment.
    real_home = Path(os.path.expanduser("~root"))  # noqa: PTH111 - Path.home() would give the test's
    backend = open_backend(f"sftp://backup/~/{name}")
    try:
        backend.put("config", [b"x"])
        assert (real_home / name / "config").read_bytes() == b"x"
    finally:
        backend.close()
        subprocess.run(["rm", "-r", real_home / name], check=True)


def test_removes_only_what_crashed_writers_left_long_ago(backend: SftpBackend, folder: Path) -> None:
    folder.mkdir()
    stale, recent = folder / ".tmp-stale", folder / ".tmp-recent"
    for path in (stale, recent):
        path.write_bytes(b"half")
    os.utime(stale, (time.time() - 100_000,) * 2)
    backend.put("data/b", [b"b"])

    assert not stale.exists()
    assert recent.exists()
    assert [item.name for item in backend.list("")] == ["data/b"]


def test_an_unknown_host_key_is_refused(sshd: Sshd, folder: Path, tmp_path: Path) -> None:
    known = sshd.home / ".ssh/known_hosts"
    kept = known.read_text()
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    try:
        for content in ("", f"[127.0.0.1]:{sshd.port} {other.with_suffix('.pub').read_text()}"):
            known.write_text(content)
            backend = SftpBackend(sshd.url(folder))
            with pytest.raises(StorageError, match="known hosts") as caught:
                backend.put("x", [b"x"])
            backend.close()
            assert not caught.value.may_pass
    finally:
        known.write_text(kept)


def test_the_check_of_host_keys_cannot_be_turned_off(
    sshd: Sshd, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    key = sshd.home / ".ssh/id_ed25519"
    (tmp_path / ".ssh/config").write_text(f"UserKnownHostsFile none\nIdentityFile {key}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    backend = SftpBackend(sshd.url(folder))

    with pytest.raises(ConfigError, match="host key"):
        backend.put("x", [b"x"])
    backend.close()


def test_a_user_without_a_key_is_refused(
    sshd: Sshd, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/known_hosts").write_text((sshd.home / ".ssh/known_hosts").read_text())
    monkeypatch.setenv("HOME", str(tmp_path))
    backend = SftpBackend(sshd.url(folder))

    with pytest.raises(PermissionRefused, match="login"):
        backend.put("x", [b"x"])
    backend.close()


def test_a_server_that_is_not_there_may_come_back(sshd: Sshd) -> None:
    backend = SftpBackend("sftp://root@127.0.0.1:1/srv")

    with pytest.raises(StorageError) as caught:
        backend.get("x")
    backend.close()
    assert caught.value.may_pass


def test_a_connection_lost_in_the_middle_of_a_put(sshd: Sshd, backend: SftpBackend, folder: Path) -> None:
    backend.put("data/before", [b"whole"])
    large = bytes(200_000_000)
    failures: list[HotspareError] = []

    def put() -> None:
        try:
            backend.put("data/large", [large])
        except HotspareError as error:
            failures.append(error)

    writer = threading.Thread(target=put)
    writer.start()
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in folder.glob(".tmp-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    sshd.kill_sessions()
    writer.join()

    assert isinstance(failures[0], StorageError)
    assert failures[0].may_pass
    assert [item.name for item in backend.list("")] == ["data/before"]
    backend.put("data/large", [large[:1000]])
    assert backend.size("data/large") == 1000


def test_a_full_file_system_leaves_no_part_of_the_object(sshd: Sshd, small_file_system: Path) -> None:
    backend = SftpBackend(sshd.url(small_file_system))
    backend.put("data/fits", [bytes(300_000)])

    with pytest.raises(NoSpace, match="full"):
        backend.put("data/does-not", [bytes(2_000_000)])
    assert [item.name for item in backend.list("")] == ["data/fits"]
    assert not list(small_file_system.glob(".tmp-*"))

    subprocess.run(["mount", "-o", "remount,ro", small_file_system], check=True)
    with pytest.raises(PermissionRefused, match="read-only"):
        backend.put("data/y", [b"y"])
    assert backend.size("data/fits") == 300_000
    backend.close()


@pytest.mark.parametrize(
    ("url", "host", "port", "user", "folder"),
    [
        ("sftp://host/srv/backup", "host", None, None, "/srv/backup"),
        ("sftp://me@host:2222/srv/a%20b/", "host", 2222, "me", "/srv/a b"),
        ("sftp://me@[::1]:22/~/backup", "::1", 22, "me", "backup"),
    ],
)
def test_urls(url: str, host: str, port: int | None, user: str | None, folder: str) -> None:
    target = parse_sftp_url(url)
    assert (target.host, target.port, target.user, target.folder) == (host, port, user, folder)


@pytest.mark.parametrize(
    "url",
    ["sftp://host", "sftp://host/", "sftp:///srv", "sftp://host/~/", "sftp://host:port/x", "sftp://h/x?y"],
)
def test_urls_that_mean_nothing(url: str) -> None:
    with pytest.raises(UsageError):
        parse_sftp_url(url)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_sftp_url("sftp://me:hushhush@host/srv")
    assert "hushhush" not in str(caught.value)


def test_it_tells_how_full_the_servers_file_system_is(backend: SftpBackend, folder: Path) -> None:
    backend.put("data/aa/x", [b"x"])
    ask = backend.capabilities.space
    assert ask is not None
    space = ask()
    assert space is not None
    status = os.statvfs(folder)
    assert space.total == status.f_blocks * status.f_frsize
    assert 0 < space.free <= space.total
