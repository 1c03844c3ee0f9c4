"""Real databases in real guests, backed up while they are written to: nothing acknowledged is lost."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt
import pytest

from hotspare.platforms.libvirt import quiesce
from lab import DiskSpec, LabGuest, domain_name
from lab.databases import SIZE, Server, database_disk
from tests.cli.lab_program import program_for_libvirt
from tests.cli.program import Program

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

MIB = 1024 * 1024
PATIENCE = 120.0


@pytest.fixture
def program(tmp_path: Path, lab_host: None) -> Iterator[Program]:
    with program_for_libvirt(tmp_path) as program:
        yield program


@contextmanager
def database_guest(server: Server, *load: str) -> Iterator[LabGuest]:
    """A guest whose database is being written to all the time."""
    disks = [DiskSpec(size=SIZE, content=database_disk(server)), DiskSpec(size=64 * MIB)]
    with LabGuest.create(server, disks=disks, memory=256 * MIB) as guest:
        start(guest)
        guest.exec(f"setsid /data/system/load {' '.join(load)} </dev/null >/run/load.log 2>&1 &")
        wait_for_acknowledgement(guest, 10)
        yield guest


def start(guest: LabGuest) -> None:
    guest.start().wait_ready()
    guest.exec("/data/system/start", timeout=PATIENCE)


def wait_for_acknowledgement(guest: LabGuest, number: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while guest.acked() < number:
        assert time.monotonic() < deadline, f"nothing is acknowledged any more:\n{guest.console[-1000:]}"
        time.sleep(0.1)


class Witness:
    """Notes what was acknowledged while the guest is frozen, after the snapshot was made."""

    def __init__(self, guest: LabGuest, monkeypatch: pytest.MonkeyPatch) -> None:
        self.acked = 0
        thaw = quiesce._thaw

        def look_then_thaw(domain: libvirt.virDomain) -> int | None:
            self.acked = guest.acked()
            return thaw(domain)

        monkeypatch.setattr(quiesce, "_thaw", look_then_thaw)


@contextmanager
def backed_up_and_restored(
    program: Program, guest: LabGuest, hook: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[LabGuest, int]]:
    """Back a guest up, see that its database goes on, and give it restored, with what has to be in there."""
    with monkeypatch.context() as patched:
        witness = Witness(guest, patched)
        words = ("--hook", f"{hook},timeout=2m", "--require-consistency", "-o", "json")
        (result,) = program.expect("backup", guest.name, *words).document()["results"]
    assert result["point"]["consistency"] == "application"
    assert result["point"]["warnings"] == []
    assert witness.acked >= 10
    wait_for_acknowledgement(guest, guest.acked() + 10)

    guest.destroy()
    name = domain_name(f"{hook}-restored")
    try:
        program.expect("restore", guest.name, "--to", name)
        restored = LabGuest.attach(name)
        start(restored)
        yield restored, witness.acked
    finally:
        LabGuest(name).remove()


def kill_while_it_is_held(program: Program, guest: LabGuest, hook: str) -> None:
    """Kill a backup as soon as the database is held; it must go on."""
    process = program.start("backup", guest.name, "--hook", f"{hook},timeout=2m")
    scratch = Path(program.environment["HOTSPARE_SCRATCH_FOLDER"])
    deadline = time.monotonic() + PATIENCE
    while not list(scratch.glob("*/frozen")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    held = guest.acked()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for_acknowledgement(guest, held + 15)


def test_postgresql_comes_back_with_all_that_it_acknowledged(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        database_guest("postgresql", "/data2") as guest,
        backed_up_and_restored(program, guest, "postgresql", monkeypatch) as (restored, acked),
    ):

        def ask(query: str) -> str:
            return restored.exec(f'su -s /bin/sh postgres -c "psql -h /run/postgresql -XAtc \\"{query}\\""')

        count, newest = map(int, ask("SELECT count(*), max(n) FROM one").split("|"))
        halves = ask("SELECT count(*) FROM one FULL JOIN two USING (n) WHERE one.n IS NULL OR two.n IS NULL")
        log = restored.exec("cat /run/postgresql.log")

        assert newest >= acked
        assert count == newest
        assert halves == "0"
        assert ask("SELECT count(*) FROM two WHERE filler = repeat('y', 500)") == str(count)
        assert not any(word in log for word in ("PANIC", "FATAL:  could not", "corrupt", "invalid page"))


def test_mariadb_comes_back_with_all_that_it_acknowledged(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        database_guest("mariadb") as guest,
        backed_up_and_restored(program, guest, "mariadb", monkeypatch) as (restored, acked),
    ):

        def ask(query: str) -> str:
            return restored.exec(f'mariadb -BN lab -e "{query}"')

        count, newest = map(int, ask("SELECT COUNT(*), MAX(n) FROM one").split())
        halves = ask("SELECT COUNT(*) FROM one LEFT JOIN two USING (n) WHERE two.n IS NULL")
        plain = int(ask("SELECT COUNT(*) FROM plain"))

        assert newest >= acked
        assert count == newest == int(ask("SELECT COUNT(*) FROM two"))
        assert halves == "0"
        # Its row comes after the transaction: at most the last one can be missing.
        assert plain in {count, count - 1}
        assert plain >= acked
        checked = ask("CHECK TABLE one, two, plain EXTENDED").splitlines()
        assert [line.split("\t")[2:] for line in checked] == [["status", "OK"]] * 3


@pytest.mark.soak  # any hook of a killed run: tests/platforms/libvirt/test_hooks.py
def test_a_database_that_a_killed_backup_held_goes_on(program: Program) -> None:
    with database_guest("mariadb") as guest:
        kill_while_it_is_held(program, guest, "mariadb")
