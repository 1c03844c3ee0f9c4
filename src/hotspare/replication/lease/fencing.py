"""The agent's side of the fence: starts the process, and tells it how long the machine may run."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import NamedTuple

from hotspare.errors import PlatformUnavailable

_ANSWER_SECONDS = 1.0
_START_SECONDS = 10.0


class FenceState(NamedTuple):
    """What a fence said."""

    deadline: float
    """Of CLOCK_BOOTTIME; infinite when there is none."""
    stopped: tuple[int, ...]
    """Processes that stand still."""


class Fencing:
    """Speaks to the fence of one machine.

    Args:
        folder: for the sockets.
        name: of the fence; one at a time has it.
        uuid: of the machine.
    """

    def __init__(self, folder: Path, name: str, uuid: str) -> None:
        self._path = folder / f"{name}.fence"
        self._uuid = uuid
        self._number = int.from_bytes(os.urandom(4)) << 20
        self._channel: socket.socket | None = None
        self._held = False

    def ensure(self, deadline: float) -> FenceState:
        """Start the process unless it runs; one that an earlier agent started keeps its deadline.

        Args:
            deadline: of one that is started now.

        Raises:
            PlatformUnavailable: it does not start.
        """
        try:
            return self.ask()
        except PlatformUnavailable:
            pass
        self._path.parent.mkdir(parents=True, exist_ok=True)
        end = time.monotonic() + _START_SECONDS
        while True:
            # It goes into the background by itself: no child of ours, it outlives this process.
            started = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "hotspare.replication.lease.fence",
                    str(self._path),
                    self._uuid,
                    str(deadline),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
            try:
                return self.ask()
            except PlatformUnavailable as error:
                if time.monotonic() > end:
                    error.what += f" {started.stderr.decode(errors='replace').strip()[-500:]}"
                    raise

    def ask(self) -> FenceState:
        """Give how it stands. Raises ``PlatformUnavailable``."""
        return self._tell({"order": "state"})

    def allow(self, deadline: float, pid: int) -> FenceState:
        """Let the machine run until a time of CLOCK_BOOTTIME. Raises ``PlatformUnavailable``.

        Args:
            deadline: infinite for ever, in the past to stop it now.
            pid: of its QEMU, as far as known; 0 if there is none.
        """
        until = None if deadline == inf else max(deadline, -1.0)
        return self._tell({"order": "until", "deadline": until, "pid": pid})

    def kill(self) -> FenceState:
        """Kill its QEMU, and stop each that is started until ``allow``. Raises ``PlatformUnavailable``."""
        return self._tell({"order": "kill"})

    def hold(self, pid: int, seconds: float) -> bool:
        """Have the machine stand still for a moment; give whether it does. Raises ``PlatformUnavailable``.

        Args:
            pid: of its QEMU.
            seconds: after these it goes on, if nobody has released it.
        """
        self._tell({"order": "hold", "pid": pid, "seconds": seconds})
        return self._held

    def release(self, pid: int) -> bool:
        """Let a machine that is held go on, if it may run; give whether it was held until now.

        Args:
            pid: of its QEMU, which may stand still because a fence died while it held it.

        Raises:
            PlatformUnavailable: the fence does not answer; it lets the machine go on by itself.
        """
        self._tell({"order": "release", "pid": pid})
        return self._held

    def quit(self) -> None:
        """End the process; the machine goes on."""
        with suppress(PlatformUnavailable):
            self._tell({"order": "quit"})
        self.close()

    def close(self) -> None:
        """Let the process go on alone."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _tell(self, message: dict[str, object]) -> FenceState:
        self._number += 1
        try:
            channel = self._channel or self._open()
            channel.sendto(json.dumps({**message, "number": self._number}).encode(), str(self._path))
            end = time.monotonic() + _ANSWER_SECONDS
            while True:
                channel.settimeout(max(0.001, end - time.monotonic()))
                answer = json.loads(channel.recv(65536))
                if answer["number"] == self._number:
                    break
        except OSError as error:
            raise PlatformUnavailable(
                f"The fence of machine {self._uuid} does not answer: {error}",
                meaning="The machine runs, but the standby will not take over by itself",
                hint="It is started again by itself; look for its process if this stays",
            ) from error
        self._held = bool(answer.get("held"))  # a fence of an earlier version holds nothing
        deadline = answer["deadline"]
        return FenceState(inf if deadline is None else float(deadline), tuple(answer["stopped"]))

    def _open(self) -> socket.socket:
        self._channel = channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        channel.bind("")  # an address of its own, without a file
        return channel
