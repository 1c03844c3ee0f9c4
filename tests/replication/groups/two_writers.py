"""Two "machines" without a hypervisor, in sync mode: processes that write to real replicas, and nowhere else.

They are held by real fences and served by real storage daemons; and they answer so fast that whatever is not
of one instant shows.
"""

import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from hotspare.block.qemu import QemuNbd
from hotspare.cancellation import Cancellation
from hotspare.platforms.platform import Machine, PowerState
from hotspare.platforms.replica.record import ReplicaDisk, ReplicaPoint
from hotspare.replication import pairing
from hotspare.replication.agent import Agent
from hotspare.replication.failover import machine as machines
from hotspare.replication.groups.service import LIST, GroupStatus
from hotspare.replication.lease.fencing import Fencing
from hotspare.replication.link.client import LocalClient
from hotspare.replication.link.wire import NOTHING
from hotspare.replication.model import Membership, Mode, Phase, Protection, Status
from hotspare.replication.parts import PARTS
from hotspare.replication.source.points import PointMaker
from hotspare.replication.source.standby_link import StandbyLink
from hotspare.replication.source.sync import SyncRunner
from hotspare.replication.standby.exports import Exports

GROUP = "shop"
_NUMBER = struct.Struct("<Q")
_SIZE = 1 << 20
_GUEST = """
import struct, sys
from pathlib import Path
from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.tls import Tls
from hotspare.replication.link.tls import Identity
folder, standby, port, export = sys.argv[1:5]
identity = Identity.open(Path(folder))
tls = Tls(identity.client_context(standby), standby)
disk = NbdClient.connect(("127.0.0.1", int(port)), export, tls=tls, timeout=30)
print("up", flush=True)
for line in sys.stdin:
    disk.write(0, struct.pack("<Q", int(line)) * 64)
    disk.flush()
    print("done", flush=True)
"""


class Guest:
    """One machine: a write is acknowledged when ``write`` returns."""

    def __init__(self, identity: Path, standby: str, exports: Exports, machine_id: str) -> None:
        words = [sys.executable, "-c", _GUEST, str(identity), standby, str(exports.port)]
        words += [exports.names["vda"], "-uuid", machine_id]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._hear("up")

    def write(self, number: int) -> None:
        assert self.process.stdin is not None
        print(number, file=self.process.stdin, flush=True)
        self._hear("done")

    def _hear(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class MirroredByHand(SyncRunner):
    """Looks after a machine whose writes go to the replica alone."""

    def __init__(self, agent: Agent, protection: Protection) -> None:
        self._agent = agent
        self._protection = protection
        self._link = StandbyLink(agent.identity, protection, agent.tenure_of(protection))
        self._points = PointMaker(protection, self._link)
        self.exports: Exports | None = None
        self.lives = 1

    def run(self, cancellation: Cancellation) -> None:
        prepared = self._link.prepare({"vda": _SIZE}, anew=True)
        self._link.advance("base", whole=True)
        self.exports = prepared.exports
        cancellation.wait()
        self._link.close()

    def status(self) -> Status:
        return Status(protection=self._protection, phase=Phase.PROTECTED, since=0.0)

    def release(self) -> None:
        pass

    def unbroken(self) -> int:
        return self.lives

    def describe_point(self, name: str) -> ReplicaPoint:
        now = datetime.now(UTC)
        return ReplicaPoint(
            id=name,
            taken_at=now,
            finished_at=now,
            consistency="crash",
            machine=Machine(
                id=self._protection.machine_id,
                name=self._protection.machine,
                platform="qemu:///system",
                state=PowerState.RUNNING,
            ),
            disks=(ReplicaDisk(name="vda", size=_SIZE),),
        )


class TwoWriters:
    """Both machines, and both agents."""

    def __init__(self, source: Agent, standby: Agent, protections: list[Protection]) -> None:
        self.source = source
        self.standby = standby
        self.protections = protections
        self.guests: list[Guest] = []
        self.acknowledged = 0
        self._over = threading.Event()
        self._writer = threading.Thread(target=self._write)

    def runner(self, number: int) -> MirroredByHand:
        runner = self.source.runner(self.protections[number].id)
        assert isinstance(runner, MirroredByHand)
        return runner

    def begin(self) -> None:
        for number, protection in enumerate(self.protections):
            runner = self.runner(number)
            wait_for(lambda runner=runner: runner.exports is not None)
            assert runner.exports is not None
            identity = self.source.state / "identity"
            self.guests.append(
                Guest(identity, self.standby.identity.id, runner.exports, protection.machine_id)
            )
        self._writer.start()
        wait_for(lambda: self.acknowledged > 10)

    def _write(self) -> None:
        """Write each number to the one, and once that is acknowledged, to the other."""
        number = 0
        while not self._over.is_set():
            number += 1
            for guest in self.guests:
                guest.write(number)
            self.acknowledged = number

    def end(self) -> None:
        self._over.set()
        self._writer.join(20)
        for guest in self.guests:
            guest.close()

    def status(self, host: str) -> GroupStatus:
        with LocalClient(getattr(self, host).state) as asked:
            (found,) = asked.call(LIST, NOTHING)
        return found

    def numbers(self, point: str) -> tuple[int, int]:
        """Give the last number that each has in a point."""
        first, second = (self._number(one, point) for one in self.protections)
        return first, second

    def _number(self, protection: Protection, name: str) -> int:
        replica = self.standby.replica(protection.id)
        image = replica.folder / replica.point(name).disks[0].image
        with (
            QemuNbd(image, "qcow2", allow_references=True, force_share=True) as served,
            closing(served.connect()) as reader,
        ):
            buffer = bytearray(512)
            reader.read_into(0, memoryview(buffer))
        numbers = {number for (number,) in _NUMBER.iter_unpack(bytes(buffer))}
        assert len(numbers) == 1, "a write is torn"
        return int(numbers.pop())


def wait_for(reached: object, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not reached():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def two_writers(monkeypatch: pytest.MonkeyPatch, place: Membership) -> Iterator[TwoWriters]:
    with ExitStack() as stack:
        # Paths of sockets may not have more than 107 bytes, which those of pytest's folders can have.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="two-")))
        protections: list[Protection] = []

        def end_fences() -> None:
            for protection in protections:  # the agent may have ended before it did so
                Fencing(folder / "source" / "fences", protection.id, protection.machine_id).quit()

        stack.callback(end_fences)
        agents = {}
        for name in ("source", "standby"):
            agent = Agent(
                folder / name,
                dict.fromkeys(Mode, MirroredByHand),
                PARTS,
                name=name,
                address="127.0.0.1",
                port=0,
            )
            agent.start()
            stack.callback(agent.close)
            agents[name] = agent
        with LocalClient(folder / "source") as here, LocalClient(folder / "standby") as there:
            token = there.call(pairing.OFFER, pairing.Offer(address="127.0.0.1")).token
            here.call(pairing.ACCEPT, pairing.Accept(token=token, address="127.0.0.1"))
        protections += [
            Protection(
                id=uuid.uuid4().hex[:16],
                machine_id=str(uuid.uuid4()),
                machine=name,
                mode=Mode.SYNC,
                source=agents["source"].identity.id,
                standby=agents["standby"].identity.id,
                group=place,
            )
            for name in ("db", "web")
        ]
        both = TwoWriters(agents["source"], agents["standby"], protections)

        def pid_of(machine: str) -> int:
            names = [protection.machine for protection in protections]
            known = dict(zip(names, both.guests, strict=False))
            return known[machine].process.pid if machine in known else 0

        monkeypatch.setattr(machines, "pid_of", pid_of)
        for protection in protections:
            both.source.keep(protection)
            stack.callback(both.standby.forget, protection.id)
            stack.callback(both.source.forget, protection.id)
        stack.callback(both.end)
        both.begin()
        yield both
