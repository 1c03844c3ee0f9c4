"""Accidents to a machine that runs from a repository: nothing that it wrote is lost, and it goes on.

One machine writes numbered records all the time; each test leaves it so. The table is in
docs/instant-recovery.md.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from tests.cli.recovered import Recovered, Site, site_of_guest, wait_until

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def site(lab_host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_of_guest(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(scope="module")
def shared(site: Site) -> Iterator[list[Recovered]]:
    running: list[Recovered] = []
    yield running
    for one in running:
        site.program.run("recover", "undo", one.guest.name, "--yes")
        one.guest.remove()


@pytest.fixture
def machine(site: Site, shared: list[Recovered]) -> Recovered:
    """One that runs from the repository, and writes."""
    if not shared:
        shared.append(site.recover("upon", "--keep-running-from-backup"))
        write(shared[0])
    return shared[0]


def write(machine: Recovered) -> None:
    machine.guest.start_workload()
    wait_until(lambda: machine.guest.acked() > 0, "writing")


def is_paused(machine: Recovered) -> bool:
    return bool(machine.guest.domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED)


def resume(machine: Recovered) -> None:
    machine.site.expect("recover", "resume", machine.guest.name)


def test_the_repository_goes_away_and_comes_back(machine: Recovered) -> None:
    repository = machine.site.program.repository
    away = repository.with_name("away")
    repository.rename(away)
    try:
        machine.read_all()
        wait_until(lambda: is_paused(machine), "paused")
        acked = machine.guest.acked()
    finally:
        away.rename(repository)
    wait_until(lambda: not is_paused(machine), "awake")
    machine.expect_read()
    machine.expect_going_on()
    machine.expect_records(acked)


def test_the_server_is_killed(machine: Recovered) -> None:
    machine.read_all()
    serving = machine.keeper_pids()[0]
    os.kill(serving, signal.SIGKILL)
    acked = machine.guest.acked()
    wait_until(lambda: machine.keeper_pids()[0] != serving, "served again")
    machine.expect_read()
    machine.expect_going_on()
    machine.expect_records(acked)


@pytest.mark.soak
def test_the_server_and_who_watches_it_are_killed(machine: Recovered) -> None:
    machine.read_all()
    machine.kill_keeper()
    wait_until(lambda: is_paused(machine), "paused")
    acked = machine.guest.acked()
    (listed,) = machine.site.program.expect("recover", "list", "-o", "json").document()["recoveries"]
    assert (listed["machine"], listed["kept"]) == (machine.guest.name, False)
    resume(machine)
    machine.expect_read()
    machine.expect_going_on()
    machine.expect_records(acked)


def test_qemu_is_killed(machine: Recovered) -> None:
    machine.guest.kill()
    acked = machine.guest.acked()
    wait_until(lambda: machine.guest.running, "started again")
    machine.guest.wait_ready()
    machine.expect_records(acked)
    write(machine)
    machine.expect_going_on()


def test_the_host_is_restarted(machine: Recovered) -> None:
    """All that is ours and QEMU are gone at once; the page cache is not, which no test here can take away."""
    machine.kill_keeper()
    machine.guest.kill()
    acked = machine.guest.acked()
    resume(machine)
    machine.guest.wait_ready()
    machine.expect_records(acked)
    write(machine)
    machine.expect_going_on()


def test_the_command_is_killed_that_moves(machine: Recovered, shared: list[Recovered]) -> None:
    program, name = machine.site.program, machine.guest.name
    command = program.start("recover", "move", name, "--limit", "20MiB/s")
    recoveries = machine.site.recoveries
    wait_until(lambda: bool((status := recoveries.status(name)) and sum(status.moved.values())), "moving")
    command.kill()
    command.communicate()
    wait_until(lambda: recoveries.read(name) is None, "moved")
    shared.clear()
    try:
        program.repository.rename(program.folder / "away")
        machine.read_all()
        machine.expect_read()
        machine.expect_going_on()
        acked = machine.guest.acked()
        assert "nbd" not in machine.guest.domain.XMLDesc(0)
        machine.guest.shutdown()
        machine.expect_as_written(acked)
        assert not [word for word in ("error_policy", "urn:hotspare") if word in machine.guest.xml]
    finally:
        (program.folder / "away").rename(program.repository)
        machine.guest.remove()
    assert not Path(recoveries.folder, f"{name}.status").exists()
    assert program.expect("point", "show", machine.site.source, "-o", "json").document()
