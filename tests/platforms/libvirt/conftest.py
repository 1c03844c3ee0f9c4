"""A libvirt platform with a scratch folder that QEMU can reach."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hotspare.platforms.libvirt.platform import LibvirtPlatform


@pytest.fixture
def scratch_folder(lab_host: None) -> Iterator[Path]:
    """An empty folder; pytest's own cannot be entered by QEMU."""
    with tempfile.TemporaryDirectory(prefix="hotspare-test-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def platform(scratch_folder: Path) -> Iterator[LibvirtPlatform]:
    with closing(LibvirtPlatform("qemu:///system", scratch_folder=scratch_folder)) as opened:
        yield opened
