"""Two hosts with an agent each, and a machine that is shipped from one to the other."""

import re
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hotspare.errors import HotspareError
from hotspare.platforms.replica.record import ReplicaPoint, read_record
from hotspare.replication import protections
from hotspare.replication.model import Mode, Protection
from lab import LabGuest
from lab.two_hosts import Hosts
from tests.replication.agents import HostAgent

STATE = "/var/lib/hotspare/replication"


class TwoAgents:
    """The agents of the hosts ``source`` and ``standby``, which know each other."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.source = HostAgent(hosts.source)
        self.standby = HostAgent(hosts.standby)

    def __enter__(self) -> Self:
        self.source.start()
        self.standby.start()
        self.source.pair_with(self.standby)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for agent in (self.source, self.standby):
            if error is not None:
                print(f"--- agent of {agent.host.name}:\n{self.log(agent)[-3000:]}")
            if agent.host.running:
                agent.kill()

    def log(self, agent: HostAgent) -> str:
        return agent.log.read_text(errors="replace")

    def protect(self, guest: LabGuest, **wanted: Any) -> "Shipped":
        """Protect a guest in interval mode."""
        wanted = {"interval": 5.0, "retention": "last 40", **wanted}
        protection = Protection(
            id="",
            machine_id="",
            machine=guest.name,
            mode=Mode.INTERVAL,
            source="",
            standby="standby",
            **wanted,
        )
        made = self.source.call(protections.CREATE, protections.Create(protection=protection))
        return Shipped(self, guest, made)


class Shipped:
    """A guest that is shipped, and what it has acknowledged when, which a thread looks at."""

    def __init__(self, agents: TwoAgents, guest: LabGuest, protection: Protection) -> None:
        self.agents = agents
        self.guest = guest
        self.protection = protection
        self.acknowledged = Acknowledged(guest)

    @property
    def folder(self) -> Path:
        """Of the replica, seen from outside, whether its host lives or not."""
        return self.agents.hosts.standby.outside(f"{STATE}/replicas/{self.protection.id}")

    def points(self) -> tuple[ReplicaPoint, ...]:
        try:
            return read_record(self.folder).points
        except HotspareError:
            return ()

    def wait_for_point(self, after: str = "", timeout: float = 120) -> ReplicaPoint:
        """Wait for a point that is newer than the one named."""
        wait_until(lambda: any(one.id > after for one in self.points()), "a new point", timeout)
        return self.points()[-1]

    def cycle_under_way(self) -> float | None:
        """Tell when the cycle began that is not through yet, or was not when the host was killed."""
        scratch = self.agents.hosts.source.outside("/var/lib/libvirt/hotspare")
        began = [
            path.stat().st_mtime
            for path in scratch.glob("*/owner.json")
            if self.protection.machine_id in path.read_text()
        ]
        return max(began, default=None)

    def longest_cycle_since(self, moment: datetime) -> float:
        """Give the seconds of the longest late cycle that the agent tells of since then; 0 without one."""
        told = re.findall(
            rf"^(\S+ \S+),\d+ {re.escape(self.guest.name)}: a cycle took ([\d.]+) s",
            self.agents.log(self.agents.source),
            re.MULTILINE,
        )
        since = moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return max((float(seconds) for at, seconds in told if at >= since), default=0.0)


def wait_until(reached: Callable[[], bool], state: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not reached():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {state}")
        time.sleep(0.1)


class Acknowledged:
    """Which number a guest had acknowledged when, by this host's clock; a thread looks until ``stop``."""

    def __init__(self, guest: LabGuest) -> None:
        self._guest = guest
        self._seen: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            # The time before the look: what was acknowledged by then is surely among what is seen now.
            now = time.time()
            self._seen.append((now, self._guest.acked()))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def before(self, moment: datetime) -> int:
        """Give a number that was acknowledged before that moment: the last one seen before it."""
        # What is seen was printed before the look ended, and looks may take some time.
        return max(
            (number for (_, number), (later, _) in pairwise(self._seen) if later < moment.timestamp()),
            default=0,
        )

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
