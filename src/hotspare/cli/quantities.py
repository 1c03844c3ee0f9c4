"""Amounts as people type them: ``50MiB``, ``2h``, ``2026-11-23``."""

import re
from datetime import UTC, date, datetime

from hotspare.errors import UsageError
from hotspare.units import GIB, KIB, MIB, TIB

_BYTES = {"": 1, "b": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_bytes(text: str) -> int:
    """Read a size or rate: ``1000``, ``50MiB``, ``1.5 G``, ``20MiB/s``; suffixes count in 1024.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?(?:/s)?\s*", text, re.IGNORECASE)
    amount = int(float(match[1]) * _BYTES[match[2].lower()]) if match else 0
    if amount <= 0:
        raise UsageError(f"'{text}' is no amount of bytes", hint="Say it like 50MiB or 2G")
    return amount


def parse_duration(text: str) -> float:
    """Read a duration, as seconds: ``90``, ``30s``, ``45m``, ``2h``, ``1h30m``.

    Raises:
        UsageError: it is none.
    """
    squeezed = text.replace(" ", "").lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", squeezed)
    seconds = sum(float(number) * _SECONDS[unit or "s"] for number, unit in parts)
    if not parts or "".join(number + unit for number, unit in parts) != squeezed or seconds <= 0:
        raise UsageError(f"'{text}' is no duration", hint="Say it like 45m or 1h30m")
    return seconds


def parse_moment(text: str) -> datetime:
    """Read a date or a time, in this host's zone unless it names one: ``2026-11-23``, ``2026-11-23T02:15``.

    Raises:
        UsageError: it is none.
    """
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day).astimezone().astimezone(UTC)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"'{text}' is no date", hint="Say it like 2026-11-23 or 2026-11-23T02:15") from error
