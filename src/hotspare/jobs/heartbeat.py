"""A file that shows when the server last looked at what is due; the watchdog reads it.

It is no part of the job database, which may be gone with whatever stopped the server.
"""

import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

_NAME = "server.heartbeat"
_BEAT_SECONDS = 10.0
SILENT_SECONDS = 120.0
"""A server whose last beat is older has died, was stopped, or is stuck."""


class Heartbeat:
    """Written by a server."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._at = float("-inf")

    def beat(self) -> None:
        """Note that the server has just looked at what is due; not more often than every ten seconds."""
        if time.monotonic() - self._at < _BEAT_SECONDS:
            return
        # A state folder that is full or read-only shows up as a server that is silent, which is as bad.
        with suppress(OSError):
            new = self._path.with_name(f".{_NAME}.{os.getpid()}")
            new.write_text(f"{datetime.now(UTC).isoformat(timespec='seconds')}\n", encoding="ascii")
            new.replace(self._path)
            self._at = time.monotonic()


def last_beat(folder: Path) -> datetime | None:
    """Tell when a server that uses this state folder last looked; None when none ever did."""
    try:
        text = (folder / _NAME).read_text(encoding="ascii").strip()
        return datetime.fromisoformat(text).astimezone(UTC)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return datetime.fromtimestamp(0, UTC)


def is_silent(beat: datetime, now: datetime) -> bool:
    """Tell whether that is too long ago. A beat from the future is one of a clock that was set back."""
    return abs((now - beat).total_seconds()) > SILENT_SECONDS
