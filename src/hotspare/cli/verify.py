"""``hotspare verify``: read restore points back and prove that every byte is as it was."""

from typing import Annotated

from cyclopts import Parameter

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.history import History
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.problems import problem_fields, refuse_problems
from hotspare.cli.progress import shown_progress
from hotspare.cli.quantities import parse_bytes, parse_duration
from hotspare.cli.session import Session
from hotspare.errors import (
    NoSpace,
    PointNotFound,
    RepositoryDamaged,
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
from hotspare.units import format_bytes

app = noun("verify", "Read restore points back and prove that every byte is as it was.")


@app.default
def verify(
    *points: str,
    max_bytes: str | None = None,
    for_: Annotated[str | None, Parameter(name="--for")] = None,
    rate_limit: str | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Read restore points back and prove that every byte is as it was.

    Everything is read, deciphered, decompressed and compared with its fingerprint. Without POINTS it goes
    through all packs, those first that were not verified for longest, and remembers on this host how far it
    came: stopped or bounded, the next run goes on there. "hotspare repo check" is quicker and reads no disk
    data.

    Args:
        points: Ids of restore points, beginnings of them, or machines' names; none for all packs.
        max_bytes: Without POINTS: stop after reading this much, like 20GiB.
        for_: Without POINTS: stop after this long, like 2h.
        rate_limit: Without POINTS: read at most this much a second, like 50MiB.
        options: See below.
    """
    if points and (max_bytes or for_ or rate_limit):
        raise UsageError(
            "--max-bytes, --for and --rate-limit do not go with restore points",
            meaning="Nothing was verified",
            hint='See "hotspare verify --help"',
        )
    bounds = Bounds(
        bytes_max=parse_bytes(max_bytes) if max_bytes else None,
        seconds_max=parse_duration(for_) if for_ else None,
        bytes_per_second=parse_bytes(rate_limit) if rate_limit else None,
    )
    with Session(options) as session:
        repository = session.repository()
        unreadable: list[Problem] = []
        chosen = _chosen(repository, points, unreadable)
        history = History(session, repository.backend.url)
        with (
            history.run("verify", _subject(chosen, points), "") as run,
            cancelled_by_signals() as cancellation,
            shown_progress(options.progress_form, cancellation) as listener,
        ):
            run.point = chosen[0].id if len(chosen) == 1 and points else None
            watched = run.watching(listener)
            done: VerifyReport | PacksReport
            if points:
                done = verify_points(repository, chosen, watched, cancellation)
                problems = unreadable + done.problems
            else:
                with VerifyLog(session.settings.state_folder, repository.id) as log:
                    done = verify_packs(repository, chosen, log, bounds, watched, cancellation)
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
    ],
    *OPENING,
    PointNotFound,
    NoSpace,
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
