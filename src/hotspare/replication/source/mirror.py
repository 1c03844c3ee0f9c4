"""Has a machine's QEMU write to both places: a write of the guest is done when it is on both.

The jobs are ours, not libvirt's, and their target is a node with a name of ours, so that a connection that
has gone silent can be cut ("yanked"); until then QEMU waits for it, and with it the guest's writes.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hotspare.errors import HotspareError
from hotspare.replication.source.monitor import Monitor

_WAIT_FOR_US = 24 * 3600
"""Seconds that QEMU itself tries to connect again before it lets writes fail: it is we who decide that."""
_LET_GO_SECONDS = 5.0
_ATTEMPT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class MirrorTarget:
    """Where the disks go."""

    address: str
    port: int
    exports: Mapping[str, str]
    """For each disk the name of its export."""
    credentials: Path
    """Folder of a ``tls-creds-x509`` object, which QEMU may read; see ``Identity.write_qemu_credentials``."""
    server_name: str
    """In the server's certificate."""


class Mirror:
    """The mirrors of all disks of one machine.

    Args:
        monitor: of its QEMU.
        protection: id.
        nodes: for each disk the node to be mirrored.
    """

    def __init__(self, monitor: Monitor, protection: str, nodes: Mapping[str, str]) -> None:
        self._monitor = monitor
        self._nodes = nodes
        self._prefix = f"hotspare-{protection[:8]}-"
        self._credentials = f"hotspare-{protection[:8]}"

    def _name(self, disk: str) -> str:
        return f"{self._prefix}{disk}"

    def connect(self, target: MirrorTarget) -> None:
        """Let QEMU connect to the target, for ``start``. It must be known to answer: QEMU waits for it.

        Raises:
            SourceLost: the machine does not run.
            HotspareError: the target does not answer, or does not trust us.
        """
        self._forget()
        try:
            self._monitor.ask(
                "object-add",
                qom_type="tls-creds-x509",
                id=self._credentials,
                dir=str(target.credentials),
                endpoint="client",
                verify_peer=True,
            )
            for disk in self._nodes:
                self._connect(disk, target)
        except BaseException:
            with suppress(HotspareError):
                self._forget()
            raise

    def start(self) -> None:
        """Mirror all that is written from now on; what is there already has to be on the target.

        Raises:
            SourceLost: the machine does not run.
            HotspareError: QEMU refuses, for instance while a backup of the machine runs.
        """
        try:
            for disk, node in self._nodes.items():
                self._monitor.ask(
                    "blockdev-mirror",
                    job_id=self._name(disk),
                    device=node,
                    target=self._name(disk),
                    sync="none",
                    copy_mode="write-blocking",
                    auto_dismiss=False,
                )
        except BaseException:
            with suppress(HotspareError):
                self.cut()
            raise

    def _connect(self, disk: str, target: MirrorTarget) -> None:
        self._monitor.ask(
            "blockdev-add",
            driver="nbd",
            node_name=self._name(disk),
            server={"type": "inet", "host": target.address, "port": str(target.port)},
            export=target.exports[disk],
            tls_creds=self._credentials,
            tls_hostname=target.server_name,
            reconnect_delay=_WAIT_FOR_US,
        )

    def failure(self) -> str | None:
        """Say what is wrong with the mirrors; None when all of them are in sync.

        Raises:
            SourceLost: the machine does not run.
        """
        jobs = self._monitor.jobs(self._prefix)
        for disk in self._nodes:
            job = jobs.get(self._name(disk))
            if job is None:
                return f"{disk} is not mirrored"
            # Only newer QEMU says whether it is in sync; all end a mirror of ours whose target has failed.
            if job["status"] != "ready" or not job.get("actively-synced", True):
                return f"the mirror of {disk} has ended: {job.get('error', 'a write to the standby failed')}"
        return None

    def waiting(self) -> dict[str, int]:
        """Give, for each disk with writes on their way to the standby, how many bytes have arrived so far."""
        jobs = self._monitor.jobs(self._prefix)
        return {
            disk: job["offset"]
            for disk in self._nodes
            if (job := jobs.get(self._name(disk))) is not None and job.get("len", 0) > job.get("offset", 0)
        }

    def leads_to(self, exports: Mapping[str, str]) -> bool:
        """Whether the mirrors go to these exports."""
        nodes = self._monitor.nodes()
        files = {disk: str(nodes.get(self._name(disk), {}).get("file", "")) for disk in self._nodes}
        return all(exports.get(disk, "?") in file for disk, file in files.items())

    def is_there(self) -> bool:
        """Whether there is any mirror of ours, in whatever state."""
        return bool(self._monitor.jobs(self._prefix))

    def cut(self) -> None:
        """Let go of the target at once, whatever it does: writes that wait for it are done without it.

        Raises:
            SourceLost: the machine does not run.
            HotspareError: QEMU does not let go; the guest's writes may go on waiting.
        """
        deadline = time.monotonic() + _LET_GO_SECONDS
        while time.monotonic() < deadline:
            self._yank()
            for name, job in self._monitor.jobs(self._prefix).items():
                if job["status"] not in {"concluded", "aborting"}:
                    with suppress(HotspareError):  # it has just ended
                        # Also frees what waits while QEMU tries to connect again, which a yank does not.
                        self._monitor.ask("block-job-cancel", device=name, force=True)
            if self._monitor.wait_concluded(self._prefix, _ATTEMPT_SECONDS):
                self._forget()
                return
        raise HotspareError(
            f"QEMU of {self._monitor.name} does not let go of the standby",
            meaning="The guest's writes may be waiting for it",
            hint="Look at the host's load; it is tried again",
        )

    def _yank(self) -> None:
        ours = {self._name(disk) for disk in self._nodes}
        instances = [one for one in self._monitor.ask("query-yank") if one.get("node-name") in ours]
        if instances:
            with suppress(HotspareError):  # one of them is not connected at the moment
                self._monitor.ask("yank", instances=instances)

    def end(self) -> None:
        """End mirrors that are in sync in good order: all that was written is on the target."""
        for name, job in self._monitor.jobs(self._prefix).items():
            if job["status"] == "ready":
                self._monitor.ask("block-job-cancel", device=name)
        if self._monitor.wait_concluded(self._prefix, _LET_GO_SECONDS):
            self._forget()
        else:
            self.cut()

    def _forget(self) -> None:
        """Close the connections and forget the credentials; nothing happens where there are none."""
        nodes = self._monitor.nodes()
        for disk in self._nodes:
            if self._name(disk) in nodes:
                self._monitor.ask("blockdev-del", node_name=self._name(disk))
        with suppress(HotspareError):
            self._monitor.ask("object-del", id=self._credentials)
