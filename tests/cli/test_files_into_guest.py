"""Files written into a running machine through its agent, of a restore point of the same machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.units import MIB
from lab.guest import LabGuest
from tests.cli.boot_machines import machine_that_is_off
from tests.cli.lab_program import program_for_libvirt
from tests.cli.program import Program

pytestmark = pytest.mark.lab


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with program_for_libvirt(tmp_path) as program:
        yield program


def test_files_come_back_into_a_running_guest(guest: LabGuest, program: Program) -> None:
    guest.exec("mkdir -p /data/conf/sub && cd /data/conf && echo one > a && echo two > sub/b && ln a again")
    guest.exec("cd /data/conf && ln -s /etc/passwd link && chown 12:34 a && chmod 4750 a && chmod 711 sub")
    guest.exec("cd /data/conf && touch -d @1700000000 a && touch -d @1600000000 sub")
    guest.exec("dd if=/dev/zero of=/data/conf/sparse bs=1 count=1 seek=4194303 2>/dev/null")
    digest = guest.write_random("/data/conf/random", 3 * MIB)
    guest.exec("sync")
    program.expect("backup", guest.name)
    words = ("files", "restore", guest.name, "vda:/conf", "--into-guest")

    refused = program.run(*words, "--to", "/data")
    assert (refused.status, "/data/conf exists" in refused.err) == (26, True)
    unknown = program.run(*words)
    assert unknown.status == 2

    guest.exec("rm -r /data/conf && ln -s / /data/trap")
    done = program.expect(*words, "--to", "/data", "-o", "json").document()
    assert (done["entries"], done["failed"], done["problems"]) == (8, 0, [])
    assert guest.exec("cat /data/conf/a /data/conf/sub/b").split() == ["one", "two"]
    assert guest.sha256("/data/conf/random") == digest
    assert guest.exec("stat -c '%u:%g %a %Y %h' /data/conf/a") == "12:34 4750 1700000000 2"
    assert guest.exec("stat -c '%a %Y' /data/conf/sub") == "711 1600000000"
    assert guest.exec("readlink /data/conf/link") == "/etc/passwd"
    assert guest.exec("stat -c %s /data/conf/sparse") == str(4 * MIB)
    assert int(guest.exec("stat -c %b /data/conf/sparse")) < 1000
    assert guest.exec("ls -A /data/conf | grep hotspare || true") == ""

    guest.exec("echo changed > /data/conf/a")
    again = program.expect(*words, "--to", "/data", "--overwrite", "-o", "json").document()
    assert (again["entries"], again["failed"]) == (8, 0)
    assert guest.exec("cat /data/conf/a") == "one"


def test_a_guest_whose_agent_does_not_answer(lab_host: None, program: Program) -> None:
    with machine_that_is_off("silent", "echo one") as guest:
        program.expect("backup", guest.name)
        words = ("files", "restore", guest.name, "vda:/at-boot", "--into-guest", "--to", "/data/new")
        refused = program.run(*words)
    assert refused.status == 20
    assert "guest agent" in refused.err
