"""The record of what was done, and the proof that nobody has changed it."""

from typing import Any

from fastapi import Request
from starlette.responses import Response

from hotspare.api import watch
from hotspare.api.guard import ServerHere
from hotspare.console.document import document_of
from hotspare.console.rendering import page

_SHOWN = 100


def show_record(request: Request, server: ServerHere, after: str = "") -> Response:
    """Show a page of the record, the newest first."""
    return _record(request, server, after=after or None)


def verify_record(request: Request, server: ServerHere) -> Response:
    """Follow the chain of hashes from its beginning."""
    return _record(request, server, verified=document_of(watch.verify_audit(server)))


def _record(
    request: Request, server: ServerHere, after: str | None = None, verified: dict[str, Any] | None = None
) -> Response:
    found = document_of(watch.list_audit(server, _SHOWN, after))
    return page(
        request,
        "audit.html",
        title="Audit",
        entries=found["entries"],
        following=found["next"],
        verified=verified,
    )
