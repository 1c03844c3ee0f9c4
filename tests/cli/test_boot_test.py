"""Real restore points started for a trial: what passes, what does not, and what is left behind."""

import hashlib
import json
import os
import signal
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import libvirt
import pytest

from hotspare.platforms.libvirt.definition import NewState
from hotspare.platforms.libvirt.scratch import RunFolder, ScratchOwner
from hotspare.platforms.libvirt.trial import TRIAL_PREFIX
from hotspare.platforms.libvirt.trial_definition import TrialParts, trial_definition
from hotspare.platforms.platform import Machine, PowerState
from hotspare.restore.boot_test import run
from lab import DiskSpec, LabGuest, connection
from lab.databases import SIZE, database_disk
from tests.cli.boot_machines import (
    APPLICATION,
    DATABASE,
    FILL,
    MIB,
    WITHOUT_AGENT,
    empty_image,
    machine_that_is_off,
    machine_that_panics,
)
from tests.cli.lab_program import program_for_libvirt
from tests.cli.program import Program
from tests.cli.test_json_output import differences, examples, shape

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
PATIENCE = 90.0


def try_out(program: Program, *words: str | Path, status: int = 0) -> list[dict[str, Any]]:
    done = program.run("verify", "--boot", *words, "-o", "json")
    assert done.status == status, done.err
    document = done.document()
    assert differences(shape(examples()["boot-tests"]), shape(document), "boot-tests") == []
    results: list[dict[str, Any]] = document["results"]
    return results


def scratch_of(program: Program) -> Path:
    return Path(program.environment["HOTSPARE_SCRATCH_FOLDER"])


def left_behind(program: Program) -> list[str]:
    """Names of the folders of runs that are there."""
    return [path.name for path in scratch_of(program).iterdir() if path.name != ".lock"]


def outcomes(result: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["outcome"] for check in result["boot"]["checks"]}


def seen(result: dict[str, Any], name: str) -> dict[str, Any]:
    """The account of one check."""
    (found,) = (check for check in result["boot"]["checks"] if check["name"] == name)
    return dict(found)


def trials() -> list[str]:
    return [
        domain.name() for domain in connection().listAllDomains() if domain.name().startswith(TRIAL_PREFIX)
    ]


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def program(lab_host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with program_for_libvirt(tmp_path_factory.mktemp("boot")) as program:
        yield program


@pytest.fixture(scope="module")
def app(program: Program) -> Iterator[LabGuest]:
    """A machine that is off, and has a restore point."""
    with machine_that_is_off("booted-app", APPLICATION, network=True) as guest:
        program.expect("backup", guest.name)
        program.expect("machine", "check", guest.name, "add", "guest:database,timeout=20s")
        yield guest


@pytest.fixture(scope="module")
def database(program: Program) -> Iterator[LabGuest]:
    """A machine that runs, and has a restore point in which a database starts by itself."""
    disks = [DiskSpec(size=SIZE, content=database_disk("postgresql"))]
    with LabGuest.create("booted", disks=disks, memory=256 * MIB, network=True) as guest:
        guest.start().wait_ready()
        guest.write_file("/data/at-boot", DATABASE.encode())
        guest.exec(FILL, timeout=200)
        program.expect("backup", guest.name)
        wanted = ("postgresql,timeout=4m,sql=SELECT n > 6 FROM orders", "tcp:5432,timeout=4m")
        program.expect("machine", "check", guest.name, "add", *wanted)
        guest.start_workload("/data/journal")
        yield guest


def test_a_database_and_its_application_pass_beside_the_running_original(
    program: Program, database: LabGuest, app: LabGuest
) -> None:
    boots = database.exec("cat /proc/sys/kernel/random/boot_id")
    acked = database.acked()
    image = hashlib.sha256(app.disks["vda"].read_bytes()).hexdigest()
    pictures = program.folder / "pictures"

    first, second = try_out(
        program, *("--together", database.name, app.name, "--screenshots", pictures, "--memory", "224MiB")
    )

    assert first["boot"]["life"] == second["boot"]["life"] == "agent"
    assert outcomes(first) == dict.fromkeys(("agent", "heartbeat", "postgresql", "tcp:5432"), "passed")
    assert seen(first, "postgresql")["output"] == "t\n"
    assert seen(second, "guest:database")["output"] == "the database answers 192.168.77.6\n"
    assert first["boot"]["together"] == [first["point"], second["point"]]
    width, height = struct.unpack_from(">II", (pictures / f"{first['point']}.png").read_bytes(), 16)
    assert width >= 640
    assert height >= 400
    # The original was there all the while, and nothing of it was touched.
    assert database.exec("cat /proc/sys/kernel/random/boot_id") == boots
    wait_for(lambda: database.acked() > acked)
    assert hashlib.sha256(app.disks["vda"].read_bytes()).hexdigest() == image
    assert trials() == []
    assert left_behind(program) == []

    shown = program.expect("point", "show", first["point"], "-o", "json").document()["point"]
    assert shown["boot"] == first["boot"]
    listed = program.expect("machine", "list", "-o", "json").document()["machines"]
    mine = {line["name"]: line for line in listed if line["boots"] is not None}
    assert [mine[name]["boots"] for name in (database.name, app.name)] == [True, True]


@pytest.mark.soak
def test_what_fails_is_told_and_two_at_once_do_not_meet(
    program: Program, database: LabGuest, app: LabGuest
) -> None:
    scripts = program.folder / "checks"
    scripts.mkdir(exist_ok=True)
    (scripts / "disk").write_text("#!/bin/sh\necho the disk is nearly full\nexit 4\n")
    other = program.start("verify", "--boot", app.name, "-o", "json")
    try:
        wait_for(trials)
        done = program.run(
            *("verify", "--boot", database.name, "-o", "json", "--check", "guest:clock"),
            *("--check", "host:disk", "--check", "tcp:81,timeout=2s", "--check", "guest:nowhere"),
            HOTSPARE_CHECKS_FOLDER=str(scripts),
        )
        out, _ = other.communicate(timeout=2 * PATIENCE)
    finally:
        other.kill()
        other.communicate()

    assert done.status == 32
    assert done.error()["code"] == "boot-test-failed"
    (result,) = done.document()["results"]
    assert not result["boot"]["passed"]
    assert seen(result, "guest:clock")["detail"] == "exit status 3: it is the wrong time"
    assert seen(result, "host:disk")["output"] == "the disk is nearly full\n"
    assert seen(result, "tcp:81")["detail"] == "port 81: 192.168.77.5 refuses"
    assert outcomes(result)["guest:nowhere"] == "failed"
    assert outcomes(result)["postgresql"] == outcomes(result)["tcp:5432"] == "passed"
    # The database was up beside it, in a network of its own.
    (lonely,) = json.loads(out)["results"]
    assert seen(lonely, "guest:database")["detail"].endswith("the database cannot be reached")
    assert left_behind(program) == []


def test_machines_without_an_agent_and_points_that_do_not_boot(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SETTLED_SECONDS", 4.0)
    monkeypatch.setattr(run, "RESTARTS_MAX", 1)
    with (
        machine_that_is_off("booted-silent", WITHOUT_AGENT) as working,
        machine_that_panics("booted-panics") as breaking,
    ):
        watch(program, working.name, breaking.name)
        program.expect("backup", working.name, breaking.name)
        program.expect("backup", "--image", empty_image(tmp_path / "empty.raw"), "--name", "empty")
        patient = ("--boot-timeout", "8m")
        silent, panicking = try_out(program, working.name, breaking.name, *patient, status=32)
        (empty,) = try_out(program, "empty", "--memory", "64MiB", "--boot-timeout", "5s", status=32)

        assert (silent["boot"]["passed"], silent["boot"]["life"]) == (True, "activity")
        assert outcomes(silent) == {"heartbeat": "passed"}
        assert panicking["boot"]["problem"].endswith("powered itself off each time it was started (2)")
        assert "Kernel panic" in panicking["boot"]["console"]
        assert outcomes(panicking) == {"heartbeat": "not-done"}
        assert empty["boot"]["problem"].startswith("it gave no sign of life within 5.00 s")
        shown = program.expect("point", "show", working.name).out
        assert "boots, as far as can be seen from outside" in shown

        told = program.expect("notice", "log", "-o", "json").document()["notices"]
        assert {one["machine"] for one in told} == {breaking.name, "empty"}
        looked = program.run("watchdog", "--once", "-o", "json")
        assert looked.status == 38
        stands = {one["machine"]: (one["state"], one["trial"]) for one in looked.document()["machines"]}
        assert stands == {working.name: ("met", "fresh"), breaking.name: ("met", "failed")}


def watch(program: Program, *machines: str) -> None:
    """Have people told of trials that are not passed, and a policy promise such trials."""
    folder = program.folder / "policies"
    folder.mkdir()
    (folder / "notices.yaml").write_text(
        "team:\n  url_variable: TEAM\n  delivery: digest\n  match:\n    events: [restore-test-failed]\n"
    )
    (folder / "tried.yaml").write_text(
        f"select:\n  names: [{', '.join(machines)}]\nschedule:\n  rpo: 26h\n  tested_within: 30d\n"
    )


def test_what_a_killed_trial_left_is_swept(program: Program, app: LabGuest) -> None:
    process = program.start("verify", "--boot", app.name)
    wait_for(trials)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: trials() == [])  # libvirt ends what belongs to a connection that is gone
    (folder,) = left_behind(program)
    # And one that libvirt has not ended.
    with left_running(scratch_of(program)) as name:
        found = program.expect("sweep", "--dry-run", "-o", "json").document()["found"]
        assert sorted((one["kind"], Path(one["detail"]).name == folder) for one in found) == [
            ("run-folder", False),
            ("run-folder", True),
            ("trial", False),
        ]
        assert trials() == [name]
        listed = program.expect("machine", "list", "-o", "json").document()["machines"]
        assert name not in {line["name"] for line in listed}
        assert all(one["removed"] for one in program.expect("sweep", "-o", "json").document()["found"])
        assert trials() == []
        assert left_behind(program) == []


@contextmanager
def left_running(scratch: Path) -> Iterator[str]:
    """Leave a trial behind, as a killed run does whose libvirt was killed as well."""
    identity = str(uuid.uuid4())
    name = f"{TRIAL_PREFIX}left-{os.getpid()}"
    owner = ScratchOwner(
        uri="qemu:///system",
        domain=identity,
        name=name,
        repository_id="r",
        point_id="20261126-left",
        pid=1,
        trial=True,
    )
    folder = RunFolder.create(scratch, owner, None)
    machine = Machine(id="m", name="left", platform="qemu:///system", state=PowerState.OFF, memory=64 * MIB)
    parts = TrialParts(name, identity, folder.path, {}, NewState(), None)
    domain = connection().createXML(trial_definition(machine, parts, kvm_works=lambda: False), 0)
    folder.leave()
    try:
        yield name
    finally:
        with suppress(libvirt.libvirtError):
            domain.destroy()
