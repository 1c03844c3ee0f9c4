"""What every JSON document has."""

from collections.abc import Iterator, Mapping
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


def error_of(fields: Mapping[str, Any]) -> HotspareError:
    """Read what ``error_fields`` has written: an error of the class that has its code, if there is one."""
    kind = next((one for one in _classes(HotspareError) if one.code == fields.get("code")), HotspareError)
    what, meaning, hint = (str(fields.get(part) or "") for part in ("what", "meaning", "hint"))
    return kind(what or "It is not known why", meaning=meaning, hint=hint)


def _classes(kind: type[HotspareError]) -> Iterator[type[HotspareError]]:
    """Yield a class and those below it that have a code of their own, the general ones first."""
    below = [one for one in kind.__subclasses__() if "code" in vars(one)]
    yield kind
    for one in below:
        yield from _classes(one)
