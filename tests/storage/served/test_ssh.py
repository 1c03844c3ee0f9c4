"""How the server is reached, and what is said when it is not."""

import subprocess
from pathlib import Path

import pytest

from hotspare.errors import HotspareError, PermissionRefused, StorageError, UsageError
from hotspare.storage.served import protocol
from hotspare.storage.served.client import ServedBackend
from hotspare.storage.served.frames import encode_head
from hotspare.storage.served.protocol import MAGIC
from hotspare.storage.served.ssh import SshHost, parse_ssh_url, remote_command
from tests.storage.servers import Sshd


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo Welcome to this host", "is not 'hotspare repo serve': what came is not"),
        ("exit 127", "has no program 'hotspare'"),
        ("echo 'Permission denied (publickey).' >&2; exit 255", "refused the login: Permission denied"),
        ("echo 'Host key verification failed.' >&2; exit 255", "not among the known hosts"),
        ("echo 'ssh: Could not resolve hostname x' >&2; exit 255", "no such host"),
        ("echo 'out of cheese' >&2; exit 3", "ended with status 3: out of cheese"),
    ],
)
def test_what_went_wrong_is_said(folder: Path, script: str, words: str) -> None:
    backend = ServedBackend.over("pipe", ["sh", "-c", script], str(folder))
    with pytest.raises(HotspareError, match=words) as caught:
        backend.get("x")
    assert not getattr(caught.value, "may_pass", False)
    backend.close()


def test_an_unknown_host_key_and_an_unknown_key_of_the_user_are_refused(
    any_sshd: Sshd, folder: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    config.write_text(
        f"IdentityFile {key}\nIdentitiesOnly yes\nUserKnownHostsFile /dev/null\nStrictHostKeyChecking no\n"
    )
    environment = {"HOTSPARE_SSH_COMMAND": f"ssh -F {config}"}
    backend = ServedBackend.at(any_sshd.served_url(folder), environment)
    with pytest.raises(StorageError, match="known hosts"):
        backend.get("x")
    backend.close()

    config.write_text(
        f"IdentityFile {key}\nIdentitiesOnly yes\nUserKnownHostsFile {any_sshd.home}/.ssh/known_hosts\n"
    )
    with pytest.raises(PermissionRefused, match="login"):
        backend.get("x")
    backend.close()


def test_a_server_that_is_not_there_may_come_back(folder: Path) -> None:
    backend = ServedBackend.at("ssh://127.0.0.1:1/srv", {})
    with pytest.raises(StorageError) as caught:
        backend.get("x")
    assert caught.value.may_pass
    backend.close()


def test_a_program_that_cannot_be_started_is_named(folder: Path) -> None:
    backend = ServedBackend.at("ssh://host/srv", {"HOTSPARE_SSH_COMMAND": "/nonexistent/ssh"})
    with pytest.raises(StorageError, match="HOTSPARE_SSH_COMMAND"):
        backend.get("x")


def test_a_server_cannot_steer_the_terminal(folder: Path, tmp_path: Path) -> None:
    body = repr(MAGIC + encode_head(protocol.Failed(0, "permission", "\x1b[2Jgone", "", "", False)))
    evil = tmp_path / "evil"
    evil.write_text(f"#!/usr/bin/env python3\nimport sys\nsys.stdout.buffer.write({body})\n")
    evil.chmod(0o755)
    backend = ServedBackend.over("pipe", [str(evil)], str(folder))
    with pytest.raises(PermissionRefused) as caught:
        backend.get("x")
    assert str(caught.value).isprintable()
    backend.close()


@pytest.mark.parametrize(
    ("url", "host", "folder"),
    [
        ("ssh://host/srv/backup", SshHost("host"), "/srv/backup"),
        ("ssh://me@host:2222/srv/a%20b/", SshHost("host", 2222, "me"), "/srv/a b"),
        ("ssh://me@[::1]/~/backup", SshHost("::1", None, "me"), "~/backup"),
    ],
)
def test_urls(url: str, host: SshHost, folder: str) -> None:
    assert parse_ssh_url(url) == (host, folder)


@pytest.mark.parametrize(
    "url",
    [
        "ssh://host", "ssh://host/", "ssh:///srv", "ssh://host/~/", "ssh://host:port/x", "ssh://h/x?y",
        "ssh://-oProxyCommand=evil/x", "ssh://-l@host/x", "ssh://host/%0a",
    ],
)  # fmt: skip
def test_urls_that_mean_nothing(url: str) -> None:
    with pytest.raises(UsageError):
        parse_ssh_url(url)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_ssh_url("ssh://me:hushhush@host/srv")
    assert "hushhush" not in str(caught.value)


def test_what_the_shell_there_gets_is_quoted() -> None:
    command = remote_command(SshHost("h"), ["repo", "serve", "--", "/srv/a b; rm -rf /"], {})
    assert command[0] == "ssh"
    assert command[-3:] == ["--", "h", "hotspare repo serve -- '/srv/a b; rm -rf /'"]
