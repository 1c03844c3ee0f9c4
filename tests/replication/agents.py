"""Agents on the lab's hosts, run as users run them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from hotspare.cli.replica_documents import status_fields
from hotspare.errors import HotspareError
from hotspare.replication import pairing, protections
from hotspare.replication.link.client import LocalClient
from hotspare.replication.link.wire import NOTHING, PeerUnavailable, Verb
from lab.errors import LabError
from lab.two_hosts import Host

Arguments = TypeVar("Arguments")
Result = TypeVar("Result")

STATE = Path("/var/lib/hotspare/replication")
_HOTSPARE = (str(Path(sys.executable).with_name("hotspare")),)


class HostAgent:
    """The agent of one host."""

    def __init__(self, host: Host, *, state: Path = STATE, port: int = 10861) -> None:
        self.host = host
        self.state = state
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "HostAgent":
        words = [*_HOTSPARE, "replica", "agent", "--name", self.host.name, "--state", str(self.state)]
        self._process = self.host.popen([*words, "--port", str(self.port)], log=self.log)
        self.wait(self._answers, "answers", 180)
        return self

    @property
    def program(self) -> tuple[str, ...]:
        """The words that run the program there."""
        return _HOTSPARE

    @property
    def log(self) -> Path:
        return self.host.folder / "agent.log"

    def _answers(self) -> bool:
        try:
            self.call(protections.STATUS, NOTHING)
        except HotspareError:
            return False
        return True

    def kill(self) -> None:
        """Kill it (SIGKILL); what it started goes on."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """End it as a service manager does."""
        self._signal(signal.SIGTERM)

    def hold(self) -> None:
        """Have it stand still (SIGSTOP), as one that hangs."""
        assert self._process is not None
        self.host.signal_program(self._process, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after that: nsenter, which stands still as its child does, and wakes it up."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.host.signal_program(self._process, signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self.host.signal_program(self._process, number)
        self._process.wait(30)

    def ask(self, *words: str) -> dict[str, Any]:
        """Run a command of the program on that host, and give its JSON document."""
        said = self.host.run(*_HOTSPARE, *words, "--state", str(self.state), "-o", "json")
        document: dict[str, Any] = json.loads(said)
        return document

    def pair_with(self, other: "HostAgent", address: str = "") -> None:
        """Make both known to each other; ``address`` is where this one reaches the other, if not directly."""
        offered = other.call(pairing.OFFER, pairing.Offer(address=address or other.host.address))
        self.call(pairing.ACCEPT, pairing.Accept(token=offered.token, address=self.host.address))

    def status(self, machine: str) -> dict[str, Any]:
        """Give the status of one machine's protection."""
        statuses = self.call(protections.STATUS, NOTHING)
        return next(status_fields(one) for one in statuses if one.protection.machine == machine)

    def call(self, verb: Verb[Arguments, Result], arguments: Arguments) -> Result:
        """Ask it over its socket: a process for each question would take much of a busy host."""
        with LocalClient(self.host.outside(self.state)) as client:
            return client.call(verb, arguments)

    def wait_phase(self, machine: str, phase: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until the protection of a machine is in a phase, and give its status."""
        found: dict[str, Any] = {}

        def reached() -> bool:
            found.update(self.status(machine))
            return bool(found["phase"] == phase)

        self.wait(reached, f"{machine} is {phase}", seconds, found)
        return found

    def wait(self, reached: Callable[[], bool], what: str, seconds: float = 30, found: object = None) -> None:
        """Wait; an agent that does not answer on a busy host counts as not yet."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(PeerUnavailable):
                if reached():
                    return
            if time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-3000:]
                raise LabError(f"{self.host.name}: not within {seconds:.0f} s: {what}. {found}\n{tail}")
            time.sleep(0.1)
