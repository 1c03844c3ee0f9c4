"""What handlers of the HTTP interface answer, for pages to show."""

from typing import Any

import msgspec
from starlette.responses import Response


def document_of(answer: Response) -> dict[str, Any]:
    """Read the document of a good answer; what goes wrong, handlers raise."""
    document: dict[str, Any] = msgspec.json.decode(bytes(answer.body))
    return document


def waits(answer: Response) -> bool:
    """Tell whether nothing was done yet, as a second person has to agree."""
    return document_of(answer)["type"] == "approval" and answer.status_code == 202
