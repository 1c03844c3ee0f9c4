"""The processors belong to the guests: a backup of a running machine takes what they leave.

Who gets a processor is decided on Linux by nice (setpriority(2)) within a session and, where the kernel
groups tasks by session, by the session's own nice value between them: "The autogroup feature" in sched(7).
QEMU is in a session of its own, so nice alone does nothing for it there. Between cgroups that have weights,
as systemd makes them, those decide: packaging/hotspare.slice.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

NICE = 15
"""A thirtieth of what a guest gets where processors are short: a backup has to end on a busy host too."""


class Session:
    """The nice value of this session, lowered while there are backups that want it so.

    Args:
        autogroup: the kernel's file that has it: "/autogroup-17 nice 0".
        ours: nobody else works in it; else it stays as it is.
    """

    def __init__(self, autogroup: Path, *, ours: bool) -> None:
        self._autogroup = autogroup
        self._ours = ours
        self._lock = threading.Lock()
        self._runs = 0
        self._before: int | None = None

    def lower(self) -> None:
        """Begin to be below the guests."""
        with self._lock:
            self._runs += 1
            if self._runs == 1 and self._ours:
                self._before = self._nice()
                self._set_nice(NICE)

    def raise_again(self) -> None:
        """End it, when no other backup of this process goes on."""
        with self._lock:
            self._runs -= 1
            if self._runs == 0:
                self._set_nice(self._before)

    def _nice(self) -> int | None:
        with suppress(OSError, ValueError):  # the kernel does not group by session
            return int(self._autogroup.read_text(encoding="ascii").rpartition(" ")[2])
        return None

    def _set_nice(self, nice: int | None) -> None:
        # Where it was as low before, that is another process's doing, which raises it again by itself.
        if nice is not None and self._before is not None and self._before < NICE:
            with suppress(OSError):
                self._autogroup.write_text(str(nice), encoding="ascii")


@cache
def _session() -> Session:
    # Who leads a session is who began it: a service, a command over SSH. A shell's is the shell's.
    return Session(Path("/proc/self/autogroup"), ours=os.getsid(0) == os.getpid())


@contextmanager
def below_the_guests() -> Iterator[None]:
    """Lower the priority of this thread, of those that it starts, and of this session while the block runs.

    Only root does: nobody else may go back.
    """
    if os.geteuid() != 0:
        yield
        return
    thread, before = threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0)
    _session().lower()
    _set_nice(thread, max(before, NICE))
    try:
        yield
    finally:
        _set_nice(thread, before)
        _session().raise_again()


def _set_nice(thread: int, nice: int) -> None:
    with suppress(OSError):  # root in a container may lack CAP_SYS_NICE
        os.setpriority(os.PRIO_PROCESS, thread, nice)
