"""The distribution's kernel with all of its modules, for what boots a machine of its own."""

import shutil
import tempfile
from pathlib import Path

from lab.image import CACHE, one_builder, remove_old_versions
from lab.packages import guest_packages, unpack


def kernel_with_modules() -> tuple[Path, Path]:
    """Give the image of a kernel and the folder of its modules, downloaded but not installed.

    Raises:
        LabError: it cannot be had.
    """
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with one_builder():
        # Whichever there is will do, and asking apt for the newest takes longer than booting it.
        folder = next(CACHE.glob("kernel-*"), None) or _download()
        remove_old_versions(folder)
    image = next(folder.glob("boot/vmlinuz-*"))
    version = image.name.removeprefix("vmlinuz-")
    return image, next(path for path in folder.glob(f"**/modules/{version}") if path.is_dir())


def _download() -> Path:
    packages = [package for package in guest_packages() if package.name.startswith("linux-")]
    folder = CACHE / f"kernel-{packages[0].version}"
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        tree = Path(scratch, "tree")
        unpack(packages, tree)
        shutil.rmtree(tree / "usr/share", ignore_errors=True)
        tree.rename(folder)
    return folder
