"""What a real guest remembers outside of its disks: a UEFI variable, and something in its TPM."""

from lab import LabGuest

BOOT_SECONDS = 240
"""OVMF under software emulation, on a host that is busy."""
_GUID = "5d0b6a7e-2f0c-4b7e-9c55-0c8f3b0b1a11"
_NV_INDEX = 0x01500016
_OWNER = 0x40000001
_PASSWORD_SESSION = bytes.fromhex("00000009 40000009 0000 00 0000")
"""Empty authorization: TPM 2.0 Library, Part 1, "Password Authorizations"."""


def _tpm_command(guest: LabGuest, code: int, handles: tuple[int, ...], parameters: bytes) -> bytes:
    """Send one command with the owner's empty password, and give the parameters of the response."""
    body = b"".join(handle.to_bytes(4, "big") for handle in handles) + _PASSWORD_SESSION + parameters
    command = b"\x80\x02" + (10 + len(body)).to_bytes(4, "big") + code.to_bytes(4, "big") + body
    guest.write_file("/tmp/command", command)
    guest.exec("exec 3<>/dev/tpm0; cat /tmp/command >&3; dd bs=4096 count=1 <&3 >/tmp/response 2>/dev/null")
    response = guest.read_file("/tmp/response")
    assert response[6:10] == bytes(4), response.hex()
    return response[14:]


def remember_in_tpm(guest: LabGuest, secret: bytes) -> None:
    """TPM2_NV_DefineSpace, then as ``change_in_tpm``."""
    public = (
        _NV_INDEX.to_bytes(4, "big") + bytes.fromhex("000b 00020002 0000") + len(secret).to_bytes(2, "big")
    )
    _tpm_command(guest, 0x12A, (_OWNER,), bytes(2) + len(public).to_bytes(2, "big") + public)
    change_in_tpm(guest, secret)


def change_in_tpm(guest: LabGuest, secret: bytes) -> None:
    """TPM2_NV_Write; of the same length as before."""
    _tpm_command(guest, 0x137, (_OWNER, _NV_INDEX), len(secret).to_bytes(2, "big") + secret + bytes(2))


def recall_from_tpm(guest: LabGuest, size: int) -> bytes:
    """TPM2_NV_Read."""
    answer = _tpm_command(guest, 0x14E, (_OWNER, _NV_INDEX), size.to_bytes(2, "big") + bytes(2))
    return answer[2 : 2 + size]


def mount_variables(guest: LabGuest) -> None:
    """Make UEFI variables files of a folder, once per start of the guest."""
    guest.exec("insmod /modules/efivarfs.ko && mkdir -p /efi && mount -t efivarfs efivarfs /efi")


def remember_in_variable(guest: LabGuest, name: str, value: bytes) -> None:
    """Make a UEFI variable that lasts."""
    guest.write_file("/tmp/variable", b"\7\0\0\0" + value)
    # In one write, as the firmware takes it.
    guest.exec(f"dd if=/tmp/variable of=/efi/{name}-{_GUID} bs=64")


def recall_from_variable(guest: LabGuest, name: str) -> bytes:
    """Give its value."""
    content = guest.read_file(f"/efi/{name}-{_GUID}")
    assert content[:4] == b"\7\0\0\0"
    return content[4:]
