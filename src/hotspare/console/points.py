"""Restore points: what they hold, their files, and getting back a machine, a disk or a file."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from hotspare.access.roles import Permission
from hotspare.api import do, inside, restores, see
from hotspare.api.guard import CallerHere, ServerHere
from hotspare.api.inside import PlanRequest
from hotspare.api.restores import RestoreRequest
from hotspare.console.document import document_of, waits
from hotspare.console.failures import said_in_form
from hotspare.console.figures import FiguresHere
from hotspare.console.form import FormHere, body_of
from hotspare.console.inventory import chosen_from
from hotspare.console.rendering import page, see_other
from hotspare.errors import HotspareError

_OCTETS = "application/octet-stream"


def choose_machine(
    request: Request, caller: CallerHere, figures: FiguresHere, q: str = "", number: int = 1
) -> Response:
    """Ask what is to be restored: a machine that has restore points."""
    restorable = [one for one in figures.standings(caller) if one.line.last is not None]
    chosen = chosen_from(restorable, q, "", "", number)
    return page(request, "restore.html", title="Restore", chosen=chosen, q=q)


def show_point(
    request: Request, point: str, server: ServerHere, caller: CallerHere, repository: str
) -> Response:
    """Show a restore point."""
    found = document_of(see.show_point(point, server, caller, repository))
    target = see.target_in(server.estate, caller, point, repository)
    return page(
        request,
        "point.html",
        title=f"{found['point']['machine']}, restore point {point}",
        point=found["point"],
        description=found["description"],
        repository=repository,
        may_restore=caller.may(Permission.RESTORE, target),
        may_browse=caller.may(Permission.BROWSE, target),
        may_forget=caller.may(Permission.FORGET, target),
        second_person=server.access.approvals.needed,
    )


def forget_point(
    request: Request, point: str, server: ServerHere, caller: CallerHere, figures: FiguresHere, form: FormHere
) -> Response:
    """Remove a restore point, or ask a second person for it."""
    answer = do.forget_point(point, request, server, caller, form.text("repository"))
    figures.look_again()
    return see_other("/", "waits" if waits(answer) else "point-forgotten")


def browse(
    request: Request,
    point: str,
    server: ServerHere,
    caller: CallerHere,
    repository: str,
    path: str = "",
) -> Response:
    """Show the volumes of a restore point, or a folder in it."""
    found = document_of(inside.list_files(point, server, caller, path or None, repository))
    return page(
        request,
        "files.html",
        title="Files",
        point=point,
        repository=repository,
        found=found,
        crumbs=_crumbs(found.get("path", "")),
    )


def download_file(point: str, server: ServerHere, caller: CallerHere, repository: str, path: str) -> Response:
    """Give a file out of a restore point."""
    stack = ExitStack()
    try:
        file = stack.enter_context(restores.opened_file(server.estate, caller, point, repository, path))
    except BaseException:
        stack.close()
        raise
    return _download(file.name, file.size, file.pieces, stack)


def download_disk(point: str, disk: str, server: ServerHere, caller: CallerHere, repository: str) -> Response:
    """Give a disk of a restore point, raw."""
    stack = ExitStack()
    try:
        file = stack.enter_context(restores.opened_disk(server.estate, caller, point, repository, disk))
    except BaseException:
        stack.close()
        raise
    return _download(file.name, file.size, file.pieces, stack)


def _download(name: str, size: int, pieces: Iterator[bytes], stack: ExitStack) -> Response:
    def content() -> Iterator[bytes]:
        with stack:
            yield from pieces

    plain = name.encode("ascii", "replace").decode().replace('"', "_").replace("\\", "_")
    header = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    # What is in a guest is nobody's page: a browser must neither guess its type nor run it.
    headers = {
        "Content-Disposition": header,
        "Content-Length": str(size),
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    return StreamingResponse(content(), media_type=_OCTETS, headers=headers)


def ask_where(
    request: Request, point: str, server: ServerHere, caller: CallerHere, repository: str
) -> Response:
    """Ask where a machine is to be restored to."""
    found = document_of(see.show_point(point, server, caller, repository))["point"]
    wanted = {"name": f"{found['machine']}-restored", "platform": server.estate.settings.platform}
    return _where(request, found, server, repository, wanted)


def restore(request: Request, point: str, server: ServerHere, caller: CallerHere, form: FormHere) -> Response:
    """Say what a restore would make; and once that was seen, begin it."""
    repository = form.text("repository")
    found = document_of(see.show_point(point, server, caller, repository))["point"]
    wanted = {
        "name": form.text("name"),
        "platform": form.text("platform"),
        "pool": form.text("pool"),
        "keep_id": form.flag("keep_id"),
        "keep_macs": form.flag("keep_macs"),
    }
    start = form.flag("start")
    try:
        if form.text("do") == "restore":
            body = body_of(RestoreRequest, **wanted, start=start)
            answer = restores.begin_restore(point, body, request, server, caller, repository)
            return see_other(f"/activity/actions/{document_of(answer)['action']['id']}", "begun")
        asked = body_of(PlanRequest, **wanted)
        request.state.detail = {"name": asked.name, "platform": asked.platform, "dry_run": True}
        plan = document_of(inside.plan_restore(point, asked, server, caller, repository))["plan"]
    except HotspareError as error:
        return said_in_form(
            request,
            "restore-where.html",
            error,
            **_fields(found, server.estate.platforms(), repository, {**wanted, "start": start}),
        )
    return _where(request, found, server, repository, {**wanted, "start": start}, plan)


def _where(
    request: Request,
    point: dict[str, Any],
    server: ServerHere,
    repository: str,
    wanted: dict[str, Any],
    plan: dict[str, Any] | None = None,
) -> Response:
    fields = _fields(point, server.estate.platforms(), repository, wanted, plan)
    return page(request, "restore-where.html", error=None, **fields)


def _fields(
    point: dict[str, Any],
    platforms: list[str],
    repository: str,
    wanted: dict[str, Any],
    plan: dict[str, Any] | None = None,
) -> dict[str, Any]:
    usual = {"pool": "", "keep_id": False, "keep_macs": False, "start": False}
    return {
        "title": f"Restore {point['machine']} as a new machine",
        "point": point,
        "platforms": platforms,
        "repository": repository,
        "wanted": {**usual, **wanted},
        "plan": plan,
    }


def _crumbs(path: str) -> list[tuple[str, str]]:
    """Give the folders above and with a path, each with its own path: ``vda1:/etc`` is vda1:/ and etc."""
    before, colon, rest = path.rpartition(":") if ":/" in path else ("", "", path)
    root = f"{before}{colon}/"
    crumbs = [(root, root)] if path else []
    at = root.rstrip("/")
    for part in rest.strip("/").split("/"):
        if part:
            at = f"{at}/{part}"
            crumbs.append((part, at))
    return crumbs
