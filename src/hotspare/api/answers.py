"""Good answers: JSON documents, as commands print them."""

from typing import Any

import msgspec
from starlette.responses import Response

from hotspare.access.approvals import Approval
from hotspare.documents.form import document


def answer(kind: str, *, http_status: int = 200, **fields: object) -> Response:
    """Give a document as an answer."""
    content: dict[str, Any] = document(kind, **fields)
    return Response(msgspec.json.encode(content), http_status, media_type="application/json")


def waiting(approval: Approval) -> Response:
    """Say that nothing was done yet, as a second person has to agree."""
    return answer("approval", http_status=202, approval=msgspec.to_builtins(approval))
