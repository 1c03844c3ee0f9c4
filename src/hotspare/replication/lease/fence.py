"""Stops a machine at the end of its lease: a small process of its own, which needs no agent to do so.

The agent tells it, by a datagram, until when the machine may run; when that passes, QEMU is stopped by
SIGSTOP within milliseconds, whatever has become of the agent. A later deadline lets it go on. It is started
by ``fencing.py``, and imports next to nothing, so that it is small, quick to start, and hard to break.

It also holds a machine still for a moment when it is asked to, for a point of several machines: only who
stops machines at the end of their lease knows whether they may go on.

Times are of CLOCK_BOOTTIME, which nobody can set and which goes on while a host sleeps.
"""

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from math import inf
from pathlib import Path

_LOOK_AGAIN = 0.5
"""While it is stopped, seconds after which is looked for a QEMU that somebody has started since."""
_STILL_SECONDS = 0.25
"""So long a machine that is to be held may take to stand still."""
_STILL_LOOK = 0.0005
_LOCK_ALL_MEMORY = 3
_PRIORITY = 50


def boottime() -> float:
    """Give the seconds since this host was started, asleep or not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Process:
    """One process, held by a descriptor: signals reach it or nobody, never a later one of its number."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    @classmethod
    def of_machine(cls, pid: int, uuid: str) -> "Process | None":
        """Hold a process if it is a QEMU of that machine."""
        try:
            descriptor = os.pidfd_open(pid)
        except (OSError, OverflowError):
            return None
        # Looked at only now: whoever has the number at this moment is who the descriptor is of, or is gone.
        if _is_machine(pid, uuid):
            return cls(pid, descriptor)
        os.close(descriptor)
        return None

    def send(self, number: signal.Signals) -> bool:
        """Give whether there was anybody to send it to."""
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return False
        return True

    def stands_still(self) -> bool:
        """Whether none of its threads can do anything: each is stopped, or is before it leaves the kernel.

        Those of the kernel's vhost are not looked at: they only pass on what the guest has sent already.
        """
        try:
            threads = Path("/proc", str(self.pid), "task").iterdir()
            lines = [(one / "stat").read_text() for one in threads]
        except OSError:
            return False  # one has just ended: look again
        own = [line for line in lines if "(vhost-" not in line]
        return {line.rpartition(")")[2].split()[0] for line in own} <= {"T", "t", "D"}

    def close(self) -> None:
        """Let it go."""
        os.close(self._descriptor)


def _is_machine(pid: int, uuid: str) -> bool:
    try:
        words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"-uuid" in words and uuid.encode() == words[words.index(b"-uuid") + 1]


def processes_of(uuid: str) -> list[Process]:
    """Find the QEMU of a machine, by its command line; usually there is one or none."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    likely = [pid for pid in numbers if _is_machine(pid, uuid)]
    return [process for pid in likely if (process := Process.of_machine(pid, uuid))]


class Fence:
    """What the process does.

    Args:
        uuid: of the machine.
        channel: a bound datagram socket.
        deadline: until it is told another.
    """

    def __init__(self, uuid: str, channel: socket.socket, deadline: float) -> None:
        self._uuid = uuid
        self._channel = channel
        self._deadline = deadline
        self._known: Process | None = None
        self._stopped: dict[int, Process] = {}
        self._held: Process | None = None
        self._held_until = inf
        self._closed = False

    def run(self) -> None:
        """Watch until told to quit."""
        while not self._closed:
            if boottime() >= self._held_until:
                self._let_go()
            over = boottime() >= self._deadline
            if over:
                self._stop()
            following = min(boottime() + _LOOK_AGAIN if over else self._deadline, self._held_until)
            wait = None if following == inf else following - boottime()
            if select.select([self._channel], [], [], None if wait is None else max(0.0, wait))[0]:
                self._hear()

    def _stop(self) -> None:
        if self._known is not None and self._known.pid not in self._stopped:
            if self._known.send(signal.SIGSTOP):
                self._stopped[self._known.pid] = self._known
            else:
                self._known.close()
            self._known = None
        for process in processes_of(self._uuid):
            if process.pid not in self._stopped and process.send(signal.SIGSTOP):
                self._stopped[process.pid] = process
            else:
                process.close()

    def _hold(self, pid: int, seconds: float) -> bool:
        """Have the machine stand still for so long at most; give whether it does."""
        self._let_go()
        if self._stopped or boottime() >= self._deadline:
            return False
        process = Process.of_machine(pid, self._uuid)
        if process is None or not process.send(signal.SIGSTOP):
            return False
        self._held, self._held_until = process, boottime() + seconds
        end = boottime() + min(seconds, _STILL_SECONDS)
        while not process.stands_still():
            if boottime() > end:
                self._let_go()
                return False
            time.sleep(_STILL_LOOK)
        return True

    def _let_go(self) -> bool:
        """Let a machine that is held go on, unless its lease is over; give whether it was held till now."""
        held, self._held, self._held_until = self._held, None, inf
        if held is None:
            return False
        if held.pid in self._stopped:
            held.close()
        elif boottime() >= self._deadline:
            self._stopped[held.pid] = held
        else:
            held.send(signal.SIGCONT)
            held.close()
        return True

    def _release(self, pid: int) -> bool:
        """Let the machine go on; give whether it was held till now."""
        if self._held is not None:
            in_time = boottime() < self._held_until
            return self._let_go() and in_time
        # A fence before this one may have died while it held it.
        if not self._stopped and boottime() < self._deadline:
            process = Process.of_machine(pid, self._uuid)
            if process is not None:
                process.send(signal.SIGCONT)
                process.close()
        return False

    def _go_on(self) -> None:
        if self._held is not None and self._held.pid in self._stopped:
            self._held.close()
            self._held, self._held_until = None, inf  # it is not held any more, which "release" tells
        for process in self._stopped.values():
            process.send(signal.SIGCONT)
            process.close()
        self._stopped.clear()

    def _hear(self) -> None:
        data, sender = self._channel.recvfrom(65536)
        message = json.loads(data)
        held = False
        match message["order"]:
            case "hold":
                held = self._hold(int(message["pid"]), float(message["seconds"]))
            case "release":
                held = self._release(int(message["pid"]))
            case "until":
                self._deadline = inf if message["deadline"] is None else float(message["deadline"])
                self._know(int(message["pid"]))
                if boottime() < self._deadline and self._stopped:
                    self._go_on()
            case "kill":
                self._deadline = -inf
                self._stop()
                for process in self._stopped.values():
                    process.send(signal.SIGKILL)
            case "quit":
                self._closed = True
                self._let_go()
                self._go_on()
        state = {
            "deadline": None if self._deadline == inf else self._deadline,
            "stopped": sorted(self._stopped),
            "held": held,
            "number": message["number"],
        }
        with suppress(OSError):  # who asked is gone
            self._channel.sendto(json.dumps(state).encode(), sender)

    def _know(self, pid: int) -> None:
        if pid in self._stopped or (self._known is not None and self._known.pid == pid):
            return
        if self._known is not None:
            self._known.close()
        self._known = Process.of_machine(pid, self._uuid) if pid else None


def main() -> int:
    """Run as ``python -m hotspare.replication.lease.fence SOCKET UUID DEADLINE``; returns when it is up."""
    path, uuid, deadline = sys.argv[1:]
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 1  # there is one, which may be slow to answer
    Path(path).unlink(missing_ok=True)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.bind(path)
    if os.fork():
        return 0
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # who waits for the end of what we say is not kept waiting
        os.dup2(nothing, stream)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what ends the agent must not end this
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_PRIORITY))
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mlockall(_LOCK_ALL_MEMORY)
    Fence(uuid, channel, float(deadline)).run()
    Path(path).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
