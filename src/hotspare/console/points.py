"""Restore points: what they hold, their files, and getting back a disk or a file."""

from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from hotspare.access.roles import Permission
from hotspare.api import do, inside, restores, see
from hotspare.api.guard import CallerHere, ServerHere
from hotspare.console.document import document_of, waits
from hotspare.console.figures import FiguresHere
from hotspare.console.form import FormHere
from hotspare.console.rendering import page, see_other

_OCTETS = "application/octet-stream"


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
