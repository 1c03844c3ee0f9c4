"""One qemu-storage-daemon, which serves the disks of one replica over NBD with TLS.

It outlives the agent that started it: the next one finds it by its folder, and goes on. Protocol: QEMU's "QMP
reference manual" and "Storage daemon QMP reference".
"""

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from hotspare.errors import HotspareError, NoSpace, PlatformUnavailable, SourceLost

PID_FILE = "storage-daemon.pid"
_SOCKET, _LOG = "qmp.sock", "storage-daemon.log"
_PROGRAM = "qemu-storage-daemon"
_START_SECONDS = 20.0
_ANSWER_SECONDS = 30.0
_END_SECONDS = 60.0
_POLL_SECONDS = 0.01
_LEFT: list[subprocess.Popen[bytes]] = []
"""Those left at work: Python would complain about processes that it forgets while they run."""


class StorageDaemon:
    """A daemon that runs, and the connection to its monitor. Belongs to one thread at a time."""

    def __init__(self, folder: Path, pid: int, process: subprocess.Popen[bytes] | None) -> None:
        self.folder = folder
        self.pid = pid
        self._process = process
        self._socket = socket.socket(socket.AF_UNIX)
        self._buffer = b""
        self._asked = 0

    @classmethod
    def start(cls, folder: Path) -> Self:
        """Start one that knows no disk yet. Raises ``PlatformUnavailable``."""
        (folder / _SOCKET).unlink(missing_ok=True)
        command = [_PROGRAM, "--chardev", f"socket,id=monitor,path={folder / _SOCKET},server=on,wait=off"]
        command += ["--monitor", "chardev=monitor", "--pidfile", str(folder / PID_FILE)]
        try:
            with (folder / _LOG).open("wb") as log:
                # A session of its own: it shall outlive us.
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except FileNotFoundError:
            raise PlatformUnavailable(
                f"The program {_PROGRAM} is missing",
                meaning="The replica is not served",
                hint="Install QEMU (package qemu-system-x86 or qemu-utils)",
            ) from None
        daemon = cls(folder, process.pid, process)
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if daemon._connect():
                return daemon
            time.sleep(_POLL_SECONDS)
        daemon.kill()
        said = (folder / _LOG).read_text(errors="replace").strip()
        raise PlatformUnavailable(f"{_PROGRAM} does not start: {said}", meaning="The replica is not served")

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """Take over one that an earlier agent started; None when there is none that answers."""
        pid = _running(folder)
        if pid is None:
            return None
        daemon = cls(folder, pid, None)
        if daemon._connect():
            return daemon
        daemon.kill()
        return None

    def _connect(self) -> bool:
        self._socket.close()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_ANSWER_SECONDS)
        self._buffer = b""
        try:
            self._socket.connect(str(self.folder / _SOCKET))
            self._read()
            self.ask("qmp_capabilities")
        except (OSError, HotspareError):
            return False
        return True

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        if self._process is not None:
            return self._process.poll() is None
        return _running(self.folder) == self.pid

    def ask(self, command: str, *, timeout: float = _ANSWER_SECONDS, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Give a command and its result; ``node_name`` is written ``node-name``.

        An answer that comes after its time is passed over: it must not be taken for that of a later command.

        Raises:
            SourceLost: it does not answer any more.
            NoSpace: a file system is full.
            HotspareError: it refuses.
        """
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._asked += 1
        request: dict[str, object] = {"execute": command, "id": self._asked}
        if words:
            request["arguments"] = words
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            while True:
                answer = self._read()
                if answer.get("id") != self._asked:
                    continue  # an event, or what came too late
                if "return" in answer:
                    return answer["return"]
                break
        except (OSError, ValueError) as error:
            raise SourceLost(
                f"The storage daemon of {self.folder} does not answer {command}: {error}",
                meaning="The replica's last point is not affected",
            ) from error
        said = answer["error"]["desc"]
        kind = NoSpace if "No space left" in said else HotspareError
        raise kind(f"The storage daemon of {self.folder} refuses {command}: {said}")

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("it has ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def finish_job(self, job: str, timeout: float | None = None) -> None:
        """Wait for the end of a job that was begun with ``auto-dismiss`` off.

        Raises:
            HotspareError: it failed.
            SourceLost: the daemon does not answer any more, or the job takes longer than ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            found = next((one for one in self.ask("query-jobs") if one["id"] == job), None)
            if found is None:
                return
            if found["status"] == "concluded":
                self.ask("job-dismiss", id=job)
                if "error" in found:
                    kind = NoSpace if "No space left" in found["error"] else HotspareError
                    raise kind(f"The storage daemon of {self.folder} failed at {job}: {found['error']}")
                return
            if deadline is not None and time.monotonic() > deadline:
                raise SourceLost(f"The storage daemon of {self.folder} does not come to an end with {job}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> bool:
        """Have it write out all that it holds, and end, at the latest by force; tells whether it did."""
        try:
            self.ask("quit")
            told = True
        except HotspareError:
            told = False
        self._socket.close()
        deadline = time.monotonic() + _END_SECONDS
        while told and self.is_running and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        ended = told and not self.is_running
        self.kill()
        return ended

    def kill(self) -> None:
        """End it at once; what it had not written out is lost."""
        self._socket.close()
        if self.is_running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        while self.is_running:
            time.sleep(_POLL_SECONDS)

    def let_go(self) -> None:
        """Leave it running, for the next agent to find."""
        self._socket.close()
        if self._process is not None:
            _LEFT.append(self._process)


def _running(folder: Path) -> int | None:
    """Give the process of the folder's daemon, if it is there: numbers of processes are used again."""
    try:
        pid = int((folder / PID_FILE).read_text())
        status = Path(f"/proc/{pid}/stat").read_text()
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    alive = status.rpartition(")")[2].split()[0] not in {"Z", "X"}
    return pid if alive and str(folder / _SOCKET).encode() in words else None
