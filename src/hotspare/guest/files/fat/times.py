"""Dates and times of FAT and exFAT."""

import calendar
from datetime import date
from functools import lru_cache

_SECOND = 1_000_000_000


def nanoseconds(day: int, time: int, hundredths: int = 0) -> int:
    """Turn a date, a time of two seconds' steps and hundredths of seconds into nanoseconds since 1970.

    Read as if it were UTC, as Linux does unless told otherwise: FAT keeps local time, and no zone. What is no
    date or time becomes the nearest that is one.
    """
    hours, minutes, pairs = time >> 11, time >> 5 & 0x3F, time & 0x1F
    seconds = _days(day) * 86400 + min(hours, 23) * 3600 + min(minutes, 59) * 60 + min(pairs * 2, 58)
    return seconds * _SECOND + min(hundredths, 199) * (_SECOND // 100)


@lru_cache(maxsize=1024)
def _days(day: int) -> int:
    """Turn a date into days since 1970."""
    year, month = 1980 + (day >> 9), min(max(day >> 5 & 0xF, 1), 12)
    last = calendar.monthrange(year, month)[1]
    return (date(year, month, min(max(day & 0x1F, 1), last)) - date(1970, 1, 1)).days
