"""Backing up machines one after the other, each recorded in the history; for commands and policies."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hotspare.backup.claim import UNDISPUTED, Claim
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import Cancellation, cancelled_by_signals
from hotspare.cli.backup_results import BackupResult, Outcome, doubts_about
from hotspare.cli.directed import claim_on_runs
from hotspare.cli.history import History
from hotspare.cli.options import ProgressForm
from hotspare.cli.progress import shown_progress
from hotspare.cli.telling import EndedBackup, tell_backup
from hotspare.errors import HotspareError, Interrupted, MachineNotFound, SourceLost
from hotspare.events import Listener
from hotspare.platforms.platform import Machine, Platform
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class WantedMachine:
    """One machine to be backed up."""

    name: str
    """What it is called in results."""
    reference: str
    """What the platform finds it by."""
    listed: bool = False
    """It was found on the platform rather than named: it may go away meanwhile."""
    tags: tuple[str, ...] | None = None
    """None when they are not known."""


class Engine(Protocol):
    """Who makes restore points of the machines of one platform, in one repository."""

    @property
    def uri(self) -> str:
        """Of the platform, as it is known here."""
        ...

    def inspect(self, reference: str) -> Machine:
        """Describe a machine. Raises ``MachineNotFound``."""
        ...

    def back_up(
        self, reference: str, listener: Listener, cancellation: Cancellation, claim: Claim
    ) -> RestorePoint:
        """Make a restore point; see ``backup_machine``."""
        ...


@dataclass(frozen=True, slots=True)
class EngineHere:
    """Fulfils ``Engine`` for a platform of this host."""

    repository: Repository
    platform: Platform
    options: BackupOptions

    @property
    def uri(self) -> str:
        """See ``Engine``."""
        return self.platform.uri

    def inspect(self, reference: str) -> Machine:
        """See ``Engine``."""
        return self.platform.inspect(reference)

    def back_up(
        self, reference: str, listener: Listener, cancellation: Cancellation, claim: Claim
    ) -> RestorePoint:
        """See ``Engine``."""
        return backup_machine(
            self.repository, self.platform, reference, self.options, listener, cancellation, claim
        )


@dataclass(frozen=True, slots=True)
class Backups:
    """Backs up one machine after the other; the failure of one does not stop the others."""

    history: History
    engine: Engine

    def of(self, wanted: Sequence[WantedMachine], progress: ProgressForm) -> list[BackupResult]:
        """Give one result for each, also for those that an interruption left out."""
        results: list[BackupResult] = []
        with cancelled_by_signals() as cancellation, shown_progress(progress, cancellation) as listener:
            for one in wanted:
                if results and results[-1].outcome in {"interrupted", "not-begun"}:
                    results.append(BackupResult(one.name, "not-begun"))
                else:
                    results.append(self.one(one, listener, cancellation, claim_on_runs()))
        return results

    def one(
        self,
        wanted: WantedMachine,
        listener: Listener,
        cancellation: Cancellation,
        claim: Claim = UNDISPUTED,
    ) -> BackupResult:
        """Back up one machine; what goes wrong is in the result. People are told of it."""
        result = self._back_up(wanted, listener, cancellation, claim)
        if result.outcome in {"ok", "failed"}:
            ended = EndedBackup(
                machine=wanted.name,
                platform=self.engine.uri,
                repository=self.history.repository,
                policy=self.history.policy,
                tags=wanted.tags,
                point=result.point.id if result.point else None,
                error=str(result.error or "It is not known why") if result.outcome == "failed" else None,
            )
            tell_backup(self.history.session, ended)
        return result

    def _back_up(
        self, wanted: WantedMachine, listener: Listener, cancellation: Cancellation, claim: Claim
    ) -> BackupResult:
        began = time.monotonic()
        run = None
        try:
            with self.history.run("backup", wanted.name, self.engine.uri) as run:
                point = self.engine.back_up(wanted.reference, run.watching(listener), cancellation, claim)
                run.point = point.id
        except HotspareError as error:
            return BackupResult(
                wanted.name,
                self._outcome(wanted, error),
                error=error,
                bytes_read=run.bytes_read if run else 0,
                bytes_stored=run.bytes_stored if run else 0,
                seconds=time.monotonic() - began,
                stages=run.stages if run else None,
                warnings=run.warnings if run else 0,
            )
        self.history.add_point(point)
        doubts = doubts_about(point)
        return BackupResult(
            wanted.name,
            "failed" if doubts else "ok",
            point=point,
            error=doubts,
            bytes_read=run.bytes_read,
            bytes_stored=run.bytes_stored,
            seconds=time.monotonic() - began,
            held_back=run.held_back,
            stages=run.stages,
            warnings=run.warnings,
        )

    def _outcome(self, wanted: WantedMachine, error: HotspareError) -> Outcome:
        if isinstance(error, Interrupted):
            return "interrupted"
        if wanted.listed and isinstance(error, (MachineNotFound, SourceLost)):
            try:
                self.engine.inspect(wanted.reference)
            except MachineNotFound:
                return "vanished"
            except HotspareError:
                return "failed"
        return "failed"
