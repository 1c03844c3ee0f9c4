"""A real guest whose backup is slow goes on undisturbed, even when the scratch space does not last."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.errors import NoSpace
from lab import LabGuest
from tests.cli.program import Program

pytestmark = pytest.mark.lab

MIB = 1024 * 1024
OLD = 40 * MIB
RESERVE = 256 * MIB
"""What must stay free for scratch files, by default."""


@pytest.fixture
def small_scratch(lab_host: None) -> Iterator[Path]:
    """A scratch folder with room for less than what the guest will overwrite."""
    with tempfile.TemporaryDirectory(prefix="hotspare-test-", dir="/var/tmp") as folder:
        size = RESERVE + OLD // 2
        options = f"size={size},mode=0711"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "scratch", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


@pytest.mark.soak  # test_guest_safety.py has it without the command line
def test_a_backup_that_lasts_too_long_for_its_scratch_space_is_given_up(
    small_scratch: Path, guest: LabGuest, tmp_path: Path
) -> None:
    program = Program(tmp_path)
    program.environment |= {
        "HOTSPARE_PLATFORM": "qemu:///system",
        "HOTSPARE_SCRATCH_FOLDER": str(small_scratch),
    }
    program.expect("repo", "create")
    old = guest.write_random("/data/old", OLD)
    # At this rate the disk would take minutes: the guest has all the time to overwrite it.
    process = program.start("backup", guest.name, "--read-limit", "256KiB/s", "--progress", "jsonl")
    assert process.stderr is not None
    while '"disk-started"' not in process.stderr.readline():
        assert process.poll() is None
    guest.exec(f"dd if=/dev/zero of=/data/old bs=1M count={OLD // MIB} conv=notrunc,fsync")
    _, err = process.communicate(timeout=60)

    assert process.returncode == NoSpace.exit_status, err
    assert "must stay free" in err
    assert guest.sha256("/data/old") != old
    guest.exec("echo alive > /data/alive && sync /data/alive")
    assert "error" not in guest.exec("dmesg | grep -i 'i/o error' || true").lower()
    assert guest.domain.listAllCheckpoints() == []
    assert [path.name for path in small_scratch.iterdir() if path.is_dir()] == []
    assert program.expect("point", "list", "-o", "json").document()["points"] == []
