"""Two hosts with an agent each, and a machine that is shipped from one to the other."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hotspare.errors import HotspareError
from hotspare.platforms.replica.record import ReplicaPoint, read_record
from lab import LabGuest
from lab.errors import LabError
from lab.two_hosts import Host, Hosts

STATE = "/var/lib/hotspare/replication"
HOTSPARE = str(Path(sys.executable).parent / "hotspare")


class TwoAgents:
    """The agents of the hosts ``source`` and ``standby``, which know each other."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self.protection = ""

    def __enter__(self) -> Self:
        try:
            for host in (self.hosts.source, self.hosts.standby):
                self.start(host)
            offered = self.ask(self.hosts.standby, "pair", "--address", self.hosts.standby.address)
            self.ask(self.hosts.source, "pair", offered["token"], "--address", self.hosts.source.address)
        except BaseException:
            self.stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for host in (self.hosts.source, self.hosts.standby):
                print(f"--- agent of {host.name}:\n{self._log(host).read_text(errors='replace')[-3000:]}")
        self.stop_all()

    def stop_all(self) -> None:
        for name, program in self.programs.items():
            host = self.hosts[name]
            if host.running and program.poll() is None:
                with suppress(OSError):
                    host.signal_program(program, signal.SIGKILL)
            program.wait()
        self.programs.clear()

    def start(self, host: Host) -> None:
        """Start a host's agent, and wait until it answers."""
        words = [HOTSPARE, "replica", "agent", "--name", host.name, "--state", STATE]
        self.programs[host.name] = host.popen(words, log=self._log(host))
        wait_until(lambda: self._answers(host), f"the agent of {host.name} answers", 40)

    def kill(self, host: Host) -> None:
        """Kill a host's agent (SIGKILL)."""
        program = self.programs.pop(host.name)
        host.signal_program(program, signal.SIGKILL)
        program.wait()

    def _log(self, host: Host) -> Path:
        return host.folder / "agent.log"

    def log(self, host: Host) -> str:
        return self._log(host).read_text(errors="replace")

    def _answers(self, host: Host) -> bool:
        try:
            self.ask(host, "list")
        except LabError:
            return False
        return True

    def ask(self, host: Host, *words: str) -> dict[str, Any]:
        """Run a command of ``hotspare replica`` there, and give its JSON document."""
        said: dict[str, Any] = json.loads(
            host.run(HOTSPARE, "replica", *words, "--state", STATE, "-o", "json")
        )
        return said

    def protect(self, guest: LabGuest, *words: str) -> None:
        made = self.ask(
            self.hosts.source, "create", guest.name, "--to", "standby", "--mode", "interval", *words
        )
        self.protection = made["id"]

    def status(self) -> dict[str, Any]:
        (one,) = self.ask(self.hosts.source, "status")["replicas"]
        found: dict[str, Any] = one
        return found

    @property
    def folder(self) -> Path:
        """Of the replica, seen from outside, whether its host lives or not."""
        return self.hosts.standby.outside(f"{STATE}/replicas/{self.protection}")

    def points(self) -> tuple[ReplicaPoint, ...]:
        try:
            return read_record(self.folder).points
        except HotspareError:
            return ()

    def wait_for_point(self, after: str = "", timeout: float = 60) -> ReplicaPoint:
        """Wait for a point that is newer than the one named."""
        wait_until(lambda: any(one.id > after for one in self.points()), "a new point", timeout)
        return self.points()[-1]


def wait_until(reached: Callable[[], bool], state: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not reached():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {state}")
        time.sleep(0.1)


class Acknowledged:
    """Which number a guest had acknowledged when, by this host's clock."""

    def __init__(self, guest: LabGuest) -> None:
        self._guest = guest
        self._seen: list[tuple[float, int]] = []

    def look(self) -> None:
        # The time before the look: what was acknowledged by then is surely among what is seen now.
        now = time.time()
        self._seen.append((now, self._guest.acked()))

    def watch(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(0.1)

    def before(self, moment: datetime) -> int:
        """Give a number that was acknowledged before that moment: the last one seen before it."""
        return max((number for at, number in self._seen if at + 0.1 < moment.timestamp()), default=0)

    @property
    def last(self) -> int:
        return self._seen[-1][1] if self._seen else 0


def records_in(folder: Path, point: ReplicaPoint, scratch: Path) -> list[int]:
    """Give what the workload's journal holds in a point, after its file system was found to be clean."""
    raw = scratch / f"{point.id}.raw"
    image = folder / point.disks[0].image
    subprocess.run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", image, raw], check=True)
    try:
        replayed = subprocess.run(
            ["e2fsck", "-fy", "-E", "journal_only", raw], check=False, capture_output=True, text=True
        )
        assert replayed.returncode in {0, 1}, replayed.stdout
        checked = subprocess.run(["e2fsck", "-fn", raw], check=False, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout
        said = subprocess.run(["debugfs", "-R", "cat /journal", raw], check=True, capture_output=True)
        return [int(number) for number in re.findall(rb"\d+", said.stdout)]
    finally:
        raw.unlink()
