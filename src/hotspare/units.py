"""Sizes, rates and durations as people write and read them."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_SUFFIXES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_bytes(count: float) -> str:
    """Give a byte count with a binary suffix: ``format_bytes(1536) == '1.5 KiB'``."""
    for suffix in _SUFFIXES:
        if abs(count) < 1024 or suffix == _SUFFIXES[-1]:
            break
        count /= 1024
    return f"{count:.0f} {suffix}" if suffix == "B" else f"{count:.1f} {suffix}"


def format_rate(bytes_per_second: float) -> str:
    """Give a throughput: ``'250.0 MiB/s'``."""
    return f"{format_bytes(bytes_per_second)}/s"


def format_duration(seconds: float) -> str:
    """Give a duration in the two largest units that matter: ``'1h02m'``, ``'3m05s'``, ``'0.42 s'``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"
