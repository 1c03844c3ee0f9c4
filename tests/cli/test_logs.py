"""Logs: fields in the journal by its native protocol, priorities without it, JSON lines when asked for."""

import io
import json
import logging
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.cli.logs import JournalHandler, about_run, set_up_logs
from hotspare.errors import ConfigError
from hotspare.settings import load_settings
from tests.jobs.daemon import wait_for

JOURNALD = "/lib/systemd/systemd-journald"


@pytest.fixture(autouse=True)
def root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        listening.settimeout(5)
        yield listening


def read_entry(datagram: bytes) -> dict[str, str]:
    """Read one entry as systemd's docs/JOURNAL_NATIVE_PROTOCOL tells."""
    fields = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, sign, value = line.partition(b"=")
        if not sign:
            length = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + length], datagram[8 + length + 1 :]
        fields[name.decode()] = value.decode()
    return fields


def to_journal(monkeypatch: pytest.MonkeyPatch, stream: io.TextIOWrapper, path: Path) -> None:
    status = os.fstat(stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    set_up_logs("text", stream, path)


def test_entries_have_fields(tmp_path: Path, journal: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        to_journal(monkeypatch, stream, tmp_path / "journal")
        log = logging.getLogger("hotspare.runs")
        log.error("backup of web: failed\nsecond line", extra=about_run("web", "nightly", 7))
        log.info("quiet", extra=about_run("web", None))
        first, second = (read_entry(journal.recv(65536)) for _ in range(2))
        assert stream.tell() == 0
    assert first == {
        "MESSAGE": "backup of web: failed\nsecond line",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "hotspare",
        "LOGGER": "hotspare.runs",
        "MACHINE": "web",
        "POLICY": "nightly",
        "RUN": "7",
    }
    assert (second["PRIORITY"], "POLICY" in second, "RUN" in second) == ("6", False, False)


@pytest.fixture
def journald() -> Iterator[str]:
    """Give the name of a journal with a daemon of its own, which is gone at the end with all it kept."""
    name = f"hotspare-test-{os.getpid()}"
    runtime = Path(f"/run/systemd/journal.{name}")
    daemon = subprocess.Popen([JOURNALD, name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for((runtime / "socket").exists)
        yield name
    finally:
        daemon.terminate()
        daemon.wait(60)
        for kept in (Path("/var/log/journal"), Path("/run/log/journal")):
            for folder in kept.glob(f"*.{name}"):
                shutil.rmtree(folder)
        shutil.rmtree(runtime, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a journal of one's own takes root")
def test_the_real_journal_finds_entries_by_their_fields(
    journald: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        to_journal(monkeypatch, stream, Path(f"/run/systemd/journal.{journald}/socket"))
        log = logging.getLogger("hotspare.runs")
        log.error("backup of web: failed\nsecond line", extra=about_run("web", "nightly", 7))
        log.info("backup of db: ok", extra=about_run("db", "nightly", 8))

    def found(*words: str) -> str:
        command = ["journalctl", f"--namespace={journald}", "--output=cat", "--quiet", *words]
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout

    wait_for(lambda: "backup of db" in found())
    assert found("MACHINE=web", "RUN=7") == "backup of web: failed\nsecond line\n"
    assert found("POLICY=nightly", "--priority=err") == "backup of web: failed\nsecond line\n"
    assert found("MACHINE=db") == "backup of db: ok\n"


@pytest.mark.parametrize("length", [10, 200_000])
def test_without_its_socket_lines_have_priorities(
    tmp_path: Path, journal: socket.socket, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        to_journal(monkeypatch, stream, tmp_path / ("nowhere" if length == 10 else "journal"))
        logging.getLogger("hotspare").warning("first\n%s", "x" * length)
        stream.seek(0)
        assert stream.read() == f"<4>first\n<4>{'x' * length}\n"


def test_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    stream = io.StringIO()
    set_up_logs("json", stream)
    logging.getLogger("hotspare.runs").info("begins\nnow", extra=about_run("web", "nightly", 7))
    entry = json.loads(stream.getvalue())
    assert entry.pop("at")
    assert entry == {
        "level": "info",
        "logger": "hotspare.runs",
        "message": "begins\nnow",
        "machine": "web",
        "policy": "nightly",
        "run": "7",
    }


def test_another_stream_than_the_journal_gets_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    with (tmp_path / "stderr").open("w+") as stream:
        set_up_logs("text", stream)
        assert not any(isinstance(one, JournalHandler) for one in logging.getLogger().handlers)
        logging.getLogger("hotspare").warning("words")
        stream.seek(0)
        assert stream.read() == "WARNING: words\n"


def test_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HOTSPARE_LOG_FORM sets log_form to 'xml'"):
        load_settings(flags={}, environment={"HOTSPARE_LOG_FORM": "xml"}, home=tmp_path, is_root=False)
