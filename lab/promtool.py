"""Prometheus's own checker, taken from the distribution's package without installing a server."""

import tempfile
from pathlib import Path

from lab.image import CACHE, one_builder
from lab.packages import named_packages, unpack


def promtool() -> Path:
    """Give the program.

    Raises:
        LabError: it cannot be had.
    """
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with one_builder():
        return next(CACHE.glob("prometheus-*/usr/bin/promtool"), None) or _download()


def _download() -> Path:
    packages = named_packages(["prometheus"])
    folder = CACHE / f"prometheus-{packages[0].version}"
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        tree = Path(scratch, "tree")
        unpack(packages, tree)
        (tree / "usr/bin/prometheus").unlink()  # the server, which nobody here wants
        tree.rename(folder)
    return folder / "usr/bin/promtool"
