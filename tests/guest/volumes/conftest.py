"""What several modules here begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.units import MIB
from tests.guest.volumes.images import image, run
from tests.guest.volumes.volume_groups import SIZES, Group, volume_group


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    """Give the group ``hs`` on three disks, with extents of 1 MiB and no logical volumes."""
    with volume_group(tmp_path, SIZES, "--physicalextentsize=1m") as made:
        yield made


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an image of 4 MiB with the label ``inside``."""
    path = image(tmp_path_factory.mktemp("ext4") / "ext4", 4 * MIB)
    run("mkfs.ext4", "-q", "-L", "inside", path)
    return path
