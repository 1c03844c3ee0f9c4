"""The names of half-written files, and when one may be taken for a crashed writer's."""

import secrets

_PREFIX = ".tmp-"
_AGE_MAX = 24 * 3600
"""Seconds; no single object takes a writer that is alive so long."""


def new_temporary_name() -> str:
    """Give a name, no path, that no object can have and nobody else will take."""
    return f"{_PREFIX}{secrets.token_hex(8)}"


def is_temporary(name: str) -> bool:
    """Tell whether a file of this name, no path, is somebody's half-written one."""
    return name.startswith(_PREFIX)


def is_stale(name: str, *, modified: float, now: float) -> bool:
    """Tell whether a file is a temporary one that its writer left behind.

    Both times are seconds of the same clock, which must be that of the file system's host.
    """
    return is_temporary(name) and now - modified > _AGE_MAX
