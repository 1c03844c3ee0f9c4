"""``recover`` with real machines: planned, listed, thrown away, several at once, and from remote stores."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import LabGuest, connection, domain_name
from tests.cli.recovered import Recovered, Site, site_of_guest
from tests.cli.test_json_output import differences, examples, shape
from tests.storage.conftest import any_sshd, seaweed, sshd
from tests.storage.servers import Seaweed, Sshd

__all__ = ["any_sshd", "seaweed", "sshd"]

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def site(lab_host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_of_guest(tmp_path_factory.mktemp("site")) as made:
        yield made


def expect_documented(printed: dict[str, Any]) -> dict[str, Any]:
    assert differences(shape(examples()[printed["type"]]), shape(printed), printed["type"]) == []
    return printed


def names_there() -> set[str]:
    """Give the machines of this process; other tests have theirs on the same libvirt."""
    names = (domain.name() for domain in connection().listAllDomains())
    return {name for name in names if name.endswith(f"-{os.getpid()}")}


def test_planned_started_listed_and_thrown_away(site: Site) -> None:
    name, program = domain_name("thrown"), site.program
    words = site.words(name, "-o", "json")
    plan = expect_documented(program.expect(*words, "--dry-run").document())["plan"]
    assert ([disk["format"] for disk in plan["disks"]], name in names_there()) == (["qcow2"], False)
    done = expect_documented(program.expect(*words, "--background").document())
    assert (done["moved"], done["machine"]["state"]) == (False, "running")
    (listed,) = expect_documented(program.expect("recover", "list", "-o", "json").document())["recoveries"]
    assert (listed["machine"], listed["stage"], listed["kept"]) == (name, "moving", True)
    forget = program.run("point", "forget", site.source, "--yes", "-o", "json")
    assert forget.error()["code"] == "point-kept"
    taken = program.run(*words)
    assert (taken.status, taken.error()["code"]) == (26, "target-exists")
    asked = program.run("recover", "undo", name)
    assert (asked.status, name in names_there()) == (2, True)

    expect_documented(program.expect("recover", "undo", name, "--yes", "-o", "json").document())

    assert name not in names_there()
    assert list(site.disks.glob(f"*{name}*")) == []
    assert program.expect("recover", "list", "-o", "json").document()["recoveries"] == []
    assert list(site.recoveries.folder.glob("*.json")) == []
    assert list((program.repository / "kept").glob("*")) == []
    nothing = program.run("recover", "undo", name, "--yes")
    assert (nothing.status, "No machine" in nothing.err) == (2, True)


def test_what_fails_leaves_nothing(site: Site) -> None:
    name, program = domain_name("failing"), site.program
    before = names_there()
    refused = program.run(*site.words(name, "--map-network", "no=such"), HOTSPARE_INSTANT_CACHE="none")
    assert refused.status == 2
    program.repository.joinpath("data").rename(program.folder / "data-away")
    try:
        # The record and overlays are made, but what the guest boots with cannot be read.
        away = program.run_process(*site.words(name), HOTSPARE_SCRATCH_FOLDER="/proc/no")
    finally:
        (program.folder / "data-away").rename(program.repository / "data")
    assert away.status != 0
    assert names_there() == before
    assert list(site.disks.glob(f"*{name}*")) == []
    assert program.expect("recover", "list", "-o", "json").document()["recoveries"] == []
    assert list((program.repository / "kept").glob("*")) == []


def test_several_machines_in_order(site: Site, tmp_path: Path) -> None:
    names = [domain_name("first"), domain_name("second")]
    plan = tmp_path / "site.toml"
    plan.write_text(
        "".join(
            f'[[machine]]\npoint = "{site.source}"\nto = "{name}"\nfolder = "{site.disks}"\n'
            f'wait = "{wait}"\nstay = true\n'
            for name, wait in zip(names, ("start", "agent"), strict=True)
        )
    )
    program = site.program
    steps = expect_documented(program.expect("recover", "--plan", plan, "--dry-run", "-o", "json").document())
    assert [step["plan"]["name"] for step in steps["steps"]] == names
    try:
        results = expect_documented(site.expect("recover", "--plan", plan))["results"]
        assert [(one["machine"], one["error"], one["moved"]) for one in results] == [
            (name, None, False) for name in names
        ]
        assert results[1]["seconds_to_answer"] > 0
        assert LabGuest.attach(names[1]).sha256("/data/file") == site.digest
    finally:
        for name in names:
            program.run("recover", "undo", name, "--yes")
    assert not names_there() & set(names)


@pytest.mark.parametrize("kind", ["s3", pytest.param("sftp", marks=pytest.mark.soak)])
def test_from_a_remote_store(site: Site, kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    program = site.program
    if kind == "sftp":
        server: Sshd = request.getfixturevalue("sshd")
        url, environment = server.url(tmp_path / "remote"), {"HOME": str(server.home)}
    else:
        bucket: Seaweed = request.getfixturevalue("seaweed")
        url, environment = bucket.url(f"plain/{tmp_path.name}"), dict(bucket.environment)
    former = dict(program.environment)
    program.environment |= environment
    try:
        program.expect("repo", "create", url, "--like", program.repository, **_to(program.environment))
        program.expect("repo", "copy", "--to", url, **_to(program.environment))
        program.environment["HOTSPARE_REPOSITORY"] = url
        machine: Recovered = site.recover(kind)
        try:
            machine.guest.wait_ready()
            machine.guest.start_workload()
            assert machine.guest.sha256("/data/file") == site.digest
            acked = machine.guest.acked()
            machine.guest.shutdown()
            machine.expect_as_written(acked)
        finally:
            machine.guest.remove()
    finally:
        program.environment.clear()
        program.environment.update(former)


def _to(environment: dict[str, str]) -> dict[str, str]:
    return {"HOTSPARE_TO_PASSPHRASE": environment["HOTSPARE_PASSPHRASE"]}
