"""Removes what dead runs left behind."""

import fcntl
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import libvirt

from lab.host import MACHINES, THIS_HOST, connection
from lab.naming import is_leftover

FIRST_PROCESS = "first-process"
"""Name of the file, in the folder of a host of ``two_hosts.py``, that has the number of its first process."""

_LOCK = Path("/run/hotspare-lab-sweep.lock")

_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


def sweep() -> list[str]:
    """Remove machines and files whose owner is gone, and give their names."""
    names = set()
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be sweeping the same
        for domain in connection().listAllDomains():
            if is_leftover(domain.name()):
                names.add(domain.name())
                remove_domain(domain)
        if MACHINES.exists():
            for folder in [folder for folder in MACHINES.iterdir() if is_leftover(folder.name)]:
                names.add(folder.name)
                _kill_hosts(folder)
                shutil.rmtree(folder)
    return sorted(names)


def _kill_hosts(folder: Path) -> None:
    """Kill the hosts of ``two_hosts.py`` that keep their things in a folder, and all that runs on them."""
    for noted in folder.glob(f"*/{FIRST_PROCESS}"):
        pid = int(noted.read_text() or 0)
        with suppress(FileNotFoundError, ProcessLookupError):
            if str(noted.parent) in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)


def remove_domain(domain: libvirt.virDomain, logs: Path = THIS_HOST.logs) -> None:
    """Power a machine off the hard way and undefine it with all that libvirt knows of it; its disks stay."""
    name = domain.name()
    if domain.isActive():
        domain.destroy()
    if domain.isPersistent():
        domain.undefineFlags(_UNDEFINE)
    for log in logs.glob(f"{name}.log*"):
        log.unlink()
    tpm_log(name).unlink(missing_ok=True)


def tpm_log(name: str) -> Path:
    """Say where swtpm and its set-up write, for a machine that has one."""
    return Path(f"/var/log/swtpm/libvirt/qemu/{name}-swtpm.log")
