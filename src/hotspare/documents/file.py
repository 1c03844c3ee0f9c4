"""Volumes and files inside restore points."""

from datetime import UTC, datetime
from typing import Any

from hotspare.documents.form import utc_time
from hotspare.guest.files.by_path import FilesByPath
from hotspare.guest.files.file_system import FileEntry


def moment(nanoseconds: int) -> datetime | None:
    """Turn a file's time into one that can be shown; a guest may have noted down anything."""
    try:
        return datetime.fromtimestamp(nanoseconds // 10**9, UTC).replace(
            microsecond=nanoseconds // 1000 % 10**6
        )
    except (ValueError, OverflowError, OSError):
        return None


def json_time(nanoseconds: int) -> str | None:
    """Write a file's time for programs; None when there is no such date."""
    at = moment(nanoseconds)
    return utc_time(at) if at else None


def entry_fields(entry: FileEntry) -> dict[str, Any]:
    """Describe a file for a JSON document."""
    return {
        "path": plain(entry.path),
        "kind": entry.kind,
        "size": entry.size,
        "modified": json_time(entry.modified),
        "mode": None if entry.mode is None else f"{entry.mode & 0o7777:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "links": entry.links,
        "target": plain(entry.target) if entry.kind == "link" else None,
        "streams": [plain(stream) for stream in entry.streams],
    }


def plain(name: str) -> str:
    """Replace what is no text in a name: JSON has no way to say it."""
    return name.encode("utf-8", "replace").decode()


def volume_fields(files: FilesByPath) -> list[dict[str, Any]]:
    """Describe the volumes of a restore point, those that cannot be read too."""
    places = files.places()
    volumes: list[dict[str, Any]] = [
        {
            "name": volume.name,
            "size": volume.size,
            "content": volume.content or None,
            "label": plain(volume.label) or None,
            "uuid": volume.uuid or None,
            "mounted_at": [plain(place) for place in places.get(volume.name, ())],
            "unreadable_because": None,
        }
        for volume in files.volumes
    ]
    unreadable: list[dict[str, Any]] = [
        {
            "name": one.name,
            "size": one.size,
            "content": None,
            "label": None,
            "uuid": None,
            "mounted_at": [],
            "unreadable_because": one.reason,
        }
        for one in files.unreadable
    ]
    return volumes + unreadable
