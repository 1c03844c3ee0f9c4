"""Running programs of the host."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program and give its output.

    Raises:
        LabError: it is not installed or failed.
    """
    words: Sequence[str] = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise LabError(f"{words[0]} is not installed: run scripts/install-system-packages") from missing
    if done.returncode:
        said = f"{done.stderr.strip()}\n{done.stdout.strip()[-2000:]}".strip()
        raise LabError(f"{' '.join(words)} failed ({done.returncode}): {said}")
    return done.stdout
