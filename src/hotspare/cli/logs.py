"""Logs of services: to systemd's journal with fields, else to stderr as text or as JSON lines.

The journal's native protocol is that of systemd's docs/JOURNAL_NATIVE_PROTOCOL: one datagram an entry,
``KEY=value`` lines, and a length in front of a value that has line ends. JOURNAL_STREAM says by device and
inode whether stderr is the journal (systemd.exec(5)).
"""

import json
import logging
import os
import socket
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from hotspare.settings import LogForm

JOURNAL = Path("/run/systemd/journal/socket")
_FIELDS = ("machine", "policy", "run")
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Those of syslog(3)."""
_DEBUG = 7
_DATAGRAM_MAX = 128 * 1024


def about_run(machine: str, policy: str | None, run: int | None = None) -> dict[str, str | int | None]:
    """Give what a log entry about a run is to have besides its words, for ``extra``.

    Args:
        machine: its name.
        policy: by which it is backed up.
        run: number in the history of this host.
    """
    return {"machine": machine, "policy": policy, "run": run}


def set_up_logs(
    form: LogForm, stream: TextIO | None = None, journal: Path = JOURNAL, *, with_times: bool = False
) -> None:
    """Send all logs of this process where they belong, from INFO on.

    Args:
        form: of what goes to stderr where that is not the journal.
        stream: where else than to stderr.
        journal: the journal's socket.
        with_times: text on stderr says when.
    """
    text = "%(asctime)s %(levelname)s: %(message)s" if with_times else "%(levelname)s: %(message)s"
    stream = stream or sys.stderr
    handler: logging.Handler
    if _is_journal(stream):
        handler = JournalHandler(stream, journal)
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_JsonLines() if form == "json" else logging.Formatter(text))
    root = logging.getLogger()
    for before in root.handlers[:]:
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(logging.INFO)


class JournalHandler(logging.Handler):
    """Sends entries to the journal with fields; where that does not take them, as ``<N>`` lines on stderr."""

    def __init__(self, stream: TextIO, journal: Path = JOURNAL) -> None:
        super().__init__()
        self._stream = stream
        self._address = str(journal)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry."""
        words, priority = self.format(record), _priority(record.levelno)
        fields = {
            "MESSAGE": words,
            "PRIORITY": str(priority),
            "SYSLOG_IDENTIFIER": "hotspare",
            "LOGGER": record.name,
            **{name.upper(): value for name, value in _fields_of(record).items()},
        }
        data = b"".join(_encoded(name, value) for name, value in fields.items())
        if len(data) <= _DATAGRAM_MAX:
            with suppress(OSError):
                self._socket.sendto(data, self._address)
                return
        # The journal reads stderr line by line, with the priority in front: sd-daemon(3).
        with suppress(OSError, ValueError):
            self._stream.write("".join(f"<{priority}>{line}\n" for line in words.splitlines()))
            self._stream.flush()

    def close(self) -> None:
        """Let go of the journal's socket."""
        self._socket.close()
        super().close()


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": super().format(record),
            **_fields_of(record),
        }
        return json.dumps(entry)


def _fields_of(record: logging.LogRecord) -> dict[str, str]:
    return {name: str(value) for name in _FIELDS if (value := getattr(record, name, None))}


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG)


def _encoded(name: str, value: str) -> bytes:
    content = value.encode("utf-8", "replace")
    if b"\n" not in content:
        return name.encode() + b"=" + content + b"\n"
    return name.encode() + b"\n" + len(content).to_bytes(8, "little") + content + b"\n"


def _is_journal(stream: TextIO) -> bool:
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdigit() and inode.isdigit()):
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (status.st_dev, status.st_ino) == (int(device), int(inode))
