"""The micro-VM as a process of QEMU: started, watched, and never left behind.

It has no network, and of the host it sees its disks, read-only over NBD below a throw-away overlay, a serial
port, and the window. QEMU itself runs as ``nobody`` where we are root, and without system calls that it never
needs.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hotspare.errors import PlatformUnavailable
from hotspare.guest.files.appliance.inside.wire import PORT, WINDOW, WINDOW_SIZE
from hotspare.guest.files.appliance.kernel import QUICK
from hotspare.units import GIB

Accelerator = Literal["kvm", "tcg"]

# QEMU must not outlive us, however we end: the keeper ends it once the pipe from us is closed, and tidies up.
_KEEPER = (
    f"ulimit -f {4 * GIB // 512}; exec 3<&0; "
    '"$@" 3<&- </dev/null & child=$!; exec >/dev/null 2>&1; '
    'read -r _ <&3; kill -KILL $child; wait $child; rm -rf "$FOLDER"'
)
"""Files of QEMU are limited to 4 GiB, so that a guest that writes to its overlay cannot fill our disk."""
_SANDBOX = "on,obsolete=deny,spawn=deny,resourcecontrol=deny"
_CONSOLE_LINES = 100
_CONNECT_SECONDS = 20.0
_END_SECONDS = 5.0
_FUNCTIONS = 8
_FIRST_SLOT = 4
DISKS_MAX = 200


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What a micro-VM is made of."""

    kernel: Path
    initramfs: Path
    disks: Path
    """Unix socket of the NBD server."""
    exports: Sequence[str]
    """Names of its exports; inside, each is the serial number of its disk."""
    accelerator: Accelerator
    memory: int
    """Bytes."""


class Machine:
    """A running micro-VM.

    Attributes:
        port: the other end of the agent's serial port.
        window: file that is a disk inside.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._console: deque[bytes] = deque(maxlen=_CONSOLE_LINES)
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read_console, name="appliance-console", daemon=True)
        self._reader.start()
        self.window = folder / "window"

    @classmethod
    def start(cls, spec: MachineSpec, folder: Path) -> "tuple[Machine, socket.socket]":
        """Start QEMU; gives its serial port, on which the agent will answer once it is up.

        Args:
            spec: what it is made of.
            folder: an empty one for sockets and the like, with a short path. It is gone when QEMU is.

        Raises:
            PlatformUnavailable: QEMU is missing, or ended at once.
        """
        program = shutil.which("qemu-system-x86_64")
        if program is None:
            raise PlatformUnavailable(
                "qemu-system-x86_64 is not installed",
                meaning="The micro-VM that reads this file system cannot be started",
                hint="apt-get install qemu-system-x86",
            )
        with (folder / "window").open("wb") as window:
            window.truncate(WINDOW_SIZE)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "port"))
            listening.listen(1)
            process = subprocess.Popen(
                ["sh", "-c", _KEEPER, "hotspare-appliance", program, *_options(spec, folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "TMPDIR": str(folder),
                    "FOLDER": str(folder),
                },
            )
            machine = cls(process, folder)
            try:
                return machine, machine._accept(listening)
            except BaseException:
                machine.close()
                raise

    @property
    def console(self) -> str:
        """The last lines of what QEMU and the kernel inside have said."""
        return b"".join(self._console).decode(errors="replace").strip()

    @property
    def ended(self) -> bool:
        """Whether QEMU is gone."""
        return self._ended.is_set()

    def last_words(self) -> str:
        """End QEMU, and give the last lines of what it has said."""
        self.close()
        return self.console

    def close(self) -> None:
        """End QEMU and wait until it is gone; a second call does nothing."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode < 0:
            # The keeper itself was killed, and QEMU is all that is left of its group.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join(_END_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self, listening: socket.socket) -> socket.socket:
        listening.settimeout(0.05)
        deadline = time.monotonic() + _CONNECT_SECONDS
        while not self.ended and time.monotonic() < deadline:
            try:
                port, _peer = listening.accept()
            except TimeoutError:
                continue
            return port
        self._ended.wait(0.2)
        raise PlatformUnavailable(
            f"QEMU does not start: {self.console or 'it says nothing'}",
            meaning="The files of this file system cannot be read, and nothing was changed",
            hint="See whether qemu-system-x86_64 works on this host",
        )

    def _read_console(self) -> None:
        output = self._process.stdout
        assert output is not None  # noqa: S101  # it is a pipe
        while line := output.readline(1024):
            self._console.append(line)
        self._ended.set()


def _options(spec: MachineSpec, folder: Path) -> list[str]:
    cpu = "host" if spec.accelerator == "kvm" else "max,la57=off"
    options = [
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "pc", "-accel", spec.accelerator, "-cpu", cpu, "-m", str(spec.memory >> 20)),
        *("-kernel", str(spec.kernel), "-initrd", str(spec.initramfs)),
        *(
            "-append",
            f"console=ttyS0 quiet panic=-1 {QUICK} edd=off no_timer_check random.trust_cpu=on",
        ),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=port,path={folder / 'port'}"),
        *("-device", f"virtserialport,chardev=port,name={PORT}"),
        *("-drive", f"if=none,id=window,format=raw,file.locking=off,cache=unsafe,file={folder / 'window'}"),
        *("-device", f"virtio-blk-pci,drive=window,serial={WINDOW},addr=3"),
    ]
    for number, export in enumerate(spec.exports):
        slot, function = divmod(number, _FUNCTIONS)
        source = f"file.driver=nbd,file.server.type=unix,file.server.path={spec.disks},file.export={export}"
        drive = f"if=none,id=disk{number},format=raw,snapshot=on,cache=unsafe,werror=report,rerror=report"
        place = f"addr={_FIRST_SLOT + slot:x}.{function},multifunction=on"
        options += ["-drive", f"{drive},{source}"]
        options += ["-device", f"virtio-blk-pci,drive=disk{number},serial={export},{place}"]
    return options + _unprivileged()


def _unprivileged() -> list[str]:
    with suppress(KeyError):
        if os.geteuid() == 0 and pwd.getpwnam("nobody"):
            # To become nobody is just what "elevateprivileges=deny" would forbid.
            return ["-sandbox", _SANDBOX, "-runas", "nobody"]
    return ["-sandbox", f"{_SANDBOX},elevateprivileges=deny"]
