"""Two guests of the lab as one group, and somebody outside who writes to the one, and then to the other."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt

from hotspare.platforms.replica.record import read_record
from hotspare.replication.groups.service import LIST, GroupStatus
from hotspare.replication.groups.whole import Points, points_of_all
from hotspare.replication.link.wire import NOTHING
from lab import DiskSpec, LabGuest
from lab.errors import LabError
from lab.programs import run
from lab.two_hosts import Host, Hosts
from tests.replication.agents import STATE, HostAgent
from tests.replication.source.mirrored import last_number

MIB = 1024 * 1024
GROUP = "shop"


@dataclass(slots=True)
class Writer:
    """Writes numbers, from the next on: to the first guest, and when that has flushed it, to the second."""

    first: LabGuest
    second: LabGuest
    number: int = 0
    acked: list[int] = field(default_factory=lambda: [0, 0])
    over: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def start(self) -> None:
        self.over.clear()
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()

    def _write(self) -> None:
        while not self.over.is_set():
            try:
                self._write_both(self.number + 1)
            except (LabError, libvirt.libvirtError) as error:  # a guest has gone, or takes long
                print(f"{self.number + 1} is written again: {error}", flush=True)
                self.over.wait(0.5)
            else:
                self.number += 1

    def _write_both(self, number: int) -> None:
        for index, guest in enumerate((self.first, self.second)):
            line = f"echo {number} | dd of=/data/journal oflag=append conv=notrunc,fsync"
            guest.exec(f"{line} 2>/dev/null")
            self.acked[index] = number

    def stop(self) -> None:
        self.over.set()
        if self.thread is not None:
            self.thread.join(30)


@dataclass(slots=True)
class TwoMachines:
    """The guests, their hosts and agents."""

    hosts: Hosts
    source: HostAgent
    standby: HostAgent
    db: LabGuest
    web: LabGuest

    @property
    def names(self) -> tuple[str, str]:
        return self.db.name, self.web.name

    def on(self, host: Host) -> tuple[LabGuest, LabGuest]:
        """Give the guests as they are on a host."""
        return LabGuest(self.db.name, host=host), LabGuest(self.web.name, host=host)

    def group(self, agent: HostAgent) -> GroupStatus:
        (found,) = agent.call(LIST, NOTHING)
        return found

    def wait_points(self, more: int, agent: HostAgent, seconds: float = 60) -> None:
        """Wait until an agent that runs the machines has made some more points."""
        seen = {self.group(agent).newest_point}

        def reached() -> bool:
            seen.add(self.group(agent).newest_point)
            return len(seen) > more

        agent.wait(reached, f"{more} more points", seconds, seen)

    def ask(self, agent: HostAgent, *words: str) -> dict[str, Any]:
        return agent.ask("replica", "group", *words)

    def turn(self, agent: HostAgent) -> None:
        """Protect the group in the other direction, once the other host knows who holds its machines."""
        said: list[str] = []

        def turned() -> bool:
            try:
                self.ask(agent, "reprotect", GROUP)
            except LabError as error:
                said.append(str(error))
                return False
            return True

        agent.wait(turned, "the group is turned", 60, said)

    def points(self, host: Host) -> tuple[Points, dict[str, Path]]:
        """Give all points of the replicas on a host, and the folders of these, by machine."""
        points, folders = {}, {}
        for folder in host.outside(STATE / "replicas").iterdir():
            record = read_record(folder)
            points[record.protection] = record.points
            folders[record.machine_name] = folder
        return points, folders

    def check_points(self, host: Host, folder: Path) -> list[tuple[int, int]]:
        """See that each point of the group that counts has what was written in order, on clean file systems.

        Gives the last numbers of each. Nothing may remove points meanwhile.
        """
        points, folders = self.points(host)
        found = []
        for point in points_of_all(GROUP, points, list(points)):
            numbers = []
            for name in self.names:
                (record,) = [one for one in read_record(folders[name]).points if one.id == point.id]
                raw = folder / f"{name}.raw"
                image = folders[name] / record.disks[0].image
                run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", image, raw)
                numbers.append(last_number(raw))
                raw.unlink()
            assert numbers[0] >= numbers[1] >= numbers[0] - 1, (point, numbers)
            found.append((numbers[0], numbers[1]))
        return found


@contextmanager
def two_machines(label: str) -> Iterator[TwoMachines]:
    """Make hosts, agents and guests, and protect both as one group with a point each second."""
    with Hosts(label, names=("source", "standby")) as hosts:
        source, standby = HostAgent(hosts.source).start(), HostAgent(hosts.standby).start()
        source.pair_with(standby)
        disks = [DiskSpec(size=16 * MIB)]
        with (
            LabGuest.create(f"{label}-db", disks=disks, host=hosts.source) as db,
            LabGuest.create(f"{label}-web", disks=disks, host=hosts.source) as web,
        ):
            for guest in (db, web):
                guest.start()
            for guest in (db, web):
                guest.wait_ready()
                guest.exec("touch /data/journal; sync")
                source.ask("replica", "create", guest.name, "--to", "standby", "--group", GROUP)
            both = TwoMachines(hosts, source, standby, db, web)
            both.ask(
                source, "set", GROUP, "--every", "1s", "--keep", "all for 1h",
                "--order", f"{db.name},{web.name}", "--delay", f"{db.name}=1s", "--wait", f"{web.name}=start",
            )  # fmt: skip
            for guest in (db, web):
                source.wait_phase(guest.name, "protected", 90)
            yield both
