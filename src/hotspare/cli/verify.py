"""``hotspare verify``: read restore points back and prove that every byte is as it was."""

from typing import Annotated, NamedTuple

from cyclopts import Parameter

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.history import History
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.problems import problem_fields, refuse_problems
from hotspare.cli.progress import shown_progress
from hotspare.cli.quantities import parse_bytes, parse_duration
from hotspare.cli.session import Session
from hotspare.cli.telling import damage_told
from hotspare.cli.verify_boot import BOOT_AS_USUAL, BootCommand, BootOptions, chosen_points
from hotspare.cli.verify_scan import NO_SCAN, ScanOptions, scan_points
from hotspare.errors import (
    BootTestFailed,
    NoSpace,
    PlatformUnavailable,
    PointNotFound,
    RepositoryDamaged,
    SourceLost,
    Suspicious,
    UsageError,
)
from hotspare.events import ignore
from hotspare.repository.check import check_structure
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.select import find_point
from hotspare.repository.survey import Problem
from hotspare.repository.verify import VerifyReport, verify_points
from hotspare.repository.verify_log import VerifyLog
from hotspare.repository.verify_packs import Bounds, PacksReport, verify_packs
from hotspare.restore.scan import Scanner
from hotspare.units import format_bytes

app = noun("verify", "Read restore points back, or start them, and prove that they are good.")

_SEE = 'See "hotspare verify --help"'


@app.default
def verify(
    *points: str,
    all_: Annotated[bool, Parameter(name="--all", negative="", show_default=False)] = False,
    newest: Switch = False,
    max_bytes: str | None = None,
    for_: Annotated[str | None, Parameter(name="--for")] = None,
    rate_limit: str | None = None,
    boot: Switch = False,
    booting: BootOptions = BOOT_AS_USUAL,
    scanning: ScanOptions = NO_SCAN,
    options: Options = DEFAULTS,
) -> None:
    """Read restore points back and prove that every byte is as it was; or start them; or scan their files.

    Everything is read, deciphered, decompressed and compared with its fingerprint. Without POINTS it goes
    through all packs, those first that were not verified for longest, and remembers on this host how far it
    came: stopped or bounded, the next run goes on there. "hotspare repo check" is quicker and reads no disk
    data.

    With --boot, machines are started straight from the repository instead, in a network of their own, looked
    at, and removed. With --scan or --yara, files are given to a malware scanner instead. What came of it is
    kept with each restore point, and shown by "point list" and "point show".

    Args:
        points: Ids of restore points, beginnings of them, or machines' names; none for all packs.
        all_: With --boot and --scan: all restore points.
        newest: With --boot and --scan: of each machine only the newest restore point.
        max_bytes: Without POINTS: stop after reading this much, like 20GiB.
        for_: Without POINTS: stop after this long, like 2h.
        rate_limit: Without POINTS: read at most this much a second, like 50MiB.
        boot: Start POINTS for a trial.
        booting: See below.
        scanning: See below.
        options: See below.
    """
    if (points or all_) and (max_bytes or for_ or rate_limit):
        raise UsageError(
            "--max-bytes, --for and --rate-limit do not go with restore points",
            meaning="Nothing was verified",
            hint=_SEE,
        )
    scanner = scanning.scanner()
    _refuse_mixed(points, booting, boot=boot, scan=scanner is not None, everything=all_, newest=newest)
    bounds = Bounds(
        bytes_max=parse_bytes(max_bytes) if max_bytes else None,
        seconds_max=parse_duration(for_) if for_ else None,
        bytes_per_second=parse_bytes(rate_limit) if rate_limit else None,
    )
    with Session(options, platform=booting.platform) as session:
        if boot or scanner is not None:
            choice = _Choice(points, everything=all_, newest=newest)
            _try_points(session, choice, booting if boot else None, scanner, scan_all=scanning.scan_all)
        else:
            _read_back(session, points, bounds)


class _Choice(NamedTuple):
    """Which restore points are started or scanned."""

    points: tuple[str, ...]
    everything: bool
    newest: bool


def _try_points(
    session: Session, choice: _Choice, booting: BootOptions | None, scanner: Scanner | None, *, scan_all: bool
) -> None:
    repository = session.repository()
    command = BootCommand(session, repository, booting) if booting is not None else None
    chosen = chosen_points(repository, choice.points, everything=choice.everything, newest=choice.newest)
    with (
        cancelled_by_signals() as cancellation,
        shown_progress(session.options.progress_form, cancellation) as listener,
    ):
        if command is not None:
            command.run(chosen, listener, cancellation)
        elif scanner is not None:
            scan_points(session, repository, chosen, scanner, listener, cancellation, everything=scan_all)


def _refuse_mixed(
    points: tuple[str, ...],
    booting: BootOptions,
    *,
    boot: bool,
    scan: bool,
    everything: bool,
    newest: bool,
) -> None:
    problem = ""
    if boot and scan:
        problem = "--boot and --scan are done one after the other, not at once"
    elif (boot or scan) and bool(points) == everything:
        problem = "Name restore points or machines, or say --all"
    elif not (boot or scan) and (everything or newest):
        problem = "--all and --newest go with --boot, --scan and --yara only"
    elif not boot and booting != BOOT_AS_USUAL:
        problem = "What says how machines are started goes with --boot only"
    if problem:
        raise UsageError(problem, meaning="Nothing was verified", hint=_SEE)


def _read_back(session: Session, points: tuple[str, ...], bounds: Bounds) -> None:
    repository = session.repository()
    unreadable: list[Problem] = []
    chosen = _chosen(repository, points, unreadable)
    history = History(session, repository.backend.url)
    with (
        history.run("verify", _subject(chosen, points), "") as run,
        damage_told(session, repository.backend.url, "verify") as look,
        cancelled_by_signals() as cancellation,
        shown_progress(session.options.progress_form, cancellation) as listener,
    ):
        run.point = chosen[0].id if len(chosen) == 1 and points else None
        watched = run.watching(listener)
        look.whole = False
        done: VerifyReport | PacksReport
        if points:
            done = verify_points(repository, chosen, watched, cancellation)
            problems = unreadable + done.problems
        else:
            with VerifyLog(session.settings.state_folder, repository.id) as log:
                done = verify_packs(repository, chosen, log, bounds, watched, cancellation)
            look.whole = not done.packs_left
            structure = check_structure(repository, ignore, cancellation).problems
            found = {problem.object for problem in done.problems}
            problems = done.problems + [one for one in structure if one.object not in found]
        _tell(done, chosen, problems, as_json=session.as_json)
        refuse_problems(problems, as_json=session.as_json)


def _tell(
    done: VerifyReport | PacksReport,
    chosen: list[RestorePoint],
    problems: list[Problem],
    *,
    as_json: bool,
) -> None:
    packs = done if isinstance(done, PacksReport) else None
    if as_json:
        fields = {
            "points": [point.id for point in chosen],
            "packs": packs.packs if packs else None,
            "packs_left": packs.packs_left if packs else None,
            "chunks": done.chunks,
            "bytes": done.bytes,
            "problems": [problem_fields(problem) for problem in problems],
        }
        output.print_document(output.document("verify", **fields))
        return
    what = f"{packs.packs} packs" if packs else f"{len(chosen)} restore points"
    output.print_text(f"Read {what} back: {done.chunks} chunks, {format_bytes(done.bytes)}.")
    if packs and packs.packs_left:
        output.print_text(f"{packs.packs_left} packs are left for the next run.")


app.help_epilogue = closing(
    [
        "hotspare verify",
        "hotspare verify --for 2h --rate-limit 50MiB",
        "hotspare verify web db@latest",
        "hotspare verify 20261123-021500-k3fz7 -o json",
        "hotspare verify --boot web --check tcp:443 --check postgresql",
        "hotspare verify --boot --newest --all",
        "hotspare verify --boot --together db app --check tcp:80,timeout=2m",
        "hotspare verify --newest --all --scan 'clamscan -r -i'",
        "hotspare verify web --yara rules.yar",
    ],
    *OPENING,
    PointNotFound,
    NoSpace,
    SourceLost,
    PlatformUnavailable,
    BootTestFailed,
    Suspicious,
    interruptible=True,
)


def _chosen(
    repository: Repository, references: tuple[str, ...], unreadable: list[Problem]
) -> list[RestorePoint]:
    def note(name: str, error: RepositoryDamaged) -> None:
        unreadable.append(Problem(object=name, detail=error.what, points=(name.rpartition("/")[2],)))

    if not references:
        return repository.points(note)
    found = [find_point(repository, reference) for reference in references]
    return list({point.id: point for point in found}.values())


def _subject(chosen: list[RestorePoint], references: tuple[str, ...]) -> str:
    if not references:
        return "all machines"
    return ", ".join(sorted({point.machine_name for point in chosen}))
