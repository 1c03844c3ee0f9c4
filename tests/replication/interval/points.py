"""What the images of a replica hold, by QEMU's own programs."""

import subprocess
from pathlib import Path

from hotspare.platforms.replica.record import ReplicaPoint


def content_of(folder: Path, point: ReplicaPoint, disk: str) -> bytes:
    """Read a disk of a point from its images."""
    (image,) = [folder / one.image for one in point.disks if one.name == disk]
    copy = folder / f"{point.id}-{disk}.raw"
    subprocess.run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", image, copy], check=True)
    try:
        return copy.read_bytes()
    finally:
        copy.unlink()
