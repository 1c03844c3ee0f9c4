"""Errors as answers: problem details of RFC 9457, made from our errors in this one place."""

import logging
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from hotspare import errors
from hotspare.errors import HotspareError

MEDIA_TYPE = "application/problem+json"
_LOG = logging.getLogger("hotspare.api")

_STATUS: dict[type[HotspareError], int] = {
    errors.TooManyAttempts: 429,
    errors.LoginRefused: 401,
    errors.NotPermitted: 403,
    errors.NotThere: 404,
    errors.MachineNotFound: 404,
    errors.PointNotFound: 404,
    errors.PolicyNotFound: 404,
    errors.PathNotFound: 404,
    errors.RepositoryNotFound: 404,
    errors.Conflict: 409,
    errors.PointKept: 409,
    errors.TargetExists: 409,
    errors.RepositoryExists: 409,
    errors.UsageError: 422,
    errors.FileSystemUnreadable: 422,
    errors.NoSpace: 507,
    errors.JobDatabaseUnavailable: 503,
    errors.PlatformUnavailable: 503,
    errors.ProviderUnavailable: 503,
    errors.SourceLost: 503,
    errors.StorageError: 503,
}
"""Of an error that is not here, that of the nearest class it comes from; else 500."""


def status_of(error: HotspareError) -> int:
    """Give the status of an answer that is this error."""
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def problem_of(error: HotspareError) -> dict[str, Any]:
    """Give the problem details of an error."""
    return {
        "type": f"urn:hotspare:error:{error.code}",
        "title": (type(error).__doc__ or "").partition("\n")[0],
        "status": status_of(error),
        "detail": error.what,
        "code": error.code,
        "meaning": error.meaning,
        "hint": error.hint,
    }


def answer_of(error: HotspareError) -> Response:
    """Give the answer that is this error."""
    headers = {}
    if isinstance(error, errors.TooManyAttempts):
        headers["Retry-After"] = str(error.seconds)
    elif isinstance(error, errors.LoginRefused):
        headers["WWW-Authenticate"] = "Bearer"
    return _answer(problem_of(error), headers)


def explain_errors(app: FastAPI) -> None:
    """Have all errors of an application answered as problem details."""

    @app.exception_handler(HotspareError)
    async def ours(_request: Request, error: HotspareError) -> Response:
        return answer_of(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> Response:
        said = [f"{'.'.join(str(step) for step in one['loc'])}: {one['msg']}" for one in error.errors()]
        what = "The request is not as it has to be: " + "; ".join(said)
        return answer_of(errors.UsageError(what, meaning="Nothing was done", hint="See /api/v1/openapi.json"))

    @app.exception_handler(HTTPException)
    async def unanswerable(_request: Request, error: HTTPException) -> Response:
        return of_http(error)

    @app.exception_handler(Exception)
    async def mistake(_request: Request, error: Exception) -> Response:
        _LOG.error("A request failed", exc_info=error)
        return answer_of(
            HotspareError(
                f"Something went wrong that Hotspare has no words for: {type(error).__name__}",
                meaning="This is a mistake in Hotspare. Restore points that are there are not affected",
                hint="Report what the server's log says",
            )
        )


def of_http(error: HTTPException) -> Response:
    """Give the answer to what no route is for."""
    problem = {
        "type": f"urn:hotspare:error:http-{error.status_code}",
        "title": "The request cannot be answered.",
        "status": error.status_code,
        "detail": str(error.detail),
        "code": f"http-{error.status_code}",
        "meaning": "Nothing was done",
        "hint": "See /api/v1/openapi.json",
    }
    return _answer(problem, dict(error.headers or {}))


def _answer(problem: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(msgspec.json.encode(problem), problem["status"], headers=headers, media_type=MEDIA_TYPE)
