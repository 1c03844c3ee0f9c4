"""``hotspare verify --boot``: start restore points for a trial, and note how that went."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.cli import output
from hotspare.cli.history import History
from hotspare.cli.options import Repeatable, Switch
from hotspare.cli.quantities import parse_bytes, parse_duration
from hotspare.cli.session import Session
from hotspare.cli.telling import tell_trial
from hotspare.cli.tested import boot_words
from hotspare.documents.tested import boot_fields
from hotspare.errors import (
    BootTestFailed,
    HotspareError,
    Interrupted,
    MachineNotFound,
    PermissionRefused,
    UsageError,
)
from hotspare.platforms.platform import Platform
from hotspare.platforms.trial import TrialPlatform
from hotspare.repository.point import RestorePoint, of_machines
from hotspare.repository.repository import Repository
from hotspare.repository.select import find_points
from hotspare.repository.tested import put_boot
from hotspare.restore.boot_test.check import Check, parse_check
from hotspare.restore.boot_test.run import DEFAULT_BOOT_SECONDS, BootTest, Wanted, boot_test
from hotspare.restore.machine import machine_of
from hotspare.units import MIB, format_duration

_GROUP = Group("Starting a machine (--boot)", sort_key=-2)
_MEMORY_MIN = 16 * MIB
_QUIET = frozenset({"crash", "offline"})


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, kw_only=True)
class BootOptions:
    """How a machine is started for a trial."""

    check: Repeatable = ()
    """What is looked at beside those noted on the machine ("machine check"): agent, heartbeat, tcp:PORT,
    postgresql, mariadb, guest:NAME or host:NAME, with ,timeout=2m if need be; may be given again."""
    boot_timeout: str | None = None
    """How long a machine may take to come to life, like 10m; else 5m."""
    memory: str | None = None
    """Give no machine more memory than this, like 2GiB."""
    together: Switch = False
    """Start all POINTS in one network, in their order: an application with its database, say."""
    screenshots: Path | None = None
    """A folder for pictures of the consoles, as POINT.png; the repository has them anyway."""
    platform: Annotated[str | None, Parameter(name="--platform")] = None
    """URI of the platform that they are started on; else HOTSPARE_PLATFORM, else qemu:///system."""


BOOT_AS_USUAL = BootOptions()


class BootCommand:
    """One call of the command."""

    def __init__(self, session: Session, repository: Repository, options: BootOptions) -> None:
        self._session = session
        self._repository = repository
        self._options = options
        self._checks = tuple(parse_check(text) for text in options.check)
        self._boot_seconds = (
            parse_duration(options.boot_timeout) if options.boot_timeout else DEFAULT_BOOT_SECONDS
        )
        self._memory_max = parse_bytes(options.memory) if options.memory else None
        if self._memory_max is not None and self._memory_max < _MEMORY_MIN:
            raise UsageError("No machine starts with so little --memory", meaning="Nothing was started")
        self._platform: Platform = session.platform()
        self._history = History(session, repository.backend.url)
        self._agents = {
            point.machine_id for point in repository.points(_pass_over) if point.consistency not in _QUIET
        }

    def run(
        self, points: Sequence[RestorePoint], listener: events.Listener, cancellation: Cancellation
    ) -> None:
        """Try them, one after the other or together, and tell.

        Raises:
            UsageError: the platform cannot start machines for a trial.
            BootTestFailed: a point did not come to life, or a check failed.
            HotspareError: a trial could not be made; others were.
        """
        if not isinstance(self._platform, TrialPlatform):
            raise UsageError(
                f"Machines cannot be started at {self._platform.uri}",
                meaning="Nothing was started",
                hint="Name a host with libvirt, with --platform qemu:///system",
            )
        if self._options.together and len({point.machine_id for point in points}) < len(points):
            raise UsageError(
                "--together takes one restore point of each machine",
                meaning="Nothing was started",
                hint="They have the same addresses, and would be in each other's way",
            )
        groups = [list(points)] if self._options.together else [[point] for point in points]
        tests: list[BootTest] = []
        errors: list[tuple[str, HotspareError]] = []
        for group in groups:
            names = ", ".join(point.machine_name for point in group)
            try:
                with self._history.run("boot-test", names, self._platform.uri) as run:
                    run.point = group[0].id if len(group) == 1 else None
                    wanted = [self._wanted(point) for point in group]
                    done = boot_test(
                        self._repository, self._platform, wanted, run.watching(listener), cancellation
                    )
                    for test in done:
                        self._keep(test, listener)
                    tests += done
                    self._refuse_failed(done)
            except Interrupted:
                raise
            except HotspareError as error:
                errors.append((names, error))
        self._tell(tests, errors)
        if errors:
            raise self._summary(tests, errors)

    def _wanted(self, point: RestorePoint) -> Wanted:
        return Wanted(
            point=point,
            checks=self._checks_for(point),
            has_agent=point.machine_id in self._agents,
            boot_seconds=self._boot_seconds,
            memory_max=self._memory_max,
        )

    def _checks_for(self, point: RestorePoint) -> tuple[Check, ...]:
        """Give the checks of the machine as it is now, or else as it was; then those of the command line."""
        noted = machine_of(point).marks.checks
        with suppress(MachineNotFound):  # it is gone, or lives elsewhere
            noted = self._platform.inspect(point.machine_id).marks.checks
        checks = {check.name: check for check in (*(parse_check(text) for text in noted), *self._checks)}
        return tuple(checks.values())

    def _keep(self, test: BootTest, listener: events.Listener) -> None:
        """Note the result beside the point, and for people in a file."""
        machine = test.point.machine_name
        for warning in test.record.warnings:
            listener(events.Warned(machine, warning))
        try:
            put_boot(
                self._repository.backend, self._repository.keyring, test.point.id, test.record, test.screen
            )
        except PermissionRefused as error:
            listener(events.Warned(machine, f"The result is not kept with the restore point: {error.what}"))
        self._history.note_boot(test.point, test.record)
        tell_trial(self._session, test.point, test.record, boot_words(test.record))
        if self._options.screenshots is not None and test.screen is not None:
            try:
                self._options.screenshots.mkdir(parents=True, exist_ok=True)
                (self._options.screenshots / f"{test.point.id}.png").write_bytes(test.screen)
            except OSError as error:
                listener(events.Warned(machine, f"The picture is not written: {error}"))

    def _refuse_failed(self, tests: Sequence[BootTest]) -> None:
        failed = [test for test in tests if not test.record.passed]
        if failed:
            raise BootTestFailed(
                "; ".join(f"{test.point.machine_name} {boot_words(test.record)}" for test in failed),
                meaning="The restore point is as it was; what was tried is removed",
                hint=f"What its console showed: hotspare point show {failed[0].point.id} --screenshot FILE",
            )

    def _tell(self, tests: Sequence[BootTest], errors: Sequence[tuple[str, HotspareError]]) -> None:
        if self._session.as_json:
            results = [
                {
                    "point": test.point.id,
                    "machine": test.point.machine_name,
                    "screenshot": len(test.screen) if test.screen else None,
                    "boot": boot_fields(test.record),
                }
                for test in tests
            ]
            untried = [
                {"machines": names, "error": output.error_fields(error)}
                for names, error in errors
                if not isinstance(error, BootTestFailed)
            ]
            output.print_document(output.document("boot-tests", results=results, untried=untried))
            return
        for test in tests:
            record = test.record
            output.print_text(
                f"{test.point.machine_name}: restore point {test.point.id} {boot_words(record)}"
                f" ({format_duration(record.life_seconds)})"
            )
            rows = [
                (check.name, check.outcome, format_duration(check.seconds), check.detail)
                for check in record.checks
            ]
            if rows:
                output.print_table(("CHECK", "OUTCOME", "TOOK", "SEEN"), rows, right=("TOOK",), indent="  ")
        for names, error in errors:
            if not isinstance(error, BootTestFailed):
                output.warn(f"{names}: not tried. {error}")

    def _summary(
        self, tests: Sequence[BootTest], errors: Sequence[tuple[str, HotspareError]]
    ) -> HotspareError:
        if len(errors) == 1:
            return errors[0][1]
        failed = sum(not test.record.passed for test in tests)
        untried = [error for _, error in errors if not isinstance(error, BootTestFailed)]
        return BootTestFailed(
            f"{failed} of {len(tests)} restore points did not pass"
            + (f"; {len(untried)} could not be tried" if untried else ""),
            meaning="The restore points are as they were; what was tried is removed",
            hint="The reasons are said above",
        )


def chosen_points(
    repository: Repository, named: Sequence[str], *, everything: bool, newest: bool
) -> list[RestorePoint]:
    """Give the points that are named, or all; of each machine only the newest if that is wanted.

    Raises:
        PointNotFound, UsageError: as ``find_points``.
    """
    every = of_machines(repository.points(_pass_over)) if everything or newest else []
    points = every if everything else find_points(repository, named)
    if not newest:
        return points
    by_machine = {point.machine_id: point for point in every}  # the last one wins, which is the newest
    return [by_machine[machine] for machine in dict.fromkeys(point.machine_id for point in points)]


def _pass_over(name: str, error: HotspareError) -> None:
    output.warn(f"{name.rpartition('/')[2]} is passed over: {error.what}")
