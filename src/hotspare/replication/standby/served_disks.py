"""A replica's disks and the storage daemon that serves them, over all crashes of either."""

import threading
from pathlib import Path

import msgspec

from hotspare.errors import HotspareError, NoSpace, PermissionRefused
from hotspare.replication.kept import write_struct
from hotspare.replication.link.tls import Identity
from hotspare.replication.model import Tenure
from hotspare.replication.standby.chain import Chain, open_chain
from hotspare.replication.standby.exports import Exports, close_exports, open_exports, open_server
from hotspare.replication.standby.state import STATE, ReplicaState
from hotspare.replication.standby.storage_daemon import StorageDaemon

_FULL = {28, 122}
"""ENOSPC and EDQUOT."""


class ServedDisks:
    """What ``Replica`` stands on. Methods may be called by several threads, and take turns.

    Attributes:
        folder: where all of it lies.
        turn: held by whoever changes something.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        """Open what is in the folder."""
        self.folder = folder
        self.turn = threading.RLock()
        self._identity = identity
        self._daemon: StorageDaemon | None = None
        self._state = msgspec.json.decode((folder / STATE).read_bytes(), type=ReplicaState)

    @property
    def machine_name(self) -> str:
        """Name of the machine, for messages."""
        raise NotImplementedError

    def before_change(self, daemon: StorageDaemon) -> None:
        """Be told that somebody needs the disks; the caller holds the turn."""
        raise NotImplementedError

    def adopt(self, daemon: StorageDaemon) -> None:
        """Bring what is noted in line with a daemon that an earlier agent started."""
        raise NotImplementedError

    @property
    def state(self) -> ReplicaState:
        """All else."""
        return self._state

    def chain(self, name: str) -> Chain:
        """Give the images of one disk."""
        return next(chain for chain in self._state.chains if chain.name == name)

    def change(self, **changes: object) -> None:
        """Change the state, durably."""
        state = msgspec.structs.replace(self._state, **changes)
        try:
            write_struct(self.folder / STATE, state)
        except OSError as error:
            kind = NoSpace if error.errno in {28, 122} else HotspareError
            raise kind(f"{self.folder / STATE} cannot be written: {error.strerror}") from error
        self._state = state

    def check_tenure(self, tenure: Tenure) -> None:
        """Raise ``PermissionRefused`` unless this is the tenure that may write."""
        if tenure != self._state.tenure:
            raise PermissionRefused(
                f"The replica of {self.machine_name} belongs to tenure {self._state.tenure.epoch} of"
                f" host {self._state.tenure.holder}, not {tenure.epoch} of {tenure.holder}",
                meaning="It was not changed",
                hint="Another host has taken the machine over; see hotspare replica status",
            )

    def check_session(self, session: str) -> None:
        """Raise ``PermissionRefused`` unless a request belongs to the disks as they are open now.

        What a network has held up may arrive when its sender has long given it up and begun anew.
        """
        exports = self._state.exports
        if exports is None or session != exports.session:
            raise PermissionRefused(
                f"The request is one of an earlier connection to the replica of {self.machine_name}",
                meaning="The replica was not changed",
                hint="The source connects anew by itself",
            )

    def serve(self, tenure: Tenure, *, durable: bool | None = None, anew: bool = False) -> Exports:
        """Serve all disks for writing to the holder, over NBD with TLS; idempotent.

        Args:
            tenure: must be the replica's.
            durable: a write is answered only when it is on the disk; None to leave that as it is.
            anew: cut all connections first. Who brings the replica up to date has to: a write of a connection
                that broke may be on its way still, and would undo a newer one.

        Raises:
            PermissionRefused: somebody else may write.
            PlatformUnavailable: the storage daemon does not start.
        """
        with self.turn:
            self.check_tenure(tenure)
            daemon = self.daemon()
            exports = self._state.exports
            if exports is None or anew or durable not in {None, exports.durable}:
                self.before_change(daemon)
                close_exports(daemon)
                exports = open_exports(daemon, self._state, durable=bool(durable))
                self.change(exports=exports)
            return exports

    def close_exports(self) -> None:
        """Let nobody write any more; connections are cut. Does nothing when none are open."""
        with self.turn:
            daemon = self._daemon or StorageDaemon.find(self.folder)
            if daemon is not None and daemon.is_running:
                self._daemon = daemon
                self.before_change(daemon)
                close_exports(daemon)
            if self._state.exports is not None:
                self.change(exports=None)

    def daemon(self) -> StorageDaemon:
        """Give the storage daemon, with all disks open; started when it does not run.

        A start is a new generation. What was on top is not whole any more when the one before was killed: it
        may have had writes in its memory that it had acknowledged.
        """
        with self.turn:
            if self._daemon is not None and self._daemon.is_running:
                return self._daemon
            if self._daemon is not None:
                self._daemon.kill()  # it is dead, and now forgotten too
                self._daemon = None
            else:
                self._daemon = StorageDaemon.find(self.folder)
            if self._daemon is not None:
                self.adopt(self._daemon)
            else:
                self._daemon = self._started()
            return self._daemon

    def _started(self) -> StorageDaemon:
        before = self._state
        durable = before.exports is not None and before.exports.durable
        self.change(
            generation=before.generation + 1,
            whole=before.whole and (before.clean or durable),
            exports=None,
            clean=False,
        )
        daemon = StorageDaemon.start(self.folder)
        try:
            for chain in self._state.chains:
                open_chain(daemon, self.folder, chain)
            holder = self._state.tenure.holder
            self._identity.write_qemu_credentials(self.folder / "tls", trusted=[holder], server=True)
            open_server(daemon, self.folder / "tls", self._state.port)
        except BaseException:
            daemon.kill()
            raise
        return daemon

    def answers(self, seconds: float) -> bool:
        """Tell whether the storage daemon serves the disks, and answers within that time."""
        if not self.turn.acquire(timeout=seconds):
            return True  # it is at work for somebody else, who will learn how it is
        try:
            daemon = self._daemon
            if daemon is None and (daemon := StorageDaemon.find(self.folder)) is not None:
                self.adopt(daemon)
                self._daemon = daemon
            if daemon is None or not daemon.is_running or self._state.exports is None:
                return False
            daemon.ask("query-block-exports", timeout=seconds)
        except HotspareError:
            return False
        else:
            return True
        finally:
            self.turn.release()

    def stop_daemon(self) -> None:
        """Have all be written out, and end the storage daemon; does nothing when none runs."""
        with self.turn:
            daemon = self._daemon or StorageDaemon.find(self.folder)
            self._daemon = None
            if daemon is not None:
                self.before_change(daemon)
            if daemon is not None and daemon.stop():
                self.change(clean=True, exports=None)

    def let_go(self) -> None:
        """Leave the storage daemon at work, for the next agent."""
        with self.turn:
            if self._daemon is not None:
                self._daemon.let_go()
                self._daemon = None
