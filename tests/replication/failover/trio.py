"""Three hosts with agents: source, standby, witness, paired with each other."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from hotspare.errors import HotspareError
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication import pairing, protections
from hotspare.replication.failover.service import LEASE_STATUS, LeaseStatus
from hotspare.replication.lease.terms import Terms
from hotspare.replication.link.client import LocalClient
from hotspare.replication.link.wire import NOTHING
from hotspare.replication.model import FailoverPolicy, Mode, NamedProtection, Phase, Protection
from hotspare.replication.standby.service import POINTS
from lab.guest import LabGuest
from lab.two_hosts import Host, Hosts

STATE = "/var/lib/hotspare/replication"
PATIENT = Terms(lease=10, beat=1, silence=5, stop=1)
"""A busy host keeps these, too: for tests that need the standby to take over when the source is killed."""
QUICK = Terms(lease=4, beat=0.5, silence=1.5, stop=0.5)
_WAIT_SECONDS = 60.0


def wait_until(reached: Callable[[], object], what: str, seconds: float = _WAIT_SECONDS) -> float:
    """Wait, and give the seconds that it took; an error of ours counts as not yet."""
    began = time.monotonic()
    last = ""
    while time.monotonic() - began < seconds:
        try:
            if reached():
                return time.monotonic() - began
        except HotspareError as error:
            last = str(error)
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}. {last}")


class Trio:
    """The hosts and their agents; a context manager that ends all."""

    def __init__(self, label: str) -> None:
        self.hosts = Hosts(label)
        self.agents: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.hosts.__enter__()
        try:
            for host in self.hosts.hosts.values():
                self.start_agent(host)
            names = list(self.hosts.hosts.values())
            for index, one in enumerate(names):
                for other in names[index + 1 :]:
                    self._pair(one, other)
        except BaseException:
            self.hosts.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for host in self.hosts.hosts.values():
                print(f"--- agent of {host.name}\n{self.log(host)[-3000:]}")
        self.hosts.remove()
        for process in self.agents.values():
            process.wait(10)

    def log(self, host: Host) -> str:
        path = host.folder / "agent.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start_agent(self, host: Host) -> None:
        words: Sequence[str | Path] = [
            Path(sys.executable).parent / "hotspare", "replica", "agent", "--name", host.name,
            "--listen", host.address, "--state", STATE,
        ]  # fmt: skip
        self.agents[host.name] = host.popen(words, log=host.folder / "agent.log")
        with self.asking(host) as asked:
            wait_until(lambda: asked.call(pairing.LIST, NOTHING) is not None, f"{host.name} answers")

    def kill_agent(self, host: Host, number: str = "KILL") -> None:
        """Send its agent a signal; only ``KILL`` and ``TERM`` are waited for."""
        pids = host.run("sh", "-c", "grep -lz '^agent$' /proc/[0-9]*/cmdline").split()
        for path in pids:
            with suppress(Exception):
                host.run("kill", f"-{number}", path.split("/")[2])
        if number in {"KILL", "TERM"}:
            self.agents[host.name].wait(30)

    @contextmanager
    def asking(self, host: Host) -> Iterator[LocalClient]:
        with LocalClient(host.outside(STATE)) as client:
            yield client

    def _pair(self, one: Host, other: Host) -> None:
        with self.asking(one) as here, self.asking(other) as there:
            token = there.call(pairing.OFFER, pairing.Offer(address=other.address)).token
            here.call(pairing.ACCEPT, pairing.Accept(token=token, address=one.address))

    def protect(
        self, guest: LabGuest, *, terms: Terms = QUICK, mode: Mode = Mode.SYNC, witness: str = "witness",
        policy: FailoverPolicy | None = None, interval: float = 60.0, application_interval: float = 0.0,
    ) -> Protection:  # fmt: skip
        wanted = Protection(
            id="", machine_id="", machine=guest.name, mode=mode, source="", standby="standby",
            witness=witness,
            stall_limit=terms.silence, interval=interval, application_interval=application_interval,
            failover=policy or FailoverPolicy(automatic=bool(witness), terms=terms),
        )  # fmt: skip
        with self.asking(self.hosts.source) as asked:
            return asked.call(protections.CREATE, protections.Create(protection=wanted))

    def points(self, host: Host, name: str) -> list[ReplicaPoint]:
        """Give the points of the replica on a host, the oldest first."""
        with self.asking(host) as asked:
            return list(asked.call(POINTS, NamedProtection(protection=name)).points)

    def phase(self, host: Host, name: str) -> Phase:
        with self.asking(host) as asked:
            return next(
                one.phase
                for one in asked.call(protections.STATUS, NOTHING)
                if name in {one.protection.machine}
            )

    def lease(self, host: Host, name: str) -> LeaseStatus:
        with self.asking(host) as asked:
            return asked.call(LEASE_STATUS, NamedProtection(protection=name), timeout=20)

    def wait_armed(self, host: Host, name: str) -> float:
        def armed() -> bool:
            peer = self.hosts.standby if host is self.hosts.source else self.hosts.source
            return (
                self.lease(host, name).armed
                and self.lease(peer, name).armed
                and bool(self._points(peer, name))
            )

        return wait_until(armed, f"{name} is armed on {host.name}")

    def _points(self, host: Host, name: str) -> int:
        with self.asking(host) as asked:
            found = [one for one in asked.call(protections.STATUS, NOTHING) if one.protection.machine == name]
            return found[0].points


class Acknowledged:
    """Looks all the time at what the copies of one guest have acknowledged, and when."""

    def __init__(self, *copies: LabGuest) -> None:
        self.seen: list[list[tuple[float, int]]] = [[] for _ in copies]
        self._copies = copies
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            for copy, seen in zip(self._copies, self.seen, strict=True):
                acked = copy.acked()
                if acked and (not seen or seen[-1][1] != acked):
                    seen.append((time.monotonic(), acked))

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def last(self, copy: int) -> tuple[float, int]:
        return self.seen[copy][-1]
