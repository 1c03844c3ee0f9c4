"""UEFI variables and a TPM's memory, of a real guest: backed up, copied, restored, and read again inside."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import DiskSpec, LabGuest, domain_name
from tests.cli.lab_program import program_for_libvirt
from tests.cli.program import Program
from tests.platforms.libvirt.firmware import (
    BOOT_SECONDS,
    mount_variables,
    recall_from_tpm,
    recall_from_variable,
    remember_in_tpm,
    remember_in_variable,
)

pytestmark = pytest.mark.lab

MIB = 1024 * 1024


@pytest.fixture
def program(tmp_path: Path, lab_host: None) -> Iterator[Program]:
    with program_for_libvirt(tmp_path) as program:
        yield program


@pytest.mark.timeout(600)
def test_variables_and_tpm_come_back(program: Program, tmp_path: Path) -> None:
    new_name = domain_name("state-again")
    with LabGuest.create("state", disks=[DiskSpec(size=64 * MIB)], uefi=True, tpm=True) as guest:
        guest.start().wait_ready(BOOT_SECONDS)
        mount_variables(guest)
        remember_in_variable(guest, "HotspareTest", b"remembered")
        remember_in_tpm(guest, b"sealed in the TPM")

        running = program.expect("backup", guest.name, "-o", "json").document()["results"][0]["point"]
        guest.destroy()
        off = program.expect("backup", guest.name, "-o", "json").document()["results"][0]["point"]

    # With the machine, libvirt has removed its variables and its TPM: all is from the repository from here.
    assert {one["name"] for one in running["state"]} == {"nvram", "tpm/tpm2-00.permall"}
    assert running["state"] == off["state"]
    assert not any(
        "TPM" in warning or "UEFI" in warning for warning in (*running["warnings"], *off["warnings"])
    )
    second = tmp_path / "second"
    program.expect("repo", "create", second)
    program.expect(
        "repo", "copy", "--to", second, HOTSPARE_TO_PASSPHRASE=program.environment["HOTSPARE_PASSPHRASE"]
    )
    shutil.rmtree(program.repository)
    program.environment["HOTSPARE_REPOSITORY"] = str(second)
    program.expect("point", "forget", off["id"], "--yes")
    program.expect("repo", "prune")
    program.expect("verify")
    try:
        program.expect("restore", running["id"], "--to", new_name, "--start")
        restored = LabGuest.attach(new_name)
        restored.wait_ready(BOOT_SECONDS)
        mount_variables(restored)
        assert recall_from_variable(restored, "HotspareTest") == b"remembered"
        assert recall_from_tpm(restored, 17) == b"sealed in the TPM"
    finally:
        LabGuest(new_name).remove()
