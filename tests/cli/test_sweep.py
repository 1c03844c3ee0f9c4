"""``hotspare sweep`` after backups that were killed: what it removes, and what it keeps."""

import subprocess
import sys
from pathlib import Path

import pytest

from hotspare.units import MIB
from tests.cli.lab_program import program_for_libvirt
from tests.cli.program import Program
from tests.platforms.libvirt.bare_machine import BareMachine
from tests.platforms.libvirt.test_sweep_host import see_only

KILLED_BACKUP = """
import os, signal, sys
from hotspare.backup import machine
from hotspare.cli.main import main
from hotspare.platforms.libvirt.snapshot import PullSnapshot

def die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1] == "transfer":
    machine.transfer_disk = die
else:
    PullSnapshot.commit = die
main(["backup", sys.argv[2]])
"""


@pytest.mark.lab
@pytest.mark.parametrize("stage", ["transfer", "commit"])
def test_what_a_killed_backup_left(
    tmp_path: Path, lab_host: None, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    with program_for_libvirt(tmp_path) as program, BareMachine("sweep-cli") as machine:
        machine.start()
        machine.write(0, MIB, 1)
        program.expect("backup", machine.name)
        (good,) = machine.checkpoints()
        machine.write(2 * MIB, MIB, 2)
        command = [sys.executable, "-c", KILLED_BACKUP, stage, machine.name]
        done = subprocess.run(command, env=program.environment, capture_output=True, text=True, check=False)
        assert done.returncode == -9, done.stderr
        (candidate,) = set(machine.checkpoints()) - {good}
        see_only(monkeypatch, machine.name)

        would = program.expect("sweep", "--dry-run", "-o", "json").document()
        assert len(machine.checkpoints()) == 2
        document = program.expect("sweep", "-o", "json").document()

        kinds = [one["kind"] for one in document["found"]]
        assert kinds == [one["kind"] for one in would["found"]] == ["backup-job", "run-folder", "checkpoint"]
        assert all(one["removed"] for one in document["found"])
        assert not any(one["removed"] for one in would["found"])
        # A point that was published counts on the newer checkpoint, although its run did not live to say so.
        assert machine.checkpoints() == [candidate if stage == "commit" else good]
        assert "Nothing was left behind" in program.expect("sweep").out

        machine.write(4 * MIB, MIB, 3)
        (result,) = program.expect("backup", machine.name, "-o", "json").document()["results"]
        assert result["mode"] == "increment"
        out = tmp_path / "restored.raw"
        program.expect("restore", machine.name, "--disk", f"vda={out}")
        content = out.read_bytes()
        assert content[: 5 * MIB] == b"".join(bytes([fill]) * MIB for fill in (1, 0, 2, 0, 3))


@pytest.fixture
def images(program: Program) -> Program:
    program.expect("repo", "create")
    return program


def test_nothing_is_left_in_a_folder_of_images(images: Program) -> None:
    assert images.expect("sweep").out == "Nothing was left behind.\n"


def test_without_a_repository_it_says_what_it_leaves(images: Program) -> None:
    assert "checkpoints are left alone" in images.expect("sweep", HOTSPARE_REPOSITORY=None).err
    wrong = images.expect("sweep", HOTSPARE_PASSPHRASE="wrong")
    assert "Checkpoints are left alone" in wrong.err
