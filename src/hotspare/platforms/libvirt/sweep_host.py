"""Clearing away, on all machines of a host, what runs of ours left that were killed.

A run holds a lock on a file in its folder as long as its process lives (see ``scratch``), so nothing of a run
at work is ever taken for a leftover, whatever process id it has.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import libvirt

from hotspare.errors import HotspareError, PermissionRefused
from hotspare.platforms.libvirt.checkpoints import Checkpoints, checkpoint_prefix
from hotspare.platforms.libvirt.connection import explained
from hotspare.platforms.libvirt.inventory import inspect_disks
from hotspare.platforms.libvirt.quiesce import set_free
from hotspare.platforms.libvirt.scratch import Leftover, is_run_folder, leftovers, living_run_on
from hotspare.platforms.libvirt.snapshot import end_job, job_serves, job_socket
from hotspare.platforms.libvirt.trial import clear_trial, dead_trial, folder_of_trial
from hotspare.platforms.platform import Remnant, SweepRequest

_Domains = Mapping[str, libvirt.virDomain]
"""By UUID."""


@dataclass
class HostSweep:
    """One sweep of a host."""

    connection: libvirt.virConnect
    uri: str
    scratch_folder: Path
    request: SweepRequest
    found: list[Remnant] = field(default_factory=list)

    def run(self) -> list[Remnant]:
        """Sweep, and give what was found.

        Raises:
            PlatformUnavailable: libvirt does not answer.
            PermissionRefused: the folders of runs belong to another user.
        """
        with explained(f"The machines at {self.uri} cannot be listed"):
            domains = {domain.UUIDString(): domain for domain in self.connection.listAllDomains()}
        try:
            for parent in sorted(self._parents_of_runs(domains)):
                with leftovers(parent) as dead:
                    for leftover in dead:
                        if leftover.owner.uri != self.uri:
                            continue
                        if leftover.owner.trial:
                            self._clear_trial(leftover)
                        else:
                            self._clear(leftover, domains.get(leftover.owner.domain))
        except PermissionError as error:
            raise PermissionRefused(
                f"The folders of runs cannot be looked at: {error.filename}: {error.strerror}",
                meaning="What was found before is cleared away, the rest is left as it was",
                hint="Run hotspare as the user who makes the backups, usually root",
            ) from error
        if self.request.repository_id is not None:
            self._sweep_checkpoints(domains, checkpoint_prefix(self.request.repository_id))
        return self.found

    def _parents_of_runs(self, domains: _Domains) -> set[Path]:
        """Give our scratch folder, and the others whose runs have left a job."""
        sockets = [Path(socket) for domain in domains.values() if (socket := job_socket(domain))]
        others = {socket.parent.parent for socket in sockets if is_run_folder(socket.parent)}
        # Ask the trials themselves as well: another user of this host may have set another scratch folder.
        trials = {folder.parent for one in domains.values() if (folder := folder_of_trial(one)) is not None}
        return {self.scratch_folder} | others | trials

    def _clear_trial(self, leftover: Leftover) -> None:
        """Remove a trial as a whole: its domain is nobody's but ours."""
        running = dead_trial(self.connection, leftover) is not None
        problem = None if self.request.dry_run else clear_trial(self.connection, leftover)
        if running:
            self._note("trial", leftover.owner.name, leftover.owner.domain, problem)
        if not running or problem is None:
            self._note("run-folder", leftover.owner.name, str(leftover.path), problem)

    def _clear(self, leftover: Leftover, domain: libvirt.virDomain | None) -> None:
        machine, socket = leftover.owner.domain, str(leftover.socket)
        if domain is not None:
            machine = domain.name()
            if leftover.frozen and domain.isActive():
                problem = None
                if not self.request.dry_run and not set_free(domain, leftover.owner.point_id):
                    problem = "its agent did not answer; reset the machine, or try again"
                self._note("frozen-guest", machine, leftover.path.name, problem)
                if problem is not None:
                    return  # the folder holds the only note that the guest is frozen
            if job_serves(domain, socket):
                ended = self.request.dry_run or end_job(domain, socket)
                self._note("backup-job", machine, socket, None if ended else "libvirt did not end it")
                if not ended:
                    return  # by the folder we know the job as ours
        if not self.request.dry_run:
            leftover.remove()
        still = not self.request.dry_run and leftover.path.exists()
        self._note("run-folder", machine, str(leftover.path), "it cannot be removed" if still else None)

    def _sweep_checkpoints(self, domains: _Domains, prefix: str) -> None:
        # The order counts: a run that ends after it was looked at here has its point, and with it its token,
        # in the repository before the tokens are asked for.
        seen: list[tuple[Checkpoints, frozenset[str], frozenset[str]]] = []
        for domain in domains.values():
            with suppress(libvirt.libvirtError, HotspareError):
                checkpoints = Checkpoints(domain, prefix, inspect_disks(domain).backed_up)
                known, stray = checkpoints.names(), checkpoints.stray_bitmaps()
                if (known or stray) and not self._is_busy(domain):
                    seen.append((checkpoints, known, stray))
        if not seen:
            return
        needed = self.request.needed_tokens()
        for checkpoints, known, stray in seen:
            of_machine = needed.get(checkpoints.domain.UUIDString(), frozenset())
            for name in sorted(known - of_machine):
                self._remove_checkpoint(checkpoints, name)
            for name in sorted(stray - of_machine):
                if not self.request.dry_run:
                    checkpoints.remove_bitmaps(name)
                self._note("checkpoint", checkpoints.domain.name(), f"{name} (a bitmap without checkpoint)")

    def _remove_checkpoint(self, checkpoints: Checkpoints, name: str) -> None:
        problem = None
        if not self.request.dry_run:
            checkpoints.remove(name)
            with suppress(libvirt.libvirtError):
                problem = "libvirt did not remove it" if name in checkpoints.names() else None
        self._note("checkpoint", checkpoints.domain.name(), name, problem)

    def _is_busy(self, domain: libvirt.virDomain) -> bool:
        """Tell whether a run of ours, or a job of anybody, is at work on a machine."""
        if living_run_on(self.scratch_folder, domain.UUIDString()) is not None:
            return True
        socket = job_socket(domain)
        # In a dry run the job of a dead run is still there.
        return socket is not None and not any(
            one.kind == "backup-job" and one.detail == socket and one.problem is None for one in self.found
        )

    def _note(self, kind: str, machine: str, detail: str, problem: str | None = None) -> None:
        self.found.append(Remnant(kind, machine, detail, problem))
