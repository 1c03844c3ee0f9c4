"""What the watchdog saw last: a JSON document in the state folder, for whoever shows it."""

import json
import os
from pathlib import Path
from typing import Any

_NAME = "watchdog.json"


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Keep the document of a look in place of the one before. Raises ``OSError``."""
    new = folder / f".{_NAME}.{os.getpid()}"
    new.write_text(json.dumps(report), encoding="utf-8")
    new.replace(folder / _NAME)


def read_report(folder: Path) -> dict[str, Any]:
    """Give the document of the last look; empty when there was none, or it cannot be read."""
    try:
        report = json.loads((folder / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}
