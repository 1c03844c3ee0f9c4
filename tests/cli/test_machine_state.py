"""UEFI variables and a TPM's memory, of a real guest: backed up, copied, restored, and read again inside."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import DiskSpec, LabGuest, domain_name
from tests.cli.lab_program import program_for_libvirt
from tests.cli.program import Program

pytestmark = pytest.mark.lab

MIB = 1024 * 1024
BOOT_SECONDS = 240
"""OVMF under software emulation, on a host that is busy."""
VARIABLE = "/efi/HotspareTest-5d0b6a7e-2f0c-4b7e-9c55-0c8f3b0b1a11"
NV_INDEX = 0x01500016
OWNER = 0x40000001
PASSWORD_SESSION = bytes.fromhex("00000009 40000009 0000 00 0000")
"""Empty authorization: TPM 2.0 Library, Part 1, "Password Authorizations"."""


@pytest.fixture
def program(tmp_path: Path, lab_host: None) -> Iterator[Program]:
    with program_for_libvirt(tmp_path) as program:
        yield program


def tpm_command(guest: LabGuest, code: int, handles: tuple[int, ...], parameters: bytes) -> bytes:
    """Send one command with the owner's empty password, and give the parameters of the response."""
    body = b"".join(handle.to_bytes(4, "big") for handle in handles) + PASSWORD_SESSION + parameters
    command = b"\x80\x02" + (10 + len(body)).to_bytes(4, "big") + code.to_bytes(4, "big") + body
    guest.write_file("/tmp/command", command)
    guest.exec("exec 3<>/dev/tpm0; cat /tmp/command >&3; dd bs=4096 count=1 <&3 >/tmp/response 2>/dev/null")
    response = guest.read_file("/tmp/response")
    assert response[6:10] == bytes(4), response.hex()
    return response[14:]


def remember_in_tpm(guest: LabGuest, secret: bytes) -> None:
    """TPM2_NV_DefineSpace and TPM2_NV_Write."""
    public = (
        NV_INDEX.to_bytes(4, "big") + bytes.fromhex("000b 00020002 0000") + len(secret).to_bytes(2, "big")
    )
    tpm_command(guest, 0x12A, (OWNER,), bytes(2) + len(public).to_bytes(2, "big") + public)
    tpm_command(guest, 0x137, (OWNER, NV_INDEX), len(secret).to_bytes(2, "big") + secret + bytes(2))


def recall_from_tpm(guest: LabGuest, size: int) -> bytes:
    """TPM2_NV_Read."""
    answer = tpm_command(guest, 0x14E, (OWNER, NV_INDEX), size.to_bytes(2, "big") + bytes(2))
    return answer[2 : 2 + size]


def mount_variables(guest: LabGuest) -> None:
    guest.exec("insmod /modules/efivarfs.ko && mkdir -p /efi && mount -t efivarfs efivarfs /efi")


@pytest.mark.timeout(600)
def test_variables_and_tpm_come_back(program: Program, tmp_path: Path) -> None:
    new_name = domain_name("state-again")
    with LabGuest.create("state", disks=[DiskSpec(size=64 * MIB)], uefi=True, tpm=True) as guest:
        guest.start().wait_ready(BOOT_SECONDS)
        mount_variables(guest)
        guest.write_file("/tmp/variable", b"\7\0\0\0remembered")
        guest.exec(f"dd if=/tmp/variable of={VARIABLE} bs=64")  # in one write, as the firmware takes it
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
        assert restored.read_file(VARIABLE) == b"\7\0\0\0remembered"
        assert recall_from_tpm(restored, 17) == b"sealed in the TPM"
    finally:
        LabGuest(new_name).remove()
