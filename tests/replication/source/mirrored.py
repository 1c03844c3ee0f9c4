"""A machine with two disks on one host of the lab, mirrored to another; and what the replica of it holds."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hotspare.replication import protections
from hotspare.replication.link.tls import Identity
from hotspare.replication.link.wire import NOTHING
from hotspare.replication.standby.state import STATE as STATE_FILE
from hotspare.replication.standby.state import ReplicaState
from lab import DiskSpec, LabGuest
from lab.errors import LabError
from lab.programs import run
from lab.two_hosts import Hosts
from tests.replication.agents import STATE, HostAgent

MIB = 1024 * 1024
_FIND_LAB = {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
# Each number is first made safe on the one disk, then on the other, then told outside.
_WRITER = """
number=$(tail -n 1 /data2/journal 2>/dev/null)
number=${number:-0}
while :; do
    number=$((number + 1))
    for folder in /data /data2; do
        echo $number | dd of=$folder/journal oflag=append conv=notrunc,fsync 2>/dev/null || exit 1
    done
    echo "lab: acked $number" >/dev/console
done
"""


@dataclass(slots=True)
class Mirrored:
    """The machine, and both hosts' agents."""

    hosts: Hosts
    source: HostAgent
    standby: HostAgent
    guest: LabGuest

    @property
    def machine(self) -> str:
        return self.guest.name

    def wait_protected(self, seconds: float = 90) -> dict[str, object]:
        return self.source.wait_phase(self.machine, "protected", seconds)

    def protect(self, *options: str) -> None:
        self.source.ask("replica", "create", self.machine, "--to", "standby", *options)
        self.wait_protected()

    def protect_unless_it_is(self, *options: str) -> None:
        """Protect it where an earlier test has failed in between."""
        statuses = self.source.call(protections.STATUS, NOTHING)
        if not any(one.protection.machine == self.machine for one in statuses):
            self.protect(*options)
        self.wait_protected()

    def boot(self) -> None:
        """Start the machine unless it runs, with its writer."""
        if not self.guest.running:
            self.guest.start()
        self.guest.wait_ready()
        if not self.guest.exec("ls /run/writer 2>/dev/null || true"):
            self.guest.write_file("/run/writer", b"#!/bin/sh\n" + _WRITER.encode())
            self.guest.exec("chmod +x /run/writer; setsid /run/writer </dev/null >/dev/null 2>&1 &")

    def longest_gap(self, seconds: float) -> tuple[float, int]:
        """Watch the writer: the longest time between two acknowledgements, and how many there were."""
        end = time.monotonic() + seconds
        first = last = self.guest.acked()
        changed, longest = time.monotonic(), 0.0
        while time.monotonic() < end:
            now = self.guest.acked()
            if now != last:
                longest = max(longest, time.monotonic() - changed)
                last, changed = now, time.monotonic()
            time.sleep(0.02)
        return max(longest, time.monotonic() - changed), last - first

    def replica_folder(self) -> Path:
        (folder,) = self.standby.host.outside(STATE / "replicas").iterdir()
        return folder

    def check_replica_alive(self, seconds: float = 90) -> int:
        """Do so while the machine runs: it is paused for that, as two disks cannot be read in one instant.

        Only while it is protected is its replica like it. Agents of a busy host may lose each other just
        then, and say so; then it is looked again.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.wait_protected()
            self.guest.domain.suspend()
            try:
                before = self._protected_since()
                seen = self._look()
                after = self._protected_since()
            finally:
                self.guest.domain.resume()
            if before is not None and before == after:
                if isinstance(seen, int):
                    return seen
                raise seen
            assert time.monotonic() < deadline, f"never protected for as long as a look takes; last: {seen}"

    def _protected_since(self) -> object:
        status = self.source.status(self.machine)
        return status["since"] if status["phase"] == "protected" else None

    def _look(self) -> int | Exception:
        """Compare both sides of a machine that is paused; gives the last number, or what is wrong."""
        try:
            for disk, image in self.guest.disks.items():
                raw = self._read(disk)
                run("qemu-img", "compare", "-U", image, "-F", "raw", raw)
                raw.unlink()
            return self.check_replica(self.guest.acked())
        except (AssertionError, LabError, ValueError) as error:
            return error

    def check_replica(self, acked: int) -> int:
        """See that what is on top of the replica has all that was acknowledged, on clean file systems.

        It is read as the storage daemon has it, which is what a failover would start from. Gives the last
        number that it has.
        """
        last = {}
        for disk in ("vda", "vdb"):
            raw = self._read(disk)
            last[disk] = last_number(raw)
            raw.unlink()
        assert last["vda"] >= last["vdb"] >= acked, (last, acked)
        assert last["vda"] - last["vdb"] <= 1, last
        return last["vdb"]

    def _read(self, disk: str) -> Path:
        host = self.standby.host
        identity = Identity.open(host.outside(STATE / "identity"))
        credentials = host.folder / "reader"
        identity.write_qemu_credentials(credentials, trusted=[], server=False)
        exports = self.replica_state().exports
        assert exports is not None
        raw = host.folder / f"{disk}.raw"
        server = f"server.type=inet,server.host={host.address},server.port={exports.port}"
        options = f"driver=nbd,{server},export={exports.names[disk]},tls-creds=t,tls-hostname={identity.id}"
        secret = f"tls-creds-x509,id=t,dir={credentials},endpoint=client"
        host.run("qemu-img", "convert", "--object", secret, "--image-opts", options, "-O", "raw", raw)
        return raw

    def replica_state(self) -> ReplicaState:
        return msgspec.json.decode((self.replica_folder() / STATE_FILE).read_bytes(), type=ReplicaState)


def last_number(raw: Path) -> int:
    """Replay a file system's journal as a mount would, see that it is clean, and give the last number."""
    subprocess.run(["e2fsck", "-E", "journal_only", "-y", str(raw)], check=False, capture_output=True)
    checked = subprocess.run(["e2fsck", "-fn", str(raw)], check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    numbers = [int(line) for line in run("debugfs", "-R", "cat /journal", raw).split()]
    # A crash between the two disks has the writer write the first one's last number again.
    once = [number for number, before in zip(numbers, [0, *numbers], strict=False) if number != before]
    assert once == list(range(1, len(once) + 1)), once
    return len(once)


@contextmanager
def mirrored(label: str, *options: str, relay: Sequence[str] = ()) -> Iterator[Mirrored]:
    """Make hosts, agents and the machine, and protect it with these options.

    With ``relay``, options of ``lab.slow_link``, the source reaches the standby through a third host.
    """
    disks = [DiskSpec(size=48 * MIB), DiskSpec(size=32 * MIB, format="raw")]
    names = ("source", "standby", "witness") if relay else ("source", "standby")
    with Hosts(label, names=names) as hosts:
        source, standby = HostAgent(hosts.source).start(), HostAgent(hosts.standby).start()
        if relay:
            words = [sys.executable, "-m", "lab.slow_link", "--to", hosts.standby.address]
            words += ["--ports", "10861-10865", *relay]
            hosts.witness.popen(words, log=hosts.witness.folder / "relay.log", environment=_FIND_LAB)
            up = f"until (</dev/tcp/{hosts.witness.address}/10861) 2>/dev/null; do sleep 0.1; done"
            hosts.source.run("timeout", "60", "bash", "-c", up)
        source.pair_with(standby, hosts.witness.address if relay else "")
        with LabGuest.create(label, disks=disks, host=hosts.source) as guest:
            both = Mirrored(hosts, source, standby, guest)
            both.boot()
            both.protect(*options)
            yield both


def log_of(agent: HostAgent) -> list[str]:
    """Give what an agent has told, without times and levels."""
    return re.findall(r"^\S+ \S+ [A-Z]+: (.*)$", agent.log.read_text(), re.MULTILINE)
