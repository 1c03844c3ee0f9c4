"""Where is noted what is true until this host starts again."""

import os
from pathlib import Path


def runtime_folder() -> Path:
    """Give the folder, which need not be there and which only root, or the user, can write to."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    parent = Path("/run") if os.geteuid() == 0 or not runtime else Path(runtime)
    return parent / "hotspare"
