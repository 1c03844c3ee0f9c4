"""The process that keeps a recovery: one that waits, and its child that works, made anew when it dies."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import msgspec

from hotspare.errors import HotspareError
from hotspare.platforms.registry import open_platform
from hotspare.repository.keys.keyring import Keyring
from hotspare.repository.repository import Repository
from hotspare.restore.instant.guardian import Guardian
from hotspare.restore.instant.keeper import READY, Orders
from hotspare.restore.instant.record import Recoveries, Recovery
from hotspare.restore.instant.served_disks import ServedDisks
from hotspare.storage.registry import open_backend
from hotspare.storage.wrappers.cache import with_host_cache
from hotspare.storage.wrappers.retry import RetryPolicy
from hotspare.storage.wrappers.throttle import ThrottledBackend, TokenBucket

_RETRY = RetryPolicy(longest_wait=1.0, total=5.0, total_at_first=20.0)
"""A guest is paused rather than left waiting for minutes: then it notices nothing, and can be stopped."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
"""Seconds between the death of the child and the next."""
_SOUND_SECONDS = 60.0
"""A child that lived so long died of something new."""
_DONE, _FAILED = 0, 1


def main() -> None:
    """Take orders from standard input, and keep the recovery until it is over."""
    orders = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Orders)
    recoveries = Recoveries(Path(orders.state_folder))
    lock = recoveries.lock(orders.name)
    if lock is None:
        os.write(1, b"another process keeps this recovery\n")
        sys.exit(_FAILED)
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    _log_to(recoveries.log(orders.name))
    ready, tell_ready = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    came_up = False
    pause = _FIRST_PAUSE
    while True:
        began = time.monotonic()
        child = os.fork()
        if not child:
            os.setpgid(0, 0)  # with the programs that it starts
            os._exit(_work(orders, recoveries, tell_ready))
        if _wait_for(child) == _DONE:
            return
        came_up = came_up or _has_come(ready)
        if not came_up:
            sys.exit(_FAILED)  # the command has been told why
        if time.monotonic() - began > _SOUND_SECONDS:
            pause = _FIRST_PAUSE
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _has_come(pipe: int) -> bool:
    try:
        return bool(os.read(pipe, 1))
    except BlockingIOError:
        return False


def _log_to(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 2)
    os.close(log)


def _wait_for(child: int) -> int:
    def end(_number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGTERM)
        os._exit(_DONE)

    signal.signal(signal.SIGTERM, end)
    _, status = os.waitpid(child, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return os.waitstatus_to_exitcode(status)


def _work(orders: Orders, recoveries: Recoveries, tell_ready: int) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        recovery = recoveries.read(orders.name)
        if recovery is None:
            return _DONE
        _serve(orders, recoveries, recovery, tell_ready)
    except HotspareError as error:
        _say(str(error))
        with suppress(OSError):
            os.write(1, f"{' '.join(str(error).split())}\n".encode())
        return _FAILED
    except BaseException:  # noqa: BLE001 - the parent makes another; this process must not go on as it
        sys.excepthook(*sys.exc_info())
        return _FAILED
    return _DONE


def _serve(orders: Orders, recoveries: Recoveries, recovery: Recovery, tell_ready: int) -> None:
    backend = open_backend(recovery.repository, retry=_RETRY)
    if orders.download_limit:
        backend = ThrottledBackend(backend, down=TokenBucket(orders.download_limit))
    backend = with_host_cache(backend, Path(orders.state_folder))
    repository = Repository(backend, orders.config, Keyring(orders.config.id, orders.secrets))
    repository.index_folder = Path(orders.state_folder) / "index"
    socket = Path(recovery.socket)
    point = repository.load_point(recovery.point_object)
    socket.unlink(missing_ok=True)  # of a process that was killed
    scratch = Path(recovery.scratch_folder) if recovery.scratch_folder else None
    how = orders.serving
    with ServedDisks(
        repository, point, socket, cache_bytes=how.cache_bytes, patience=how.patience, mode=0o666
    ):
        os.write(tell_ready, b"r")
        with suppress(OSError):  # only the first has somebody who listens
            os.write(1, READY)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        Guardian(
            recoveries,
            recovery.name,
            repository,
            lambda: open_platform(recovery.platform, scratch_folder=scratch),
            _say,
        ).run()


def _say(text: str) -> None:
    os.write(2, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode())
