"""Leftovers of dead runs go; machines of living ones stay."""

import subprocess

import pytest

from lab import LabGuest, connection, naming, sweep


@pytest.mark.lab
def test_sweep_removes_the_machines_of_dead_processes_only(
    lab_host: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    with LabGuest.create("alive") as alive:
        with monkeypatch.context() as patch:
            patch.setattr("lab.naming.os.getpid", lambda: dead.pid)
            left = LabGuest.create("left").start()
        assert left.name in sweep()
        assert left.name not in [domain.name() for domain in connection().listAllDomains()]
        assert alive.disks["vda"].exists()


@pytest.mark.parametrize(
    "name", ["web-1", "hotspare-lab-web", "hotspare-lab-web-1", "my-hotspare-lab-x-999999999"]
)
def test_other_machines_are_no_leftovers(name: str) -> None:
    assert not naming.is_leftover(name)


def test_a_machine_of_a_process_that_is_gone_is_a_leftover() -> None:
    assert naming.is_leftover("hotspare-lab-web-db-999999999")
