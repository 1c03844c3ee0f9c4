"""Errors as pages: what happened, what it means for the data, what to do next."""

import logging

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from hotspare.api.problems import status_of
from hotspare.console.rendering import page
from hotspare.errors import HotspareError, NotThere, TooManyAttempts, UsageError

_LOG = logging.getLogger("hotspare.console")


def failure(request: Request, error: HotspareError) -> Response:
    """Show an error. A part of a page that could not be had is shown as that part."""
    template = "problem.html" if request.headers.get("HX-Request") else "failure.html"
    status = 200 if request.headers.get("HX-Request") else status_of(error)
    answer = page(request, template, status=status, title="That did not work", error=error)
    if isinstance(error, TooManyAttempts):
        answer.headers["Retry-After"] = str(error.seconds)
    return answer


def malformed(request: Request) -> Response:
    """Show that an address or form is not as it has to be."""
    error = UsageError(
        "This address is not as it has to be", meaning="Nothing was done", hint="Begin at the overview"
    )
    return failure(request, error)


def mistake(request: Request, error: Exception) -> Response:
    """Show that there is a mistake in the program, and log it."""
    _LOG.error("A page failed", exc_info=error)
    return failure(
        request,
        HotspareError(
            f"Something went wrong that Hotspare has no words for: {type(error).__name__}",
            meaning="This is a mistake in Hotspare. Restore points that are there are not affected",
            hint="Report what the server's log says",
        ),
    )


def not_there(request: Request, error: HTTPException) -> Response:
    """Show that there is no such page."""
    ours = NotThere(
        "There is no such page" if error.status_code == 404 else str(error.detail),
        meaning="Nothing was done",
        hint="Begin at the overview",
    )
    answer = failure(request, ours)
    answer.status_code = error.status_code
    return answer


def said_in_form(
    request: Request, template: str, error: HotspareError, *, title: str, **given: object
) -> Response:
    """Show a form again, with what was wrong above it."""
    answer = page(request, template, status=status_of(error), title=title, error=error, **given)
    if isinstance(error, TooManyAttempts):
        answer.headers["Retry-After"] = str(error.seconds)
    return answer
