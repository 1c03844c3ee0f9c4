"""Real servers, each started once for all tests that need it, and a file system that is soon full."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.servers import Rclone, Seaweed, Sshd


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    server = Seaweed(tmp_path_factory.mktemp("seaweed") / "server")
    server.up()
    yield server
    # Asked to end, it takes fifteen seconds.
    server.kill()


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    server = Rclone(tmp_path_factory.mktemp("rclone") / "server")
    server.up()
    yield server
    server.stop()


def _sshd(folder: Path, denied: str) -> Iterator[Sshd]:
    server = Sshd(folder, denied=denied)
    server.up()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def any_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    yield from _sshd(tmp_path_factory.mktemp("sshd"), "")


@pytest.fixture(scope="session")
def any_plain_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    yield from _sshd(tmp_path_factory.mktemp("plain-sshd"), "fsync,posix-rename,statvfs")


@pytest.fixture
def sshd(any_sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    """A server with all extensions, and a user who may log in there."""
    monkeypatch.setenv("HOME", str(any_sshd.home))
    return any_sshd


@pytest.fixture
def plain_sshd(any_plain_sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    """A server without the extensions that durability needs."""
    monkeypatch.setenv("HOME", str(any_plain_sshd.home))
    return any_plain_sshd


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
