"""Telling that the process of a session is dead, where that can be known: on the same host.

To give a session up is always safe, as a run that lives finds it out before it reports success. So this may
only err towards life: a process in another container, or on another host, is not known to be dead.
"""

import os
from pathlib import Path

from hotspare.catalog.process import is_alive, own_process

_PID_SPACE = Path("/proc/self/ns/pid")


def own_life() -> str:
    """Name this process, and where its number means what it does: boot, number, start, name space."""
    return f"{own_process()}/{_pid_space()}"


def is_known_dead(life: str) -> bool:
    """Tell whether the process that ``own_life`` gave this name has surely ended."""
    process, _, space = life.rpartition("/")
    boot, _, rest = process.partition("/")
    if not rest or boot != own_process().partition("/")[0] or space != _pid_space():
        return False
    try:
        os.kill(int(rest.partition("/")[0]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # what cannot be signalled may be hidden as well
    return not is_alive(process)


def _pid_space() -> str:
    return str(_PID_SPACE.readlink())
