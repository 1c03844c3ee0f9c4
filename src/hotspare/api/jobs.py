"""Routes of jobs: what the server does by policies, has done, and is asked to do."""

from typing import Annotated

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from hotspare.access.roles import EVERYTHING, Permission, Target
from hotspare.access.tokens import Caller
from hotspare.api.answers import answer
from hotspare.api.estate import Estate, target_of_machine, target_of_order
from hotspare.api.guard import CallerHere, Server, ServerHere
from hotspare.api.inside import Strict
from hotspare.api.paging import After, Limit, cursor_of, key_of
from hotspare.errors import JobNotFound, MachineNotFound, NotPermitted, UsageError
from hotspare.jobs.document import job_fields, mover_fields
from hotspare.jobs.orders import Job, Order, Place
from hotspare.platforms.registry import plain_uri

_SCANNED = 2000
"""Jobs looked at for one page, when most of them are for others only."""
_WAITING, _BEGUN = "waiting", "begun"
"""The two parts of the list, in this order."""

_PriorityValue = Annotated[int, Field(ge=-100, le=100, description="Higher ones begin before lower ones.")]


class JobRequest(Strict):
    """A machine to be backed up by a policy as soon as limits allow, whether it is due or not."""

    policy: str
    machine: str = Field(description="Name or id of a machine that the policy selects.")
    platform: str | None = Field(None, description="URI, where several platforms have such a machine.")
    priority: _PriorityValue | None = None


class RetryRequest(Strict):
    """How soon it is done again."""

    priority: _PriorityValue | None = None


class PriorityRequest(Strict):
    """How soon it begins."""

    priority: _PriorityValue


def list_jobs(server: ServerHere, caller: CallerHere, limit: Limit = 100, after: After = None) -> Response:
    """List the jobs that wait, who asked first first, then the others, the newest first.

    A job that begins while a list is read may be in it twice. A page may be short of the limit, or empty,
    though a next one follows.
    """
    part, place = _place_of(after)
    book = server.estate.jobs()
    sees_all = caller.may(Permission.READ, EVERYTHING)
    seen: list[Job] = []
    if part == _WAITING:
        waiting = [job for job in book.waiting() if place is None or job.place > place]
        seen = [job for job in waiting if _sees(server.estate, caller, job)]
        place = None
    waiting_seen, scanned, following = len(seen), 0, None
    while len(seen) <= limit and scanned < _SCANNED:
        wanted = limit + 1 - len(seen) if sees_all else 500
        begun = book.begun(wanted, place)
        seen += [job for job in begun if _sees(server.estate, caller, job)]
        scanned += len(begun)
        if len(begun) < wanted:
            following = None
            break
        place = begun[-1].place
        following = _cursor(_BEGUN, begun[-1])
    if len(seen) > limit:
        following = _cursor(_WAITING if limit <= waiting_seen else _BEGUN, seen[limit - 1])
    movers = book.movers() if sees_all else []
    return answer(
        "jobs",
        jobs=[job_fields(job) for job in seen[:limit]],
        movers=[mover_fields(mover) for mover in movers],
        next=following,
    )


def show_job(job: str, server: ServerHere, caller: CallerHere) -> Response:
    """Describe a job: where it runs, how far it is, how it ended."""
    return answer("job", **job_fields(_job_for(server, caller, Permission.READ, job)))


def ask_for_job(body: JobRequest, request: Request, server: ServerHere, caller: CallerHere) -> Response:
    """Have a machine backed up by a policy as soon as limits allow, whether it is due or not."""
    request.state.detail = {"policy": body.policy, "machine": body.machine, "platform": body.platform}
    order = _order_for(server.estate, caller, body)
    book = server.estate.jobs()
    return answer("job", http_status=202, **job_fields(book.get(book.ask(order, body.priority))))


def cancel_job(job: str, server: ServerHere, caller: CallerHere) -> Response:
    """Keep a job from beginning, or have it stopped at its next safe moment, within some seconds."""
    found = _job_for(server, caller, Permission.BACK_UP, job)
    return answer("job", http_status=202, **job_fields(server.estate.jobs().cancel(found.id)))


def retry_job(job: str, body: RetryRequest, server: ServerHere, caller: CallerHere) -> Response:
    """Have the machine of a job that has ended backed up again; gives the new job."""
    found = _job_for(server, caller, Permission.BACK_UP, job)
    book = server.estate.jobs()
    again = book.get(book.retry(found.id, body.priority))
    return answer("job", http_status=202, **job_fields(again))


def change_priority(
    job: str, body: PriorityRequest, request: Request, server: ServerHere, caller: CallerHere
) -> Response:
    """Have a job that waits begin before those of a lower priority, except what is urgent."""
    request.state.detail = {"priority": body.priority}
    found = _job_for(server, caller, Permission.BACK_UP, job)
    return answer("job", **job_fields(server.estate.jobs().hurry(found.id, body.priority)))


def _sees(estate: Estate, caller: Caller, job: Job) -> bool:
    if caller.may(Permission.READ, EVERYTHING):
        return True
    return caller.may(Permission.READ, target_of_order(estate, job.order))


def _job_for(server: Server, caller: Caller, permission: Permission, number: str) -> Job:
    """Find a job upon which the caller may do something. Raises ``JobNotFound``, ``NotPermitted``."""
    found = server.estate.jobs().get(number)
    target = target_of_order(server.estate, found.order)
    if not caller.may(Permission.READ, target):
        raise JobNotFound(f"There is no job {number}, or not for you", meaning="Nothing was done")
    if not caller.may(permission, target):
        raise NotPermitted(
            f"{caller.name} has no role that may {permission} there", meaning="Nothing was done"
        )
    return found


def _order_for(estate: Estate, caller: Caller, body: JobRequest) -> Order:
    """Find what is asked for. Who may not back a machine up is told that there is none."""
    policy = estate.policies().get(body.policy)
    platforms = {plain_uri(uri) for uri in policy.select.platforms or (estate.settings.platform,)}
    if body.platform:
        platforms &= {plain_uri(body.platform)}
    repository = policy.repository or estate.settings.repository
    found = []
    for uri, line in estate.inventory().machines:
        if uri not in platforms or body.machine not in {line.name, line.id} or line.machine is None:
            continue
        at = target_of_machine(uri, line)
        target = Target(repository=repository, platform=uri, tags=at.tags)
        if policy.select.obstacle(line.name, at.tags or ()) is None and caller.may(
            Permission.BACK_UP, target
        ):
            found.append(Order(policy=policy.name, platform=uri, machine_id=line.id, machine=line.name))
    if not found:
        raise MachineNotFound(
            f"The policy {policy.name} selects no machine '{body.machine}', or not for you",
            meaning="Nothing was asked for",
            hint="See /api/v1/machines",
        )
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} platforms have a machine '{body.machine}'",
            meaning="Nothing was asked for",
            hint="Say which: platform",
        )
    return found[0]


def _cursor(part: str, job: Job) -> str:
    at, number = job.place
    return cursor_of((part, str(at), number))


def _place_of(after: str | None) -> tuple[str, Place | None]:
    if after is None:
        return _WAITING, None
    part, at, number = key_of(after, 3)
    if part not in {_WAITING, _BEGUN} or not at.isdecimal() or not at.isascii() or len(at) > 15:
        raise UsageError("What 'after' says is no place in this list", meaning="Nothing was done")
    return part, (int(at), number)
