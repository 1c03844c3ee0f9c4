"""Hooks and checks that are noted down on a machine with ``machine hook`` and ``machine check``."""

from pathlib import Path

import pytest

from lab import DiskSpec, LabGuest
from tests.cli.program import Program

pytestmark = pytest.mark.lab

MIB = 1024 * 1024


def test_hooks_stay_with_the_machine_in_their_order(program: Program, lab_host: None, tmp_path: Path) -> None:
    program.environment["HOTSPARE_PLATFORM"] = "qemu:///system"
    with LabGuest.create("hooks", disks=[DiskSpec(size=8 * MIB)]) as guest:

        def change(*words: str) -> list[str]:
            done = program.expect("machine", "hook", guest.name, *words, "-o", "json")
            hooks: list[str] = done.document()["machine"]["hooks"]
            return hooks

        assert change("add", "postgresql", "guest:erp,on-failure=fail") == [
            "postgresql",
            "guest:erp,on-failure=fail",
        ]
        assert change("add", "mariadb", "postgresql,timeout=2m") == [
            "postgresql,timeout=2m",
            "guest:erp,on-failure=fail",
            "mariadb",
        ]
        program.expect("machine", "tag", guest.name, "add", "prod")
        assert change("remove", "guest:erp", "oracle") == ["postgresql,timeout=2m", "mariadb"]
        assert "postgresql,timeout=2m; mariadb" in program.expect("machine", "show", guest.name).out
        refused = program.run("machine", "hook", guest.name, "add", "oracle")
        assert refused.status == 2
        assert "no hook 'oracle'" in refused.err
        assert change("remove", "postgresql", "mariadb") == []


def test_checks_of_boot_tests_stay_with_the_machine_too(program: Program, lab_host: None) -> None:
    program.environment["HOTSPARE_PLATFORM"] = "qemu:///system"
    with LabGuest.create("checks", disks=[DiskSpec(size=8 * MIB)]) as guest:

        def change(*words: str) -> list[str]:
            done = program.expect("machine", "check", guest.name, *words, "-o", "json")
            checks: list[str] = done.document()["machine"]["checks"]
            return checks

        assert change("add", "tcp:80", "postgresql,sql=SELECT 1, 2") == [
            "tcp:80",
            "postgresql,sql=SELECT 1, 2",
        ]
        program.expect("machine", "hook", guest.name, "add", "postgresql")
        assert change("add", "tcp:80,timeout=2m") == ["tcp:80,timeout=2m", "postgresql,sql=SELECT 1, 2"]
        assert change("remove", "postgresql") == ["tcp:80,timeout=2m"]
        refused = program.run("machine", "check", guest.name, "add", "http:80")
        assert (refused.status, "no check 'http:80'" in refused.err) == (2, True)
        assert "tcp:80,timeout=2m" in program.expect("machine", "show", guest.name).out


def test_a_hook_that_there_is_not_is_refused_before_anything_is_done(program: Program) -> None:
    program.expect("repo", "create")

    refused = program.run("backup", "web", "--hook", "oracle")

    assert refused.status == 2
    assert "no hook 'oracle'" in refused.err
