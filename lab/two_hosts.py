"""Hosts inside of this one, for tests of what goes on between hosts.

A host has its own network, processes and libvirt, and what it keeps is a folder of this host. Killing its
first process kills all of it, as a power cut would, but for what the kernel still writes to its files. Hosts
are joined pair by pair, so that any two can be cut off from each other.
"""

import ipaddress
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import Self

import libvirt

from lab.errors import LabError
from lab.host import MACHINES, LibvirtHost
from lab.naming import domain_name
from lab.programs import run
from lab.sweep import FIRST_PROCESS

HOSTS = ("source", "standby", "witness")

_NOWHERE = "02:00:00:00:00:fe"
"""A hardware address that no network card has: what is sent there is lost, and nobody is told."""
_START_SECONDS = 30.0
_INIT = Path(__file__).parent / "host_scripts" / "init"
_OWN = ("run", "etc/libvirt", "var/lib/libvirt", "var/lib/hotspare", "var/cache/libvirt", "var/log/libvirt")
"""Folders that a host has for itself; it shares all others with this one."""


class Host(LibvirtHost):
    """One host. Its guests are ``LabGuest.create(..., host=...)``.

    Attributes:
        name: what it is called, and how others call it.
        address: where the others reach it.
        folder: what it keeps, seen from outside.
    """

    def __init__(self, name: str, address: str, folder: Path, *, with_libvirt: bool) -> None:
        self.name = name
        self.address = address
        self.folder = folder
        self.machines = folder / "machines"
        self.logs = self.outside("/var/log/libvirt/qemu")
        self._with_libvirt = with_libvirt
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._connection: libvirt.virConnect | None = None
        self._programs: list[subprocess.Popen[bytes]] = []
        self._prepare()

    def outside(self, path: str | Path) -> Path:
        """Say where a file of one of its own folders is for this process, whether the host lives or not."""
        inside = Path(path)
        for own in _OWN:
            if inside.is_relative_to(f"/{own}"):
                return self.folder / str(inside).lstrip("/")
        return inside

    def _prepare(self) -> None:
        for own in _OWN:
            (self.folder / own).mkdir(parents=True, exist_ok=True)
        self.outside("/var/lib/hotspare").chmod(0o700)  # as a backup makes it; QEMU is another user
        self.machines.mkdir(exist_ok=True)
        self.outside("/var/lib/libvirt/dnsmasq").mkdir(exist_ok=True)  # of libvirt's networks
        for folder in (self.folder, self.machines):
            folder.chmod(0o755)
        configuration = self.folder / "etc/libvirt"
        shutil.copytree("/etc/libvirt", configuration, dirs_exist_ok=True, symlinks=True)
        shutil.rmtree(configuration / "qemu", ignore_errors=True)
        with (configuration / "qemu.conf").open("a") as settings:
            # All hosts have the same control groups, where machines of one name would meet.
            settings.write("\ncgroup_controllers = []\nnamespaces = []\nsecurity_default_confined = 0\n")
        with (configuration / "libvirtd.conf").open("a") as settings:
            settings.write(f'\nhost_uuid = "{uuid.uuid4()}"\n')
        # What libvirt knows of this host's QEMU takes it seconds to find out again.
        known = Path("/var/cache/libvirt/qemu")
        if known.exists():
            shutil.copytree(known, self.folder / "var/cache/libvirt/qemu", dirs_exist_ok=True)

    @property
    def running(self) -> bool:
        """Whether it is powered on."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its first process, as seen from outside. Raises ``LabError`` when it is off."""
        if not self.running:
            raise LabError(f"The host {self.name} is off")
        return self._pid

    def power_on(self) -> None:
        """Start it, without any cable; ``Hosts.power_on`` is what you want."""
        shutil.rmtree(self.folder / "run")
        (self.folder / "run").mkdir()
        words = ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--mount-proc"]
        words += ["--kill-child", "/bin/bash", str(_INIT), str(self.folder), self.name, " ".join(_OWN)]
        environment = {**os.environ, "WITH_LIBVIRT": "yes" if self._with_libvirt else ""}
        with (self.folder / "host.log").open("ab") as log:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, process_group=0
            )
        self._pid = self._first_process(self._process)
        (self.folder / FIRST_PROCESS).write_text(str(self._pid))
        deadline = time.monotonic() + _START_SECONDS
        while not (self.folder / "run/up").exists():
            if time.monotonic() > deadline or not self.running:
                raise LabError(f"The host {self.name} does not start: {self._said()}")
            time.sleep(0.02)
        while self._with_libvirt and not self._libvirt_answers():
            if time.monotonic() > deadline:
                raise LabError(f"libvirt of the host {self.name} does not answer: {self._said()}")
            time.sleep(0.05)

    def _said(self) -> str:
        return (self.folder / "host.log").read_text(errors="replace")[-2000:]

    def _first_process(self, unshare: subprocess.Popen[bytes]) -> int:
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and unshare.poll() is None:
            with suppress(FileNotFoundError):
                if found := children.read_text().split():
                    return int(found[0])
            time.sleep(0.005)
        raise LabError(f"The host {self.name} does not start: {self._said()}")

    def _libvirt_answers(self) -> bool:
        try:
            self.connection()
        except LabError:
            return False
        return True

    def kill(self) -> None:
        """Kill all of it at once; does nothing when it is off."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.kill(self._pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        for program in self._programs:
            program.wait()
        self._programs.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(libvirt.libvirtError):
                connection.close()

    @property
    def uri(self) -> str:
        """What this process reaches its libvirt by; inside it is ``qemu:///system``."""
        return f"qemu+unix:///system?socket={self.folder}/run/libvirt/libvirt-sock"

    def connection(self) -> libvirt.virConnect:
        """Give this process's connection to its libvirt. Raises ``LabError``."""
        if self._connection is None or not self._connection.isAlive():
            libvirt.registerErrorHandler(lambda _context, _error: None, None)
            try:
                self._connection = libvirt.open(self.uri)
            except libvirt.libvirtError as error:
                raise LabError(f"libvirt of the host {self.name} does not answer: {error}") from error
        return self._connection

    def kill_machine(self, name: str) -> None:
        """Kill a machine's QEMU there (SIGKILL)."""
        self.kill_process(int((self.folder / f"run/libvirt/qemu/{name}.pid").read_text()))

    def kill_process(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process, by the number that it has there."""
        self.run("kill", f"-{number.value}", str(pid))

    def command(self, *words: str | Path) -> list[str]:
        """Give the words that run a program there."""
        enter = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", "--ipc", "--uts"]
        return [*enter, "--", *(str(word) for word in words)]

    def run(self, *words: str | Path) -> str:
        """Run a program there and give its output. Raises ``LabError`` when it fails."""
        return run(*self.command(*words))

    def popen(
        self, words: Sequence[str | Path], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program there; what it says goes to a file. It dies with the host.

        The process that is given is one that waits for it: send signals with ``signal_program``.
        """
        with log.open("ab") as output:
            program = subprocess.Popen(
                self.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                process_group=0,
            )
        self._programs.append(program)
        return program

    def signal_program(self, program: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Send a signal to a program that ``popen`` started."""
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), number)

    def in_network(self, *words: str) -> str:
        """Run a program of this host in the other's network."""
        return run("nsenter", f"--target={self.pid}", "--net", "--", *words)


class Hosts:
    """Some hosts, each joined to each. A context manager: leaving it kills and removes them.

    Args:
        label: distinguishes them from others of this process.
        names: of the hosts.
        without_libvirt: names of those that have none.
    """

    def __init__(
        self,
        label: str = "hosts",
        names: Sequence[str] = HOSTS,
        *,
        without_libvirt: Sequence[str] = ("witness",),
    ) -> None:
        self.folder = MACHINES / domain_name(label)
        self.folder.mkdir(parents=True, mode=0o755)
        first = ipaddress.ip_address("10.99.0.1")
        self.hosts = {
            name: Host(name, str(first + index), self.folder / name, with_libvirt=name not in without_libvirt)
            for index, name in enumerate(names)
        }

    def __enter__(self) -> Self:
        try:
            for host in self.hosts.values():
                self.power_on(host)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    @property
    def source(self) -> Host:
        """Where the machines are at first."""
        return self.hosts["source"]

    @property
    def standby(self) -> Host:
        """Where their replicas are."""
        return self.hosts["standby"]

    @property
    def witness(self) -> Host:
        """The third place."""
        return self.hosts["witness"]

    def power_on(self, host: Host) -> None:
        """Start a host and join it to all others that are on."""
        host.power_on()
        host.in_network("ip", "address", "add", f"{host.address}/32", "dev", "lo")
        for other in self.hosts.values():
            if other is not host and other.running:
                self._join(host, other)

    def _join(self, one: Host, other: Host) -> None:
        with suppress(LabError):
            other.in_network("ip", "link", "delete", f"to-{one.name}")  # of an earlier life of the one
        cable = ["ip", "link", "add", f"to-{other.name}", "netns", str(one.pid), "type", "veth"]
        run(*cable, "peer", "name", f"to-{one.name}", "netns", str(other.pid))
        for here, there in ((one, other), (other, one)):
            here.in_network("ip", "link", "set", f"to-{there.name}", "up")
            way = ["ip", "route", "add", f"{there.address}/32", "dev", f"to-{there.name}"]
            here.in_network(*way, "src", here.address)

    def cut(self, one: Host, other: Host, *, one_way: bool = False) -> None:
        """Let all be lost that two hosts send each other, without a word; or only what the one sends."""
        for here, there in ((one, other),) if one_way else ((one, other), (other, one)):
            words = ["ip", "neighbour", "replace", there.address, "lladdr", _NOWHERE, "nud", "permanent"]
            here.in_network(*words, "dev", f"to-{there.name}")

    def mend(self, one: Host, other: Host) -> None:
        """Undo ``cut``."""
        for here, there in ((one, other), (other, one)):
            entry = ["ip", "neighbour", "delete", there.address, "dev", f"to-{there.name}"]
            if any(neighbour["dst"] == there.address for neighbour in self._neighbours(here, there)):
                here.in_network(*entry)

    @staticmethod
    def _neighbours(here: Host, there: Host) -> list[dict[str, str]]:
        said = here.in_network("ip", "-json", "neighbour", "show", "dev", f"to-{there.name}")
        found: list[dict[str, str]] = json.loads(said or "[]")
        return found

    def cut_off(self, host: Host) -> None:
        """Cut a host off from all others."""
        for other in self.hosts.values():
            if other is not host and other.running:
                self.cut(host, other)

    def mend_all(self) -> None:
        """Undo every ``cut``."""
        for one, other in combinations(self.hosts.values(), 2):
            if one.running and other.running:
                self.mend(one, other)

    def kill(self, host: Host) -> None:
        """Kill a host at once, as a power cut would."""
        host.kill()

    def remove(self) -> None:
        """Kill all hosts and remove what they keep."""
        for host in self.hosts.values():
            host.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
