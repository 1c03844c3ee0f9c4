"""The process that keeps a recovery, seen from the command that starts it.

It serves the disks, moves them, and wakes the guest when that was paused; it goes on after the command's end.
What opens the repository is given to it over a pipe, and is nowhere else.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from hotspare.errors import HotspareError
from hotspare.repository.format import RepositoryConfig
from hotspare.repository.keys.keyring import Secrets
from hotspare.restore.instant.chunk_cache import DEFAULT_CACHE_BYTES, DEFAULT_PATIENCE
from hotspare.restore.instant.record import Recoveries

PROGRAM = "hotspare.restore.instant.keeper_process:main"
READY = b"ready\n"
_READY_SECONDS = 120.0
_STOP_SECONDS = 20.0
_HANDED_OVER: list[subprocess.Popen[bytes]] = []
"""Those left at work: Python would complain about processes that it forgets while they run."""


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """How disks are served."""

    cache_bytes: int = DEFAULT_CACHE_BYTES
    """Memory for what was read."""
    patience: float = DEFAULT_PATIENCE
    """Seconds that a guest waits for one read before it is paused."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """All that the process has to know and the record does not say."""

    state_folder: str
    name: str
    """Of the recovery."""
    config: RepositoryConfig
    secrets: Secrets
    download_limit: int = 0
    """Bytes per second; 0 for none."""
    serving: Serving = Serving()


class Keeper:
    """A process that has just been started, and waits for its orders."""

    def __init__(self) -> None:
        """Start it. It needs as long to come up as the command to find out what it shall do."""
        module, _, function = PROGRAM.partition(":")
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {module} import {function}; {function}()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_without_secrets(os.environ),
            start_new_session=True,  # Ctrl-C on the terminal is for the command, not for it
        )

    def order(self, orders: Orders) -> None:
        """Tell it what to do."""
        stdin = self._process.stdin
        if stdin is None:
            raise ValueError("It has its orders")
        with suppress(BrokenPipeError):  # why it ended is told by "wait_ready"
            stdin.write(msgspec.msgpack.encode(orders))
            stdin.close()

    def wait_ready(self) -> None:
        """Return once it serves the disks. Raises ``HotspareError``: it cannot, with its reason."""
        stdout = self._process.stdout
        if stdout is None:
            return
        readable, _, _ = select.select([stdout], [], [], _READY_SECONDS)
        said = stdout.readline() if readable else b""
        stdout.close()
        if said != READY:
            self.stop()
            why = said.decode(errors="replace").strip() or "it ended, or took too long"
            raise HotspareError(
                f"The disks cannot be served: {why}",
                meaning="The machine was not started, and nothing of it is left",
                hint="Look at the repository with 'hotspare repo check', or restore with 'hotspare restore'",
            )
        _HANDED_OVER.append(self._process)

    def stop(self) -> None:
        """End it."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def stop_keeper(recoveries: Recoveries, name: str) -> None:
    """End the process that keeps a recovery, if one does. Raises ``HotspareError`` when that does not end."""
    deadline = time.monotonic() + _STOP_SECONDS
    while recoveries.is_kept(name):
        status = recoveries.status(name)
        pids = {recoveries.keeper_pid(name), status.pid if status else None}
        for pid in pids - {None}:
            _terminate(pid)
        if time.monotonic() > deadline:
            raise HotspareError(
                f"The process that keeps the recovery of {name} does not end",
                meaning="Nothing else was done",
                hint=f"End it by hand: {pids - {None}}",
            )
        time.sleep(0.05)
    for ended in [one for one in _HANDED_OVER if one.poll() is not None]:
        _HANDED_OVER.remove(ended)


def _terminate(pid: int | None) -> None:
    with suppress(OSError):
        # A number may have become another process's.
        if (
            pid is not None
            and PROGRAM.partition(":")[0].encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        ):
            os.kill(pid, signal.SIGTERM)


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out passphrases; what S3 needs stays, as it is asked for with every request."""
    return {name: value for name, value in environment.items() if "PASSPHRASE" not in name}
