"""A volume group for one test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.volumes.volume_groups import SIZES, Group, volume_group


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    """Give the group ``hs`` on three disks, with extents of 1 MiB and no logical volumes."""
    with volume_group(tmp_path, SIZES, "--physicalextentsize=1m") as made:
        yield made
