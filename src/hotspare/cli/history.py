"""Keeping the catalog: the history of runs, and its cache of restore points.

A catalog that cannot be used never keeps a machine from being backed up or restored: that is a warning.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from hotspare.catalog.catalog import Catalog
from hotspare.catalog.rows import Ended, PointRow, RunResult
from hotspare.cli.directed import known_as
from hotspare.cli.logs import about_run
from hotspare.cli.output import warn
from hotspare.documents.progress import stages_of
from hotspare.documents.stages import Stages
from hotspare.errors import HotspareError, Interrupted
from hotspare.events import Event, HeldBack, Listener, Progress, StagesTimed, Warned
from hotspare.fleet.work import Work
from hotspare.repository.point import RestorePoint
from hotspare.repository.tested import BootRecord, Tested

_log = logging.getLogger("hotspare.runs")
# Commands say themselves how it went; a service has a handler above this one.
_log.addHandler(logging.NullHandler())


class Run:
    """A run that is going on; what is known of it at its end is recorded."""

    def __init__(self) -> None:
        self.point: str | None = None
        self.held_back: HeldBack | None = None
        self.stages: Stages | None = None
        self.warnings = 0
        self._seen: dict[tuple[str, str], Progress] = {}

    def watching(self, listener: Listener) -> Listener:
        """Give a listener that notes what belongs to the run's record before it passes events on."""

        def watch(event: Event) -> None:
            if isinstance(event, Progress):
                self._seen[event.machine, event.disk] = event
            elif isinstance(event, HeldBack):
                self.held_back = event
            elif isinstance(event, StagesTimed):
                self.stages = stages_of(event)
            elif isinstance(event, Warned):
                self.warnings += 1
            listener(event)

        return watch

    @property
    def bytes_read(self) -> int:
        """Bytes read of all disks so far."""
        return sum(seen.bytes_read for seen in self._seen.values())

    @property
    def bytes_stored(self) -> int:
        """Bytes that all disks' new data took in the repository so far."""
        return sum(seen.bytes_stored for seen in self._seen.values())


def _result(run: Run, outcome: Ended, code: str | None, what: str | None) -> RunResult:
    return RunResult(
        outcome=outcome,
        error_code=code,
        error=what,
        point=run.point,
        bytes_read=run.bytes_read,
        bytes_stored=run.bytes_stored,
        held_back_seconds=run.held_back.seconds if run.held_back else None,
        latency_factor=run.held_back.latency_factor if run.held_back else None,
        warnings=run.warnings,
        seconds_reading=run.stages.reading if run.stages else None,
        seconds_processing=run.stages.processing if run.stages else None,
        seconds_storing=run.stages.storing if run.stages else None,
    )


class History:
    """The catalog as commands write it."""

    def __init__(self, session: Work, repository: str, policy: str | None = None) -> None:
        """``policy`` names the one by which the runs go on."""
        self.session = session
        self.repository = repository
        self.policy = policy
        self._catalog: Catalog | None = None
        with _only_warned("This run is not recorded"):
            self._catalog = session.catalog()

    @contextmanager
    def run(self, kind: str, machine: str, platform: str) -> Iterator[Run]:
        """Record a run: that it began now, and, when the block is left, how it ended."""
        number = None
        run = Run()
        if self._catalog:
            with _only_warned("This run is not recorded"):
                number = self._catalog.begin_run(
                    kind=kind,
                    machine=machine,
                    platform=platform,
                    repository=self.repository,
                    policy=self.policy,
                )
        about = about_run(machine, self.policy, number)
        _log.info("%s of %s begins", kind, machine, extra=about)
        outcome: Literal["ok", "failed", "interrupted"] = "failed"
        code: str | None = HotspareError.code
        what: str | None = None
        try:
            yield run
            outcome, code = "ok", None
        except Interrupted as error:
            outcome, code, what = "interrupted", error.code, error.what
            raise
        except HotspareError as error:
            code, what = error.code, error.what
            raise
        finally:
            level = logging.ERROR if outcome == "failed" else logging.INFO
            words = f"{outcome}. {what}" if what else outcome
            _log.log(level, "%s of %s: %s", kind, machine, words, extra=about)
            if self._catalog and number is not None:
                with _only_warned("The end of this run is not recorded"):
                    self._catalog.finish_run(number, _result(run, outcome, code, what))

    def replace_points(
        self, points: Sequence[RestorePoint], tested: Mapping[str, Tested] = MappingProxyType({})
    ) -> None:
        """Note all restore points that the repository holds, and by id what is known of those tried."""
        if self._catalog:
            with _only_warned("The catalog does not know all restore points"):
                rows = [
                    self._row(point, tested[point.id].boot if point.id in tested else None)
                    for point in points
                ]
                self._catalog.replace_points(self.repository, rows)

    def add_point(self, point: RestorePoint) -> None:
        """Note a restore point that was just made."""
        if self._catalog:
            with _only_warned("The catalog does not know the new restore point"):
                self._catalog.add_point(self._row(point))

    def note_boot(self, point: RestorePoint, boot: BootRecord) -> None:
        """Note how the trial of a restore point went."""
        if self._catalog:
            with _only_warned("The catalog does not know how the trial went"):
                self._catalog.add_point(self._row(point, boot))

    def remove_point(self, point: RestorePoint) -> None:
        """Note that a restore point was forgotten."""
        if self._catalog:
            with _only_warned("The catalog still shows a restore point that is gone"):
                self._catalog.remove_point(self.repository, point.id)

    def _row(self, point: RestorePoint, boot: BootRecord | None = None) -> PointRow:
        row = point_row(self.repository, point, boot)
        # Points that another host has made here name the platform as that host knows it.
        return replace(row, platform=self.session.settings.platform) if row.platform == known_as() else row


def point_row(repository: str, point: RestorePoint, boot: BootRecord | None) -> PointRow:
    """Describe a restore point of the repository at a URL for the catalog."""
    return PointRow(
        repository=repository,
        id=point.id,
        machine_id=point.machine_id,
        machine_name=point.machine_name,
        platform=point.platform,
        finished_at=point.finished_at,
        consistency=point.consistency,
        boot_at=boot.at if boot else None,
        boot_passed=boot.passed if boot else None,
        boot_life=boot.life if boot else None,
        size=sum(disk.size for disk in point.disks),
        bytes_stored=sum(content.bytes_stored for content in point.contents),
        tags=tuple(sorted(point.machine.get("marks", {}).get("tags", ()))),
    )


@contextmanager
def _only_warned(consequence: str) -> Iterator[None]:
    try:
        yield
    except HotspareError as error:
        warn(f"{consequence}. {error}")
