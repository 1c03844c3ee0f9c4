"""``hotspare files find`` and ``files versions``: files over many restore points."""

from typing import Annotated, Literal

from cyclopts import Parameter

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.files_options import AS_KNOWN, Reading, shown_time
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.quantities import parse_bytes, parse_duration, parse_moment
from hotspare.cli.session import Session
from hotspare.documents.file import json_time, plain
from hotspare.errors import FileSystemUnreadable, PathNotFound, PointNotFound, UsageError
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.select import find_points
from hotspare.restore.files.find import FileSearch, Found, Query
from hotspare.restore.files.pattern import parse_pattern
from hotspare.restore.files.versions import Version, versions_of
from hotspare.units import format_bytes

_KINDS = {"f": "file", "d": "folder", "l": "link"}


def find(
    pattern: str,
    /,
    *points: str,
    machine: str | None = None,
    folder: Annotated[str | None, Parameter(name="--in")] = None,
    kind: Annotated[Literal["f", "d", "l"] | None, Parameter(name="--type")] = None,
    larger: str | None = None,
    newer: str | None = None,
    ignore_case: Switch = False,
    no_index: Switch = False,
    reading: Reading = AS_KNOWN,
    options: Options = DEFAULTS,
) -> None:
    """Find files by name, size and time, in all restore points of a machine or in some.

    Points that were made with --index-files are answered from their index, at once; others are walked.

    Args:
        pattern: As '*.conf'; with a slash the end of a path ('nginx/*.conf'), with one at its begin a
        whole path
            ('/etc/**/*.conf'). ** stands for any folders.
        points: Restore points to look in: ids, beginnings of ids, machines' names for their newest.
        machine: Look in all restore points of the machine with this name or id.
        folder: Only below this folder.
        kind: Only files (f), folders (d) or symbolic links (l).
        larger: Only what has more bytes than this: 100MiB.
        newer: Only what was modified later: 2026-11-23, 2026-11-23T02:15, or 2d for the last two days.
        ignore_case: Take capital and small letters for the same.
        no_index: Walk all points, those with an index too.
        reading: See below.
        options: See below.
    """
    query = Query(
        parse_pattern(pattern, ignore_case=ignore_case),
        folder,
        _KINDS[kind] if kind else None,
        parse_bytes(larger) if larger else None,
        _since(newer) if newer else None,
    )
    with Session(options) as session, cancelled_by_signals() as cancellation:
        repository = session.repository(cached=True)
        chosen = _points(repository, points, machine)
        opener = reading.opener(session, repository)
        search = FileSearch(repository, query, opener, cancellation, use_index=not no_index)
        found = search.run(chosen)
        if not no_index and search.walked:
            output.note(
                f"{len(search.walked)} of {len(chosen)} restore points have no file index and were walked."
            )
        _print_found(session, chosen, search, found)


def _print_found(
    session: Session, points: list[RestorePoint], search: FileSearch, found: list[Found]
) -> None:
    for remark in search.remarks:
        output.warn(remark)
    if session.as_json:
        fields = {
            "points": [point.id for point in points],
            "walked": search.walked,
            "remarks": search.remarks,
        }
        files = [_fields(one) for one in found]
        output.print_document(output.document("files-found", **fields, files=files))
        return
    header = ("KIND", "SIZE", "MODIFIED", "POINTS", "NEWEST POINT", "PATH")
    output.print_table(header, [_cells(one) for one in found], right=("SIZE", "POINTS"))


def versions(
    path: str,
    /,
    *,
    machine: str,
    hash: Switch = False,  # noqa: A002 - the name of the option
    reading: Reading = AS_KNOWN,
    options: Options = DEFAULTS,
) -> None:
    """Show all versions of one file over the restore points of a machine, the oldest first.

    A version is the same as the one before it if size, time and inode are; with --hash, if the content is.

    Args:
        path: Of the file, as the machine knows it (/etc/hosts), or in a volume (vda1:/etc/hosts).
        machine: Its name or id.
        hash: Read the content, and show its SHA-256.
        reading: See below.
        options: See below.
    """
    with Session(options) as session, cancelled_by_signals() as cancellation:
        repository = session.repository(cached=True)
        points = _points(repository, (), machine)
        opener = reading.opener(session, repository)
        found = list(versions_of(points, path, opener, cancellation, with_content=hash))
        if session.as_json:
            document = output.document(
                "file-versions", path=plain(path), versions=[_version_fields(one) for one in found]
            )
            output.print_document(document)
        else:
            rows = [_version_cells(one) for one in found]
            output.print_table(("POINT", "MADE", "SIZE", "MODIFIED", "CONTENT"), rows, right=("SIZE",))
        if all(one.entry is None for one in found):
            _refuse_absent(path, found)


def _refuse_absent(path: str, found: list[Version]) -> None:
    problem = next((one.problem for one in found if one.problem), None)
    if problem:
        raise FileSystemUnreadable(f"{path} cannot be read in any restore point: {problem}")
    raise PathNotFound(
        f"{path} is in none of the restore points", hint="Look for it with: hotspare files find"
    )


def _points(repository: Repository, references: tuple[str, ...], machine: str | None) -> list[RestorePoint]:
    if references and machine is None:
        return find_points(repository, references)
    if references or machine is None:
        raise UsageError(
            "Say where to look: restore points, or --machine NAME for all of one machine",
            meaning="Nothing was looked for",
        )
    every = repository.points(lambda _name, error: output.warn(str(error)))
    chosen = [point for point in every if machine in {point.machine_name, point.machine_id}]
    if not chosen:
        raise PointNotFound(
            f"The repository has no restore point of '{machine}'", hint="See 'hotspare point list'"
        )
    return chosen


def _since(text: str) -> int:
    try:
        seconds = parse_moment(text).timestamp()
    except UsageError:
        from time import time  # noqa: PLC0415 - only here

        seconds = time() - parse_duration(text)
    return int(seconds * 10**9)


def _fields(found: Found) -> dict[str, object]:
    return {
        "path": plain(found.path),
        "kind": found.kind,
        "size": found.size,
        "modified": json_time(found.modified),
        "points": list(found.points),
    }


def _cells(found: Found) -> tuple[str, ...]:
    size = format_bytes(found.size) if found.kind == "file" else ""
    count, newest = str(len(found.points)), found.points[-1]
    return found.kind, size, shown_time(found.modified), count, newest, plain(found.path)


def _version_fields(version: Version) -> dict[str, object]:
    entry = version.entry
    return {
        "point": version.point.id,
        "made_at": output.utc_time(version.point.started_at),
        "kind": entry.kind if entry else None,
        "size": entry.size if entry else None,
        "modified": json_time(entry.modified) if entry else None,
        "same_as_before": version.same,
        "sha256": version.sha256,
        "problem": version.problem,
    }


def _version_cells(version: Version) -> tuple[str, ...]:
    entry = version.entry
    made = output.local_time(version.point.started_at)
    if entry is None:
        return version.point.id, made, "", "", version.problem or "not there"
    content = "same as before" if version.same else version.sha256 or ""
    return version.point.id, made, format_bytes(entry.size), shown_time(entry.modified), content
