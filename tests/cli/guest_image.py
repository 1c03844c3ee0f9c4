"""A disk image with a Linux guest's files, as a kernel wrote them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hotspare.units import MIB


def make_guest_image(path: Path, size: int = 32 * MIB) -> None:
    """Make an image with an ext4 file system and some files of all kinds."""
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    with mounted(path) as root:
        (root / "etc/nginx").mkdir(parents=True)
        (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        (root / "etc/nginx/nginx.conf").write_text("worker_processes 1;\n")
        (root / "etc/nginx/link").symlink_to("../hosts")
        (root / "srv").mkdir()
        (root / "srv/big").write_bytes(b"big" * MIB)
        (root / "srv/again").hardlink_to(root / "srv/big")


@contextmanager
def mounted(path: Path) -> Iterator[Path]:
    """Mount an image while the block runs."""
    folder = path.with_suffix(".mounted")
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", path, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()
