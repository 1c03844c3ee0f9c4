"""What disks lie on is found on the real file system."""

import os
import subprocess
from pathlib import Path

import pytest

from hotspare.platforms.platform import Machine, MachineDisk, PowerState
from hotspare.platforms.pools import pools_of


def machine(*sources: object) -> Machine:
    disks = tuple(
        MachineDisk(name=f"vd{number}", size=1, format="raw", source=str(source))
        for number, source in enumerate(sources)
    )
    return Machine(id="1", name="web", platform="p", state=PowerState.OFF, disks=disks)


def test_files_of_one_file_system_share_a_pool(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    (pool,) = pools_of(machine(tmp_path / "a", tmp_path / "b"))
    assert Path(pool).is_mount()
    assert tmp_path.is_relative_to(pool)
    assert pools_of(machine(tmp_path / "none", "pool/volume")) == frozenset()
    assert pools_of(machine()) == frozenset()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_each_file_system_is_a_pool(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", other], check=True)
    try:
        (other / "b").touch()
        (tmp_path / "link").symlink_to(other / "b")
        found = pools_of(machine(tmp_path / "a", other / "b", tmp_path / "link"))
        assert len(found) == 2
        assert str(other) in found
    finally:
        subprocess.run(["umount", other], check=True)
