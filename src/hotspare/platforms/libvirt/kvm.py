"""Whether KVM works here. That /dev/kvm can be opened does not tell: nested, it may be unbearably slow.

On such hosts each step of a copy in memory is emulated, so that Linux does not even get itself unpacked. So a
copy like that is tried: KVM does it in milliseconds where it works, and QEMU's own emulation in tens of them.
That it does not work takes seconds to find out, and is noted for other processes.
"""

import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from hotspare.platforms.libvirt.runtime import runtime_folder

_DEVICE = Path("/dev/kvm")
_SECONDS = 5.0
_NOTED_SECONDS = 3600.0
"""So long is a problem believed that another process has found."""
_SECTOR = 512
_EXIT_PORT = 0xF4
_EXIT_VALUE = 0x10
# QEMU's isa-debug-exit device ends it with twice the value plus one.
_EXIT_STATUS = _EXIT_VALUE << 1 | 1
_ORIGIN = 0x7C00
"""Where the BIOS loads the sector."""


def _program() -> bytes:
    """Assemble: enter protected mode, copy 8 MiB backwards, and end QEMU."""
    real_mode = 23
    protected = _ORIGIN + real_mode
    code = bytes.fromhex("fa 31c0 8ed8 0f0116")  # cli; xor ax, ax; mov ds, ax; lgdt [...]
    table = _ORIGIN + 64
    code += (table + 24).to_bytes(2, "little")
    code += bytes.fromhex("0f20c0 0c01 0f22c0 ea")  # mov eax, cr0; or al, 1; mov cr0, eax; jmp 8:...
    code += protected.to_bytes(2, "little") + bytes.fromhex("0800")
    code += bytes.fromhex("66b81000 8ed8 8ec0 fd")  # mov ax, 16; mov ds, ax; mov es, ax; std
    code += b"\xbe" + (0x9FFFFC).to_bytes(4, "little")  # mov esi, ...
    code += b"\xbf" + (0x11FFFFC).to_bytes(4, "little")  # mov edi, ...
    code += b"\xb9" + (0x200000).to_bytes(4, "little")  # mov ecx, ...
    code += bytes.fromhex("f3a5 fc")  # rep movsd; cld
    code += bytes([0xB0, _EXIT_VALUE, 0xE6, _EXIT_PORT, 0xF4])  # mov al, value; out port, al; hlt
    # The descriptor table: none, 4 GiB of code, 4 GiB of data; then its own size and place.
    descriptors = bytes(8) + bytes.fromhex("ffff0000009acf00 ffff00000092cf00")
    return code.ljust(64, b"\0") + descriptors + (23).to_bytes(2, "little") + table.to_bytes(4, "little")


@cache
def kvm_problem() -> str | None:
    """Say why KVM does not work here, as was found within the last hour; None when it works."""
    with suppress(OSError):
        if 0 <= time.time() - _note().stat().st_mtime < _NOTED_SECONDS:
            return _note().read_text(encoding="utf-8") or look_at_kvm()
    return look_at_kvm()


def look_at_kvm() -> str | None:
    """Boot a machine of one sector under KVM, and say what is wrong; None when it works.

    What took long to find out is noted. All else may be mended at any moment, and is found at once.
    """
    began = time.monotonic()
    problem = boot_problem("kvm") if _DEVICE.exists() else f"there is no {_DEVICE}"
    with suppress(OSError):  # then the next process looks for itself
        if problem is not None and time.monotonic() - began >= _SECONDS:
            _note().parent.mkdir(parents=True, exist_ok=True)
            _note().write_text(problem, encoding="utf-8")
        else:
            _note().unlink(missing_ok=True)
    return problem


def _note() -> Path:
    return runtime_folder() / "kvm-problem"


def boot_problem(accelerator: str) -> str | None:
    """Boot that machine under an accelerator of QEMU, and say what is wrong; None when it ends well."""
    with tempfile.NamedTemporaryFile() as disk:
        disk.write(_program().ljust(_SECTOR - 2, b"\0") + b"\x55\xaa")
        disk.flush()
        try:
            done = subprocess.run(
                _command(disk.name, accelerator),
                timeout=_SECONDS,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except FileNotFoundError:
            return "qemu-system-x86_64 is not installed"
        except subprocess.TimeoutExpired:
            return f"a guest under {accelerator} is too slow to use: no boot in {_SECONDS:.0f} s"
    if done.returncode == _EXIT_STATUS:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"QEMU ended with status {done.returncode}"


def _command(disk: str, accelerator: str) -> list[str]:
    return [
        *("qemu-system-x86_64", "-accel", accelerator, "-machine", "pc", "-m", "32", "-no-reboot"),
        *("-display", "none", "-nodefaults", "-drive", f"file={disk},format=raw,if=ide,snapshot=on"),
        *("-device", f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=4"),
    ]
