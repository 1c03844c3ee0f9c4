"""Sending notices in a process of its own, so that nothing a receiver does reaches the server or watchdog.

What apprise's many plugins import stays out of their memory, and a plugin that hangs is killed with its
process.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Self

from hotspare.cli.options import Options
from hotspare.cli.session import settings_of
from hotspare.errors import HotspareError
from hotspare.notices.delivery import ANSWER_SECONDS
from hotspare.notices.outbox import FILE_NAME, Outbox

_PROGRAM = (sys.executable, "-P", "-c", "import sys; from hotspare.cli.main import main; sys.exit(main())")
_LOOK_SECONDS = 5.0
_SENDERS_MAX = 4
_KILL_SECONDS = ANSWER_SECONDS + 30.0
_log = logging.getLogger(__name__)


def send_due(options: Options) -> None:
    """Send what is due, if anything is, and wait for that. Raises nothing but says what goes wrong."""
    if _is_due(options):
        sending = _Sending(options)
        while not sending.is_over():
            time.sleep(0.05)


class Sender:
    """Sends what is due, whenever something is, while the block runs."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What is being sent goes on in its own process; nobody waits for a receiver.
        self._over.set()

    def _run(self) -> None:
        going: list[_Sending] = []
        while not self._over.wait(_LOOK_SECONDS):
            going = [one for one in going if not one.is_over()]
            # One that waits for a receiver which is silent must not hold up what is to be told to others.
            if len(going) < _SENDERS_MAX and _is_due(self._options):
                going.append(_Sending(self._options))


class _Sending:
    """A process that sends what is due."""

    def __init__(self, options: Options) -> None:
        config = ["--config", str(options.config)] if options.config else []
        self._deadline = time.monotonic() + _KILL_SECONDS
        self._process: subprocess.Popen[str] | None = None
        try:
            self._process = subprocess.Popen(
                [*_PROGRAM, "notice", "send", *config],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except OSError as error:
            _log.warning("Notices wait: their sender cannot be started: %s", error)

    def is_over(self) -> bool:
        """Tell whether it has ended, and how; one that takes too long is ended."""
        if self._process is None:
            return True
        if self._process.poll() is None:
            if time.monotonic() < self._deadline:
                return False
            self._process.kill()
        # What it prints is a line for each receiver, which a pipe holds until it is read here.
        said, _ = self._process.communicate()
        if self._process.returncode:
            _log.warning("Notices wait. %s", " ".join(said.split()) or "Their sender took too long")
        return True


def _is_due(options: Options) -> bool:
    try:
        settings = settings_of(options)
        if not (settings.state_folder / FILE_NAME).exists():
            return False
        with Outbox.open(settings.state_folder, _log.warning) as outbox:
            return outbox.waiting() > 0
    except HotspareError as error:
        _log.warning("Notices wait. %s", error)
        return False


def _environment() -> dict[str, str]:
    """Give this process's environment without what opens repositories: no plugin has to see that."""
    secret = ("HOTSPARE_PASSPHRASE", "HOTSPARE_TO_PASSPHRASE", "HOTSPARE_KEY_FILE", "HOTSPARE_TOKEN")
    return {name: value for name, value in os.environ.items() if not name.startswith(secret)}
