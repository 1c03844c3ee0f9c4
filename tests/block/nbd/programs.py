"""Other people's NBD servers, run for one test each."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class RunningServer:
    socket: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)
        # The signal is on its way only: on a busy host a thread may answer once more.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)


@contextmanager
def nbdkit(directory: Path, *arguments: str | Path) -> Iterator[RunningServer]:
    """Run nbdkit on a socket in ``directory``; options first, then plugin and parameters."""
    socket, ready = directory / "nbdkit.sock", directory / "nbdkit.pid"
    options = ["--foreground", "--exit-with-parent", "--unix", str(socket), "--pidfile", str(ready)]
    with subprocess.Popen(["nbdkit", *options, *map(str, arguments)]) as process:
        try:
            deadline = time.monotonic() + 60
            while not ready.exists():
                assert process.poll() is None, "nbdkit has ended"
                assert time.monotonic() < deadline, "nbdkit does not listen"
                time.sleep(0.005)
            yield RunningServer(socket, process)
        finally:
            process.kill()


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
