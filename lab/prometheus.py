"""Prometheus and its own checker, taken from the distribution's package without installing them."""

import shutil
import tempfile
from pathlib import Path

from lab.image import CACHE, one_builder
from lab.packages import named_packages, unpack


def prometheus() -> Path:
    """Give the server; beside it is ``promtool``, the checker.

    Raises:
        LabError: it cannot be had.
    """
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with one_builder():
        return next(CACHE.glob("prometheus-*/usr/bin/prometheus"), None) or _download()


def promtool() -> Path:
    """Give the checker. Raises ``LabError``."""
    return prometheus().with_name("promtool")


def _download() -> Path:
    packages = named_packages(["prometheus"])
    folder = CACHE / f"prometheus-{packages[0].version}"
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        tree = Path(scratch, "tree")
        unpack(packages, tree)
        # Versions of this file before kept the checker alone.
        shutil.rmtree(folder, ignore_errors=True)
        tree.rename(folder)
    return folder / "usr/bin/prometheus"
