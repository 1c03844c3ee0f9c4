"""Routes that show what there is: machines, restore points, runs, repositories."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from hotspare.access.roles import EVERYTHING, Permission, Target
from hotspare.access.tokens import Caller
from hotspare.api.answers import answer
from hotspare.api.estate import Estate, target_of_machine, target_of_point
from hotspare.api.guard import CallerHere, ServerHere
from hotspare.api.paging import After, Limit, cursor_of, key_of, page_of
from hotspare.catalog.rows import Ended, RunRow
from hotspare.documents.form import error_fields
from hotspare.documents.machine import listed_fields, machine_fields
from hotspare.documents.point import point_fields
from hotspare.documents.run import run_fields
from hotspare.documents.tested import tested_fields
from hotspare.errors import ActionNotFound, MachineNotFound, NotThere, PointNotFound, UsageError
from hotspare.repository.point import RestorePoint, order_of_points
from hotspare.repository.repository import Repository
from hotspare.repository.tested import read_tested

_SCANNED = 1000
"""Runs looked at for one page, when most of them are for others only."""

MachineName = Annotated[str | None, Query(description="Only those of the machine with this name.")]
RunKind = Annotated[str | None, Query(description="Only those of this kind: `backup`, `restore`, ...")]
RunOutcome = Annotated[Ended | None, Query(description="Only those that ended so.")]
RepositoryKey = Annotated[
    str | None, Query(description="Id of the repository, of /api/v1/repositories; else the one that is set.")
]


def list_machines(
    server: ServerHere, caller: CallerHere, limit: Limit = 100, after: After = None
) -> Response:
    """List the machines of all platforms, each with its newest restore point; up to half a minute old."""
    inventory = server.estate.inventory()
    seen = [one for one in inventory.machines if caller.may(Permission.READ, target_of_machine(*one))]
    page, following = page_of(seen, lambda one: (one[0], one[1].name, one[1].id), limit, after)
    problems = [
        {"platform": uri, **error_fields(error)}
        for uri, error in inventory.problems
        if caller.may(Permission.READ, Target(platform=uri))
    ]
    machines = [{**listed_fields(line), "platform": uri} for uri, line in page]
    return answer("machines", machines=machines, problems=problems, next=following)


def show_machine(name: str, server: ServerHere, caller: CallerHere, platform: str | None = None) -> Response:
    """Describe a machine, by its name or id."""
    found = [
        line.machine
        for uri, line in server.estate.inventory().machines
        if name in {line.name, line.id} and platform in {None, uri} and line.machine
        if caller.may(Permission.READ, target_of_machine(uri, line))
    ]
    if not found:
        raise MachineNotFound(f"No platform of the server has a machine '{name}'")
    if len(found) > 1:
        raise UsageError(f"{len(found)} platforms have a machine '{name}'", hint="Say which: ?platform=URI")
    return answer("machine", machine=machine_fields(found[0]))


def list_points(
    server: ServerHere,
    caller: CallerHere,
    machine: MachineName = None,
    repository: RepositoryKey = None,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """List the restore points of a repository, the oldest first; up to five seconds old."""
    opened = server.estate.repository(repository)
    url = opened.backend.url
    seen = [
        point
        for point in server.estate.points_of(opened, machine)
        if machine in {None, point.machine_name, point.machine_id}
        if caller.may(Permission.READ, target_of_point(url, point))
    ]
    page, following = page_of(seen, _place_of, limit, after)
    tested = server.estate.tested(opened)
    fields = [point_fields(point) | tested_fields(tested.get(point.id)) for point in page]
    return answer("points", points=fields, next=following)


def _place_of(point: RestorePoint) -> tuple[str, str, str]:
    """Write the order of points so that it can be compared as text."""
    at, started_at, number = order_of_points(point)
    return at, f"{started_at.timestamp():020.6f}", number


def show_point(
    point: str, server: ServerHere, caller: CallerHere, repository: RepositoryKey = None
) -> Response:
    """Describe a restore point."""
    opened, found = point_for(server.estate, caller, Permission.READ, point, repository)
    tested = tested_fields(read_tested(opened.backend, opened.keyring, found.id))
    # The native definition stays out: it holds the passwords of the machine's consoles.
    description = {key: value for key, value in found.machine.items() if key != "native"}
    return answer("point", point=point_fields(found) | tested, description=description)


def point_for(
    estate: Estate, caller: Caller, permission: Permission, number: str, repository: str | None
) -> tuple[Repository, RestorePoint]:
    """Find a restore point upon which the caller may do something.

    Raises:
        PointNotFound: there is none, or the caller may not even know.
        NotThere: there is no such repository.
    """
    opened = estate.repository(repository)
    found = estate.point(opened, number)
    if not caller.may(permission, target_of_point(opened.backend.url, found)):
        raise PointNotFound(f"The repository has no restore point '{number}', or not for you")
    return opened, found


def target_in(estate: Estate, caller: Caller, number: str, repository: str | None) -> Target:
    """Say to what scopes a restore point belongs that the caller may see. Raises as ``point_for``."""
    opened, found = point_for(estate, caller, Permission.READ, number, repository)
    return target_of_point(opened.backend.url, found)


def list_runs(
    server: ServerHere,
    caller: CallerHere,
    machine: MachineName = None,
    policy: str | None = None,
    kind: RunKind = None,
    outcome: RunOutcome = None,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """List runs, the newest first. A page may be short of the limit, or empty, though a next one follows."""
    before = _number(after) if after is not None else None
    wanted = limit + 1 if caller.may(Permission.READ, EVERYTHING) else _SCANNED
    rows = server.estate.ask(
        lambda it: it.runs(wanted, policy=policy, machine=machine, kind=kind, outcome=outcome, before=before)
    )
    seen = [row for row in rows if _sees(server.estate, caller, row)]
    following = rows[-1].id if len(rows) == wanted else None
    if len(seen) > limit:
        following = seen[limit - 1].id
    cursor = None if following is None else cursor_of((str(following),))
    return answer("runs", runs=[run_fields(row) for row in seen[:limit]], next=cursor)


def runs_seen(estate: Estate, caller: Caller, count: int, *, platform: str, machine: str) -> list[RunRow]:
    """Give those of the newest runs of a machine, by the name or id of the request, that somebody sees."""
    rows = estate.ask(lambda it: it.runs(count, machine=machine, platform=platform))
    return [row for row in rows if _sees(estate, caller, row)]


def show_run(run: int, server: ServerHere, caller: CallerHere) -> Response:
    """Describe a run."""
    found = server.estate.ask(lambda it: it.run(run)) if 0 < run < 2**62 else None
    if found is None or not _sees(server.estate, caller, found):
        raise NotThere(f"The server knows no run {run}")
    return answer("run", run=run_fields(found))


def _sees(estate: Estate, caller: Caller, row: RunRow) -> bool:
    if caller.may(Permission.READ, EVERYTHING):
        return True
    bare = Target(repository=row.repository or None, platform=row.platform or None)
    if caller.may(Permission.READ, bare):
        return True
    tags = estate.inventory().tags.get((row.platform, row.machine))
    return caller.may(Permission.READ, Target(repository=bare.repository, platform=bare.platform, tags=tags))


def _number(after: str) -> int:
    (text,) = key_of(after, 1)
    if not text.isdigit() or len(text) > 18:
        raise UsageError("What 'after' says is no place in this list", meaning="Nothing was done")
    return int(text)


def list_repositories(server: ServerHere, caller: CallerHere) -> Response:
    """List the repositories of the server's settings and of its policies."""
    fields = []
    for key, url in server.estate.repositories().items():
        if not caller.may(Permission.READ, Target(repository=url)):
            continue
        fields.append({"id": key, "url": url, "is_set": url == server.estate.settings.repository})
    return answer("repositories", repositories=fields)


def show_repository(repository: str, server: ServerHere, caller: CallerHere) -> Response:
    """Describe a repository: what it is, and how much it holds."""
    opened = repository_for(server.estate, caller, Permission.READ, repository)
    config = opened.config
    return answer(
        "repository",
        url=opened.backend.url,
        id=opened.id,
        format_version=config.version,
        created=config.created,
        chunk_size=config.chunk_size,
        parity=config.parity,
        durability=config.store.durability if config.store else None,
        access=opened.backend.capabilities.access,
        **opened.statistics()._asdict(),
    )


def repository_for(estate: Estate, caller: Caller, permission: Permission, key: str) -> Repository:
    """Open a repository upon which the caller may do something. Raises ``NotThere`` and what opening does."""
    url = estate.repositories().get(key)
    if url is None or not caller.may(permission, Target(repository=url)):
        raise NotThere(
            f"The server has no repository '{key}', or not for you", hint="See /api/v1/repositories"
        )
    return estate.repository(key)


def list_actions(server: ServerHere, caller: CallerHere, limit: Limit = 100, after: After = None) -> Response:
    """List what was asked to be done, the newest first, since the server was started."""
    seen = [one for one in server.actions.all() if _sees_action(caller, one.target, one.asked_by)]
    if after is not None:
        (last,) = key_of(after, 1)
        numbers = [one.id for one in seen]
        seen = seen[numbers.index(last) + 1 :] if last in numbers else []
    following = cursor_of((seen[limit - 1].id,)) if len(seen) > limit else None
    return answer("actions", actions=[one.fields() for one in seen[:limit]], next=following)


def show_action(action: str, server: ServerHere, caller: CallerHere) -> Response:
    """Describe an action: whether it is through, and what came of it."""
    found = server.actions.get(action)
    if not _sees_action(caller, found.target, found.asked_by):
        raise ActionNotFound(f"The server knows no action '{action}'")
    return answer("action", action=found.fields())


def _sees_action(caller: Caller, target: Target, asked_by: str) -> bool:
    return asked_by == caller.name or caller.may(Permission.READ, target)
