"""Names for processes that are never given twice, so that a run whose process died is known as lost."""

import os
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def own_process() -> str:
    """Name this process: boot, process id and its start in clock ticks since that boot."""
    return _name(os.getpid())


def is_alive(process: str) -> bool:
    """Tell whether the process of that name still runs."""
    number = process.split("/")[1]
    try:
        return _name(int(number)) == process
    except (FileNotFoundError, ProcessLookupError):
        return False


def _name(pid: int) -> str:
    status = Path(f"/proc/{pid}/stat").read_text()
    # The program's name comes second, in parentheses, and may hold anything; the start is field 22.
    started = status.rpartition(")")[2].split()[19]
    return f"{_BOOT_ID.read_text().strip()}/{pid}/{started}"
