"""The program on every host: answers other agents and the command line, and looks after protections.

What it can do is in parts (``parts.py``), which register what they answer, and say who looks after a machine.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, MachineNotFound, PlatformUnavailable
from hotspare.platforms.libvirt.replicated import Replicated, forget_replicated, note_replicated
from hotspare.replication.failover.active import runs_upon_replica
from hotspare.replication.kept import write_struct
from hotspare.replication.link.client import PeerClient
from hotspare.replication.link.server import Server, Services
from hotspare.replication.link.tls import Identity
from hotspare.replication.model import DEFAULT_PORT, PORTS, Mode, Protection, Status, Tenure
from hotspare.replication.source.keeper import Keeper, NoKeeper
from hotspare.replication.standby.replica import Replica

DEFAULT_STATE = Path("/var/lib/hotspare/replication")
_LOG = logging.getLogger("hotspare.replica")
_JOIN_SECONDS = 20.0


class Runner(Protocol):
    """Looks after one protection on its source; lives in a thread of its own."""

    def run(self, cancellation: Cancellation) -> None:
        """Protect the machine until cancelled. No failure ends it.

        When it is cancelled because the agent ends, what goes on without it (a mirror) is left as it is.
        """
        ...

    def status(self) -> Status:
        """Say how it goes; called by other threads."""
        ...

    def release(self) -> None:
        """Stop what goes on without an agent, as the user wants no protection; ``run`` has ended."""
        ...


Part = Callable[["Agent"], None]
RunnerFactory = Callable[["Agent", Protection], Runner]


@dataclass(slots=True)
class _Running:
    runner: Runner
    machine_id: str
    cancellation: Cancellation = field(default_factory=Cancellation)
    thread: threading.Thread | None = None


class Agent:
    """One agent. ``close`` ends it; machines, mirrors and storage daemons go on.

    Args:
        state: folder of all that it keeps; no other agent uses it.
        runners: who looks after machines, by mode.
        parts: what it can be asked.
        name: what people call this host; empty for its host name, or what it was called before.
        address: IP address to listen on; empty for all.
        port: for other agents.

    Raises:
        PlatformUnavailable: another agent runs here, or the port is taken.
    """

    def __init__(
        self,
        state: Path,
        runners: Mapping[Mode, RunnerFactory],
        parts: Sequence[Part],
        *,
        name: str = "",
        address: str = "",
        port: int = DEFAULT_PORT,
    ) -> None:
        # What is beside it is for root alone; QEMU is let through where it is to (``let_qemu_reach``).
        state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.mkdir(mode=0o711, exist_ok=True)
        self.state = state
        self._lock = _only_one(state)
        self.identity = Identity.open(state / "identity", name)
        self.services = Services()
        self.keeper_for: Callable[[Protection], Keeper] = lambda _protection: NoKeeper()
        """Gives who says whether a machine may run here; replaced by the part that does failovers."""
        self.tenure_of: Callable[[Protection], Tenure] = first_tenure
        """Gives the tenure in which a machine's source runs it; replaced likewise."""
        self.closing: list[Callable[[], None]] = []
        """Called by ``close`` before anything ends."""
        self._runners = runners
        self._running: dict[str, _Running] = {}
        self._replicas: dict[str, Replica] = {}
        self._turn = threading.RLock()
        for part in parts:
            part(self)
        self._server = Server(self.services, self.identity, state / "agent.sock", address, port)
        self.port = self._server.port

    def start(self) -> None:
        """Begin to answer, and to protect."""
        for protection in self.protections():
            if protection.source == self.identity.id and not protection.stopped:
                self._begin(protection)
        self._server.start()
        _LOG.info("agent %s (%s) listens on port %d", self.identity.name, self.identity.id, self.port)

    def close(self) -> None:
        """End, and leave all that goes on without an agent at work."""
        for close in self.closing:
            close()
        self._server.close()
        with self._turn:
            for running in self._running.values():
                running.cancellation.cancel()
            for running in self._running.values():
                _join(running)
            self._running.clear()
            for replica in self._replicas.values():
                replica.let_go()
            self._replicas.clear()
        os.close(self._lock)

    def client(self, peer: str) -> PeerClient:
        """Give a connection of its own to another agent, by id or name. Raises ``MachineNotFound``."""
        return PeerClient(self.identity, self.identity.peer(peer))

    # Protections

    def protections(self) -> list[Protection]:
        """List all protections that this host takes part in, by machine."""
        found = [
            msgspec.json.decode(kept.read_bytes(), type=Protection)
            for kept in (self.state / "protections").glob("*/protection.json")
        ]
        return sorted(found, key=lambda protection: (protection.machine, protection.id))

    def protection(self, name: str) -> Protection:
        """Find one by machine or id. Raises ``MachineNotFound``."""
        found = [one for one in self.protections() if name in {one.id, one.machine, one.machine_id}]
        if len(found) == 1:
            return found[0]
        raise MachineNotFound(
            f"{len(found) or 'No'} protections on this host are of a machine {name!r}",
            meaning="Nothing was done",
            hint='See "hotspare replica list"; name one by its id where several have the same machine',
        )

    def folder_of(self, protection: str) -> Path:
        """Give the folder in which parts keep what belongs to a protection; made if it is not there."""
        folder = self.state / "protections" / protection
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        return folder

    def keep(self, protection: Protection) -> None:
        """Note a protection down, new or changed, and act upon it."""
        with self._turn:
            write_struct(self.folder_of(protection.id) / "protection.json", protection)
            self._end(protection.id)
            if protection.source == self.identity.id and not protection.stopped:
                self._begin(protection)

    def forget(self, protection: str) -> None:
        """Forget a protection; its replica, if it is here, is removed with all points.

        But not where the machine was taken over: it runs upon these images, which are its disks from then on.
        """
        with self._turn:
            self._end(protection, release=True)
            with suppress(MachineNotFound):
                if not runs_upon_replica(self.folder_of(protection)):
                    self.replica(protection).remove()
            self._replicas.pop(protection, None)
            folder = self.folder_of(protection)
            for path in folder.glob("*"):
                path.unlink()
            folder.rmdir()

    def stop_protecting(self, protection: Protection) -> None:
        """End the protection of a machine until ``keep`` is told otherwise."""
        with self._turn:
            self._end(protection.id, release=True)
            stopped: Protection = msgspec.structs.replace(protection, stopped=True)
            write_struct(self.folder_of(protection.id) / "protection.json", stopped)

    def runner(self, protection: str) -> Runner | None:
        """Give who looks after a machine here; None when nobody does."""
        with self._turn:
            running = self._running.get(protection)
            return running.runner if running else None

    def _begin(self, protection: Protection) -> None:
        runner = self._runners[protection.mode](self, protection)
        running = _Running(runner, protection.machine_id)
        self._note(protection)
        running.thread = threading.Thread(
            target=lambda: runner.run(running.cancellation), name=f"protect-{protection.machine}", daemon=True
        )
        self._running[protection.id] = running
        running.thread.start()

    def _end(self, protection: str, *, release: bool = False) -> None:
        running = self._running.pop(protection, None)
        if running is not None:
            running.cancellation.cancel()
            _join(running)
            forget_replicated(running.machine_id)
            if release:
                running.runner.release()

    def _note(self, protection: Protection) -> None:
        """Let backups of the machine know that they have to go to the standby."""
        standby = protection.standby
        with suppress(MachineNotFound):
            standby = self.identity.peer(standby).name
        folder = protection.folder or str(DEFAULT_STATE / "replicas")
        noted = Replicated(protection=protection.id, standby=standby, folder=folder)
        note_replicated(protection.machine_id, noted)

    # Replicas

    def replicas(self) -> list[Replica]:
        """List the replicas that are here."""
        found = []
        for protection in self.protections():
            with suppress(HotspareError):
                found.append(self.replica(protection.id))
        return found

    def replica(self, protection: str) -> Replica:
        """Give the replica of a protection. Raises ``MachineNotFound`` when it is not here."""
        with self._turn:
            known = self._replicas.get(protection)
            if known is None:
                folder = self._replica_folder(self.protection(protection))
                if not Replica.is_in(folder):
                    raise MachineNotFound(f"This host has no replica of the protection {protection}")
                known = self._replicas[protection] = Replica(folder, self.identity)
            return known

    def make_replica(self, protection: Protection, tenure: Tenure) -> Replica:
        """Give the replica of a protection, new and empty if there is none."""
        with self._turn:
            if protection.id not in self._replicas:
                self._replicas[protection.id] = Replica.create(
                    self._replica_folder(protection),
                    self.identity,
                    protection=protection.id,
                    machine_id=protection.machine_id,
                    machine_name=protection.machine,
                    tenure=tenure,
                    port=self._free_port(),
                )
            return self._replicas[protection.id]

    def _replica_folder(self, protection: Protection) -> Path:
        parent = Path(protection.folder) if protection.folder else self.state / "replicas"
        return parent / protection.id

    def _free_port(self) -> int:
        taken = {replica.state.port for replica in self.replicas()}
        for port in range(self.port + 1, self.port + PORTS):
            if port not in taken:
                return port
        raise PlatformUnavailable(f"All {PORTS - 1} ports after {self.port} are taken by other replicas")


def first_tenure(protection: Protection) -> Tenure:
    """Give the tenure of a machine that was never taken over."""
    return Tenure(epoch=1, holder=protection.source)


def _join(running: _Running) -> None:
    if running.thread is not None:
        running.thread.join(_JOIN_SECONDS)


def _only_one(state: Path) -> int:
    """Lock a state folder for the life of this process; gives the descriptor that holds the lock."""
    lock = os.open(state / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise PlatformUnavailable(
            f"Another agent runs with the state folder {state}",
            meaning="This one was not started",
            hint="Stop the other, or choose another folder with --state",
        ) from None
    return lock
