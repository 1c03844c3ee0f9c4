"""Makes sure that libvirt runs on this host."""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import libvirt

from lab.errors import LabError

MACHINES = Path("/var/lib/hotspare-lab")
URI = "qemu:///system"

_KVM = Path("/dev/kvm")
_LOCK = Path("/run/hotspare-lab.lock")
_START_SECONDS = 30.0


class _Connections:
    """One connection per process, opened again after libvirtd was restarted."""

    current: libvirt.virConnect | None = None


def connection() -> libvirt.virConnect:
    """Give this process's connection to libvirt.

    Raises:
        LabError: libvirt does not answer.
    """
    open_connection = _Connections.current
    if open_connection is None or not open_connection.isAlive():
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        try:
            _Connections.current = open_connection = libvirt.open(URI)
        except libvirt.libvirtError as error:
            raise LabError(f"libvirt does not answer at {URI}: {error}") from error
    return open_connection


class LibvirtHost:
    """A host on which guests live: this one. ``lab/two_hosts.py`` makes others inside of it."""

    machines = MACHINES
    """Where the disks of its guests are."""
    logs = Path("/var/log/libvirt/qemu")
    """Where libvirt keeps what guests print."""

    def connection(self) -> libvirt.virConnect:
        """Give this process's connection to its libvirt. Raises ``LabError``."""
        return connection()

    def kill_machine(self, name: str) -> None:
        """Kill a machine's QEMU as a crash of the host's process would (SIGKILL)."""
        os.kill(int(Path(f"/run/libvirt/qemu/{name}.pid").read_text()), signal.SIGKILL)


THIS_HOST = LibvirtHost()


def ensure_host() -> None:
    """Start libvirt's daemons unless they run; safe to call at any time, from several processes.

    Raises:
        LabError: not root, packages are missing, or a daemon does not start.
    """
    if os.geteuid() != 0:
        raise LabError("The lab needs root, to run virtual machines under libvirt: use sudo")
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if Path("/run/systemd/system").is_dir():
            _start(["systemctl", "start", "virtlogd.socket", "libvirtd.service"], _libvirt_answers)
        else:
            _open_kvm_to_its_group()
            # libvirtd starts virtlogd by itself only where systemd does it.
            _start(["virtlogd", "--daemon"], lambda: _runs("virtlogd"))
            _start(["libvirtd", "--daemon"], lambda: _runs("libvirtd") and _libvirt_answers())


def _open_kvm_to_its_group() -> None:
    """Do what udev would have done for /dev/kvm.

    While QEMU's user may not open it, libvirt holds all it knows of QEMU for outdated, and asks QEMU anew
    for several seconds in every call.
    """
    with suppress(FileNotFoundError, LookupError):
        shutil.chown(_KVM, group="kvm")
        _KVM.chmod(0o660)


def _start(command: list[str], works: Callable[[], bool]) -> None:
    if works():
        return
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError as missing:
        raise LabError(f"{command[0]} is not installed: run scripts/install-system-packages") from missing
    except subprocess.CalledProcessError as failed:
        raise LabError(f"{' '.join(command)} failed: {failed.stderr.strip()}") from failed
    deadline = time.monotonic() + _START_SECONDS
    while not works():
        if time.monotonic() > deadline:
            raise LabError(f"{' '.join(command)} gave nothing that answers within {_START_SECONDS:.0f} s")
        time.sleep(0.05)


def _runs(daemon: str) -> bool:
    try:
        pid = Path(f"/run/{daemon}.pid").read_text().strip()
        return Path("/proc", pid, "comm").read_text().strip() == daemon
    except FileNotFoundError:
        return False


def _libvirt_answers() -> bool:
    try:
        connection()
    except LabError:
        return False
    return True
