"""Our own process, killed with SIGKILL right after each step that changes something: nothing is lost."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.repository.keys.keychest import new_key_file
from hotspare.repository.keys.slot import KeyFile
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.units import KIB
from tests.platforms.libvirt.bare_machine import MIB, BareMachine
from tests.platforms.libvirt.protected import Protected, bitmaps_of

pytestmark = pytest.mark.lab

STEPS = {
    "hotspare.platforms.libvirt.scratch.RunFolder.create": "the run's folder",
    "libvirt.virDomain.backupBegin": "the job and the new checkpoint",
    "hotspare.backup.machine.transfer_disk": "the transfer",
    "hotspare.repository.writer.RepositoryWriter.flush": "making the data durable",
    "hotspare.repository.writer.RepositoryWriter.publish": "the restore point",
    "libvirt.virDomainCheckpoint.delete": "removing the old checkpoint",
    "libvirt.virDomain.abortJob": "the end of the job",
    "hotspare.platforms.libvirt.scratch.RunFolder.remove": "removing the run's folder",
}
STEPS_OFF = {
    "hotspare.platforms.libvirt.scratch.RunFolder.create": "the run's folder",
    "hotspare.platforms.libvirt.offline.add_stored_bitmap": "the new bitmap",
    "hotspare.backup.machine.transfer_disk": "the transfer",
    "hotspare.repository.writer.RepositoryWriter.publish": "the restore point",
    "hotspare.platforms.libvirt.checkpoints.remove_stored_bitmap": "removing the old bitmap",
    "hotspare.platforms.libvirt.scratch.RunFolder.remove": "removing the run's folder",
}
LEFT_TO_SOAK = {"the run's folder", "removing the run's folder", "making the data durable"}
"""Steps after which a kill finds what it finds after the step before or the next one."""

_SCRIPT = """
import os, pkgutil, signal, sys
from pathlib import Path
from hotspare import events
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import Cancellation
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import Consistency
from hotspare.repository.keys.slot import KeyFile
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
step, scratch, store, key, machine = sys.argv[1:]
owner = pkgutil.resolve_name(step.rpartition(".")[0])
real = getattr(owner, step.rpartition(".")[2])
def killed(*arguments, **options):
    real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, step.rpartition(".")[2], killed)
repository = Repository.open(LocalBackend(Path(store)), KeyFile(bytes.fromhex(key)))
platform = LibvirtPlatform("qemu:///system", scratch_folder=Path(scratch))
options = BackupOptions(consistency=Consistency.CRASH)
backup_machine(repository, platform, machine, options, events.ignore, Cancellation())
"""


def steps(all_steps: dict[str, str]) -> list[Any]:
    return [
        pytest.param(step, marks=[pytest.mark.soak] if what in LEFT_TO_SOAK else [])
        for step, what in all_steps.items()
    ]


@pytest.fixture(scope="module")
def machine(lab_host: None) -> Iterator[BareMachine]:
    with BareMachine("killed") as made:
        yield made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, KeyFile]:
    """A repository and what opens it."""
    folder, key = tmp_path_factory.mktemp("killed") / "repository", new_key_file()
    Repository.create(LocalBackend(folder), key, chunk_size=64 * KIB)
    return folder, key


def back_up_and_be_killed(step: str, scratch: Path, store: tuple[Path, KeyFile], machine: str) -> None:
    folder, key = store
    words = [step, str(scratch), str(folder), key.content.hex(), machine]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *words], check=False, capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr


@pytest.mark.parametrize("step", steps(STEPS))
def test_killed_while_the_machine_runs(
    machine: BareMachine,
    store: tuple[Path, KeyFile],
    platform: LibvirtPlatform,
    scratch_folder: Path,
    step: str,
) -> None:
    if not machine.domain.isActive():
        machine.start()
    pattern = 1 + list(STEPS).index(step)
    protected = Protected(platform, machine.name, Repository.open(LocalBackend(store[0]), store[1]))
    protected.back_up()
    machine.write(2 * MIB, MIB, pattern)
    back_up_and_be_killed(step, scratch_folder, store, machine.name)
    machine.write(4 * MIB, MIB, pattern)

    assert protected.back_up()["vda"] is None
    assert protected.content("vda")[2 * MIB : 3 * MIB] == bytes([pattern]) * MIB
    assert machine.checkpoints() == [protected.mark]
    assert not any(scratch_folder.glob("*-*")), "scratch files are cleared away"


@pytest.mark.parametrize("step", steps(STEPS_OFF))
def test_killed_while_the_machine_is_off(
    machine: BareMachine,
    store: tuple[Path, KeyFile],
    platform: LibvirtPlatform,
    scratch_folder: Path,
    step: str,
) -> None:
    if machine.domain.isActive():
        machine.stop()
    pattern = 101 + list(STEPS_OFF).index(step)
    protected = Protected(platform, machine.name, Repository.open(LocalBackend(store[0]), store[1]))
    protected.back_up()
    machine.write_while_off(2 * MIB, MIB, pattern)
    back_up_and_be_killed(step, scratch_folder, store, machine.name)
    machine.write_while_off(4 * MIB, MIB, pattern)

    assert protected.back_up()["vda"] is None
    assert protected.content("vda")[2 * MIB : 3 * MIB] == bytes([pattern]) * MIB
    assert bitmaps_of(machine.disks["vda"]) == [protected.mark]
    assert not any(scratch_folder.glob("*-*"))
