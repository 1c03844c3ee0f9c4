"""Running hotspare on guests, and being told what it does."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import ProgramFailed


@dataclass(slots=True)
class Backup:
    """One backup as its command told it."""

    seconds: float
    """Of the whole command."""
    phases: dict[str, float]
    """When each phase began, by the clock ``time.monotonic``."""
    result: dict[str, Any]
    """The only entry of ``results`` in its document."""

    @property
    def point(self) -> dict[str, Any]:
        """The restore point."""
        point: dict[str, Any] = self.result["point"]
        return point


@dataclass(slots=True)
class Hotspare:
    """The program with a repository of its own."""

    repository: Path
    scratch: Path
    folder: Path
    before: Sequence[str] = ()
    """Words before the command: ``setsid``."""
    passphrase: str = "correct horse battery staple"
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.environment = {
            **os.environ,
            "HOTSPARE_REPOSITORY": str(self.repository),
            "HOTSPARE_PASSPHRASE": self.passphrase,
            "HOTSPARE_STATE_FOLDER": str(self.folder / "state"),
            "HOTSPARE_SCRATCH_FOLDER": str(self.scratch),
            "HOTSPARE_PLATFORM": "qemu:///system",
        }

    def create_repository(self) -> None:
        """Make the repository."""
        done = subprocess.run(
            self._command("repo", "create"), env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ProgramFailed(done.stderr)

    def back_up(self, machine: str, options: Sequence[str] = ()) -> Backup:
        """Back one machine up.

        Raises:
            ProgramFailed: it could not be done.
        """
        command = self._command("backup", machine, *options, "-o", "json", "--progress", "jsonl")
        phases: dict[str, float] = {}
        said: list[str] = []
        began = time.monotonic()
        process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

        def listen() -> None:
            for line in process.stderr or ():
                said.append(line)
                event = json.loads(line) if line.startswith("{") else {}
                if event.get("type") == "phase-started":
                    phases[event["phase"]] = time.monotonic()

        listener = threading.Thread(target=listen)
        listener.start()
        document = process.stdout.read() if process.stdout else ""
        status = process.wait()
        seconds = time.monotonic() - began
        listener.join()
        if status:
            raise ProgramFailed(f"{' '.join(command)} ended with {status}:\n{''.join(said)}")
        (result,) = json.loads(document)["results"]
        return Backup(seconds, phases, result)

    def remove(self) -> None:
        """Remove the repository."""
        shutil.rmtree(self.repository)

    def _command(self, *words: str) -> list[str]:
        return [*self.before, str(Path(sys.executable).parent / "hotspare"), *words]
