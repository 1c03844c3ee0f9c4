"""Repositories: how much they hold and how full they are, having one checked or pruned."""

from functools import partial

from fastapi import Request
from starlette.responses import Response

from hotspare.access.roles import Permission, Target
from hotspare.api import do, see
from hotspare.api.do import PruneRequest
from hotspare.api.guard import CallerHere, ServerHere
from hotspare.console.document import document_of
from hotspare.console.figures import FiguresHere, quietly
from hotspare.console.form import FormHere
from hotspare.console.rendering import page, see_other


def show_repositories(
    request: Request, server: ServerHere, caller: CallerHere, figures: FiguresHere
) -> Response:
    """Show all repositories, each with the space that there is."""
    rows = []
    for one in document_of(see.list_repositories(server, caller))["repositories"]:
        key = one["id"]
        capacity, error = quietly(partial(figures.capacity_of, key), None)
        rows.append({**one, "capacity": capacity, "error": error})
    return page(request, "repositories.html", title="Repositories", rows=rows)


def show_repository(
    request: Request, repository: str, server: ServerHere, caller: CallerHere, figures: FiguresHere
) -> Response:
    """Show a repository: the space there is, and where what it holds is to be seen."""
    opened = see.repository_for(server.estate, caller, Permission.READ, repository)
    url = opened.backend.url
    target = Target(repository=server.estate.repositories()[repository])
    actions = [
        one
        for one in document_of(see.list_actions(server, caller, limit=200))["actions"]
        if f"--repository={url}" in one["command"] and one["kind"] in {"check", "prune"}
    ]
    return page(
        request,
        "repository.html",
        title="Repository",
        url=url,
        key=repository,
        capacity=figures.capacity(url),
        actions=actions[:10],
        may_check=caller.may(Permission.CHECK, target),
        may_prune=caller.may(Permission.FORGET, target),
    )


def show_contents(request: Request, repository: str, server: ServerHere, caller: CallerHere) -> Response:
    """Show what a repository holds: its whole index is read, which takes its time."""
    found = document_of(see.show_repository(repository, server, caller))
    title = "What the repository holds"
    return page(request, "repository-contents.html", title=title, found=found, key=repository)


def check(repository: str, server: ServerHere, caller: CallerHere) -> Response:
    """Have a repository checked."""
    action = document_of(do.begin_check(repository, server, caller))["action"]
    return see_other(f"/activity/actions/{action['id']}", "begun")


def prune(repository: str, server: ServerHere, caller: CallerHere, form: FormHere) -> Response:
    """Have space given back, or only told how much that would be."""
    body = PruneRequest(dry_run=form.text("do") == "dry-run")
    action = document_of(do.begin_prune(repository, body, server, caller))["action"]
    return see_other(f"/activity/actions/{action['id']}", "begun")
