"""Runs the ``hotspare`` program as a user would, and keeps what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console


class Hotspare:
    """The program, with a repository and a state folder of its own below ``folder``."""

    def __init__(self, folder: Path, console: Console) -> None:
        self._console = console
        self._environment = os.environ | {
            "HOTSPARE_REPOSITORY": str(folder / "repository"),
            "HOTSPARE_PASSPHRASE": "only for this demonstration",
            "HOTSPARE_STATE_FOLDER": str(folder / "state"),
            "HOTSPARE_CONFIG": str(folder / "hotspare.toml"),
        }
        (folder / "hotspare.toml").touch()

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """Run one command and give its JSON document. Ends the demonstration when it fails."""
        self._console.print(f"[bold]$ hotspare {' '.join(arguments)}[/]", highlight=False)
        program = Path(sys.executable).parent / "hotspare"
        done = subprocess.run(
            [program, *arguments, "-o", "json"], env=self._environment, stdout=subprocess.PIPE, check=False
        )
        if done.returncode:
            raise SystemExit(f"The demonstration stops here: exit status {done.returncode}")
        document: dict[str, Any] = json.loads(done.stdout)
        return document
