"""The program as its users start it: its exit status, and what it says where.

Most tests call its entry point in this process, which is ten times quicker than starting Python for each
command; signals, terminals and what only a process has are tested with processes.
"""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hotspare.cli.main import main

HOTSPARE = Path(sys.executable).with_name("hotspare")
PASSPHRASE = "correct horse battery staple"
_PATIENCE = 60
"""Seconds."""


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    status: int
    out: str
    err: str

    def document(self) -> dict[str, Any]:
        """Give the one JSON document that stdout has to be."""
        content: dict[str, Any] = json.loads(self.out)
        assert content["v"] == 1
        return content

    def error(self) -> dict[str, Any]:
        """Give the JSON document that the last line of stderr has to be."""
        content: dict[str, Any] = json.loads(self.err.splitlines()[-1])
        assert (content["type"], content["v"]) == ("error", 1)
        return content


@dataclass
class Program:
    """Runs hotspare with a repository, catalog and configuration of its own under ``folder``."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("HOTSPARE_", "XDG_"))
        }
        config = self.folder / "hotspare.toml"
        config.touch()
        self.environment = kept | {
            "HOTSPARE_CONFIG": str(config),
            "HOTSPARE_REPOSITORY": str(self.folder / "repository"),
            "HOTSPARE_STATE_FOLDER": str(self.folder / "state"),
            "HOTSPARE_PASSPHRASE": PASSPHRASE,
            "HOTSPARE_PLATFORM": f"images://{self.folder}/images",
            "COLUMNS": "160",
            "TERM": "xterm",
        }

    @property
    def repository(self) -> Path:
        """The folder of the repository."""
        return self.folder / "repository"

    def run(self, *words: str | Path, typed: str = "", **variables: str | None) -> Finished:
        """Run one command line to its end, without a terminal; a variable that is None is not set."""
        with (
            patch.dict(os.environ, self._environment(variables), clear=True),
            patch.object(sys, "stdin", io.StringIO(typed)),
            redirect_stdout(io.StringIO()) as out,
            redirect_stderr(io.StringIO()) as err,
        ):
            status = main([str(word) for word in words])
        return Finished(status, out.getvalue(), err.getvalue())

    def expect(self, *words: str | Path, typed: str = "", **variables: str | None) -> Finished:
        """Run one command line that has to succeed."""
        done = self.run(*words, typed=typed, **variables)
        assert done.status == 0, done.err
        return done

    def run_process(self, *words: str | Path, under: Sequence[str] = (), **variables: str | None) -> Finished:
        """Run one command line to its end in a process of its own, with pipes, by the program ``under``."""
        process = self.start(*words, under=under, **variables)
        out, err = process.communicate(timeout=_PATIENCE)
        return Finished(process.returncode, out, err)

    def start(
        self, *words: str | Path, under: Sequence[str] = (), **variables: str | None
    ) -> subprocess.Popen[str]:
        """Begin a command line in a process of its own, with pipes."""
        pipe = subprocess.PIPE
        environment = self._environment(variables)
        return subprocess.Popen(
            [*under, HOTSPARE, *words], stdout=pipe, stderr=pipe, text=True, env=environment
        )

    def on_terminal(
        self, *words: str | Path, answers: Sequence[tuple[str, str]] = (), **variables: str | None
    ) -> tuple[int, str]:
        """Run a command line on a terminal; gives its status and all that the screen was sent.

        Args:
            words: the command line.
            answers: pairs of what is waited for on the screen, and what is typed then.
            variables: changes to the environment.
        """
        screen, terminal = pty.openpty()
        process = subprocess.Popen(
            # Passphrases are asked for on the controlling terminal, which only a new session can get.
            ["setsid", "--ctty", "--wait", HOTSPARE, *words],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=self._environment(variables),
        )
        os.close(terminal)
        shown = b""
        waiting = list(answers)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if waiting and waiting[0][0].encode() in shown:
                os.write(screen, f"{waiting.pop(0)[1]}\n".encode())
            try:
                data = os.read(screen, 65536)
            except OSError:  # EIO: the last process has let go of the terminal
                break
            shown += data
        os.close(screen)
        status = process.wait(_PATIENCE)
        assert not waiting, shown
        return status, shown.decode()

    def _environment(self, variables: dict[str, str | None]) -> dict[str, str]:
        merged = {**self.environment, **variables}
        return {name: value for name, value in merged.items() if value is not None}


def interrupt(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> Finished:
    """Send a signal and wait for the end."""
    process.send_signal(number)
    out, err = process.communicate(timeout=_PATIENCE)
    return Finished(process.returncode, out, err)
