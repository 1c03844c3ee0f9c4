"""What is said when the other side is not a mover of this version, and what URIs mean."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hotspare.backup.claim import UNDISPUTED, Claim
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, Interrupted, RunExpelled, UsageError
from hotspare.mover.control import Mover, parse_remote_platform
from hotspare.mover.wire import (
    MAGIC,
    VERSION,
    Begun,
    Cancel,
    Committing,
    Ended,
    Hello,
    Message,
    Secret,
    Start,
)
from hotspare.storage.served.frames import encode_head
from hotspare.storage.served.ssh import SshHost
from tests.storage.servers import BINARIES

START = Start(("machine", "list"), {}, "none", {}, None)


def run_against(
    tmp_path: Path, script: str, claim: Claim = UNDISPUTED, cancellation: Cancellation | None = None
) -> int:
    program = tmp_path / "ssh"
    program.write_text(script)
    program.chmod(0o755)
    environment = {**os.environ, "HOTSPARE_SSH_COMMAND": str(program)}
    with Mover("qemu+ssh://host/system", SshHost("host"), environment) as mover:
        secret = Secret("passphrase", b"hush")
        return mover.run(START, lambda: secret, lambda *_: None, cancellation or Cancellation(), claim)


def saying(*messages: Message) -> str:
    words = MAGIC + b"".join(encode_head(message) for message in messages)
    lines = [
        "import sys",
        f"sys.stdout.buffer.write({words!r})",
        "sys.stdout.flush()",
        "sys.stdin.buffer.read()",
    ]
    return "\n".join([f"#!{sys.executable}", *lines, ""])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (saying(Hello(9, "8.8")), "has Hotspare 8.8, whose mover speaks version 9"),
        ("#!/bin/sh\necho Welcome to this host\n", "is not 'hotspare mover'"),
        ("#!/bin/sh\nexit 127\n", "has no program 'hotspare'"),
        ("#!/bin/sh\necho 'Permission denied (publickey).' >&2; exit 255\n", "refused the login"),
        (saying(Hello(VERSION, "1"), Cancel()), "is not 'hotspare mover'"),
    ],
)
def test_what_is_no_mover_is_named(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(HotspareError, match=words):
        run_against(tmp_path, script)


def test_the_exit_status_is_that_of_the_command(tmp_path: Path) -> None:
    assert run_against(tmp_path, saying(Hello(VERSION, "1"), Ended(21))) == 21


ASKING = f"""#!{sys.executable}
import os, sys
os.write(1, {MAGIC + encode_head(Hello(VERSION, "1"))!r})
heard = b""
for question in ({encode_head(Begun("s1"))!r}, {encode_head(Committing())!r}):
    os.write(1, question)
    while heard.count(b"verdict") < 1:
        heard += os.read(0, 4096)
    if b"another" in heard:
        os.write(1, {encode_head(Ended(5))!r})
        sys.exit()
    heard = b""
os.write(1, {encode_head(Ended(0))!r})
"""
"""A mover that asks whether it may begin, and finish."""


class Refusing:
    """A claim that is lost on the way."""

    def __init__(self) -> None:
        self.session = ""

    def begun(self, session: str) -> None:
        self.session = session

    def before_commit(self) -> None:
        raise RunExpelled("another has it")


def test_who_may_finish_a_backup_is_for_the_control_host_to_say(tmp_path: Path) -> None:
    refusing = Refusing()
    assert run_against(tmp_path, ASKING, refusing) == 5
    assert refusing.session == "s1"
    assert run_against(tmp_path, ASKING) == 0


def test_a_connection_that_does_not_come_about_can_be_given_up(tmp_path: Path) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Interrupted):
        run_against(tmp_path, "#!/bin/sh\nexec sleep 60\n", cancellation=cancellation)


def test_a_mover_that_dies_is_no_success(tmp_path: Path) -> None:
    words = MAGIC + encode_head(Hello(VERSION, "1"))
    script = f"#!{sys.executable}\nimport sys\nsys.stdout.buffer.write({words!r})\n"
    with pytest.raises(HotspareError, match="was lost") as caught:
        run_against(tmp_path, script)
    assert caught.value.exit_status == 20


def test_a_mover_ends_without_a_command() -> None:
    process = subprocess.run(
        [BINARIES / "hotspare", "mover"], input=MAGIC, capture_output=True, timeout=60, check=True
    )
    assert process.stdout == MAGIC
    noise = subprocess.run(
        [BINARIES / "hotspare", "mover"],
        input=b"GET / HTTP/1.1",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert noise.returncode == 27
    assert b"does not keep to the protocol" in noise.stderr


UNHEARD = """
import sys, time
from hotspare.mover import host
host.SILENT_SECONDS = 1.0
host.serve_control(0, 1, lambda start, control: time.sleep(60) or 0)
"""


def test_a_control_host_that_falls_silent_is_taken_for_lost() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", UNHEARD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(MAGIC + encode_head(Hello(VERSION, "1")) + encode_head(START))
        process.stdin.flush()  # and the pipe stays open
        said = process.stdout.read()
    # It was interrupted: at its end by itself it would have said so.
    assert process.returncode == 0
    assert b"hello" in said
    assert b"ended" not in said


def test_a_secret_is_not_shown() -> None:
    assert "hush" not in repr(Secret("passphrase", b"hush"))


@pytest.mark.parametrize(
    ("uri", "host", "there"),
    [
        ("qemu+ssh://host/system", SshHost("host"), "qemu:///system"),
        ("qemu+ssh://me@host:2222/session", SshHost("host", 2222, "me"), "qemu:///session"),
    ],
)
def test_platforms_of_other_hosts(uri: str, host: SshHost, there: str) -> None:
    assert parse_remote_platform(uri) == (host, there)


def test_platforms_of_this_host() -> None:
    assert parse_remote_platform("qemu:///system") is None
    assert parse_remote_platform("/srv/images") is None


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ssh:///system", "qemu+ssh://host/", "qemu+ssh://host/system?keyfile=x",
        "qemu+ssh://a:b@host/system", "qemu+ssh://-oProxyCommand=x/system", "qemu+ssh://host:x/system",
    ],
)  # fmt: skip
def test_platforms_that_mean_nothing(uri: str) -> None:
    with pytest.raises(UsageError):
        parse_remote_platform(uri)
