"""What every JSON document has."""

from datetime import UTC, datetime
from typing import Any

from hotspare.errors import HotspareError

JSON_VERSION = 1


def document(kind: str, **fields: object) -> dict[str, Any]:
    """Make a JSON document: every one of them has ``type`` and ``v``."""
    return {"type": kind, "v": JSON_VERSION, **fields}


def error_document(error: HotspareError) -> dict[str, Any]:
    """Make the JSON document of an error."""
    return document("error", **error_fields(error))


def error_fields(error: HotspareError) -> dict[str, Any]:
    """Describe an error in a JSON document."""
    return {"code": error.code, "what": error.what, "meaning": error.meaning, "hint": error.hint}


def utc_time(moment: datetime) -> str:
    """Write a time for programs: RFC 3339, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
