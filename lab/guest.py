"""A tiny real virtual machine."""

import re
import shutil
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import libvirt

from lab import agent
from lab.definition import MIB, disk_device, domain_xml
from lab.disks import DiskSpec, make_boot_disk, make_data_disk
from lab.errors import LabError
from lab.host import THIS_HOST, LibvirtHost
from lab.image import guest_image
from lab.naming import PREFIX, domain_name
from lab.sweep import remove_domain, tpm_log

Kind = Literal["direct", "disk"]
ShutdownBy = Literal["agent", "power-button"]

_BOOT_SECONDS = 90.0
_STOP_SECONDS = 60.0
_THAW_SECONDS = 60.0


class LabGuest:
    """One guest. As a context manager it is removed, with its disks, on the way out.

    Its first disk is mounted at /data, the second at /data2 and so on.
    """

    def __init__(self, name: str, host: LibvirtHost = THIS_HOST) -> None:
        self.name = name
        """The domain's name."""
        self.host = host
        """Where it lives."""

    @classmethod
    def create(
        cls,
        label: str,
        *,
        kind: Kind = "direct",
        disks: Sequence[DiskSpec] = (DiskSpec(),),
        memory: int = 192 * MIB,
        uefi: bool = False,
        tpm: bool = False,
        network: bool = False,
        host: LibvirtHost = THIS_HOST,
    ) -> Self:
        """Make and define a guest, powered off.

        Args:
            label: distinguishes it from other guests of this process; see ``domain_name``.
            kind: ``direct`` boots a kernel that libvirt is given and has only data on its disks; ``disk``
                boots from its first disk, which holds everything.
            disks: at least one; all are ext4.
            memory: bytes.
            uefi: UEFI firmware (OVMF) in place of a BIOS; for ``direct`` only.
            tpm: with an emulated TPM 2.0.
            network: with a network card, whose driver (``virtio_net``) is in /modules and not loaded.
            host: where it lives.

        Raises:
            LabError: there is such a guest already, or it cannot be built.
        """
        name = domain_name(label)
        if any(domain.name() == name for domain in host.connection().listAllDomains()):
            raise LabError(f"There is a guest {name} already")
        image = guest_image()
        folder = host.machines / name
        folder.mkdir(mode=0o755, parents=True)
        files = [(folder / f"{disk_device(index)}.{spec.format}", spec) for index, spec in enumerate(disks)]
        for index, (path, spec) in enumerate(files):
            if kind == "disk" and index == 0:
                make_boot_disk(path, spec, image)
            else:
                make_data_disk(path, spec)
        kernel = image if kind == "direct" else None
        definition = domain_xml(
            name, files, memory=memory, kernel=kernel, uefi=uefi, tpm=tpm, network=network
        )
        host.connection().defineXML(definition)
        return cls(name, host)

    @classmethod
    def attach(cls, name: str, host: LibvirtHost = THIS_HOST) -> Self:
        """Take a domain that somebody else defined from a guest, such as the product on restore.

        Raises:
            LabError: no such domain, or its name is not of the lab (``remove`` deletes disks).
        """
        if not name.startswith(PREFIX):
            raise LabError(f"{name} is not of the lab: its name must start with {PREFIX}")
        guest = cls(name, host)
        _ = guest.domain
        return guest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def domain(self) -> libvirt.virDomain:
        """Libvirt's handle of it, fresh."""
        try:
            return self.host.connection().lookupByName(self.name)
        except libvirt.libvirtError as error:
            raise LabError(f"There is no domain {self.name}: {error}") from error

    @property
    def xml(self) -> str:
        """Its persistent definition."""
        definition: str = self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        return definition

    @property
    def disks(self) -> dict[str, Path]:
        """Its disks: device (``vda``) to image file."""
        found = {}
        for disk in ET.fromstring(self.xml).iterfind("devices/disk"):
            source, target = disk.find("source"), disk.find("target")
            if source is not None and target is not None and source.get("file"):
                found[target.attrib["dev"]] = Path(source.attrib["file"])
        return found

    @property
    def running(self) -> bool:
        """Whether it is powered on."""
        return bool(self.domain.isActive())

    @property
    def console(self) -> str:
        """What kernel and programs printed, among QEMU's own messages."""
        log = self.host.logs / f"{self.name}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    # Power

    def start(self) -> Self:
        """Power it on and return at once.

        Raises:
            LabError: its TPM cannot be set up, twice; with what swtpm_setup said.
        """
        try:
            self.domain.create()
        except libvirt.libvirtError as error:
            if "swtpm_setup" not in str(error):
                raise
            # It gives swtpm five seconds to come up, which a busy host may not have.
            print(f"{self.name}: its TPM was not set up in time, once more. {self._tpm_log}")
            try:
                self.domain.create()
            except libvirt.libvirtError as again:
                raise LabError(f"{self.name} does not start: {again}. {self._tpm_log}") from again
        return self

    @property
    def _tpm_log(self) -> str:
        log = tpm_log(self.name)
        return log.read_text(errors="replace")[-2000:] if log.exists() else "swtpm has left no log"

    def wait_ready(self, timeout: float = _BOOT_SECONDS) -> float:
        """Wait until its disks are mounted and its agent answers; give the seconds that took.

        Raises:
            LabError: it powered off or is not ready in ``timeout`` seconds; with the end of its console.
        """
        started = time.monotonic()
        while not agent.ping(self.domain):
            if not self.running or time.monotonic() - started > timeout:
                state = f"not ready after {timeout:.0f} s" if self.running else "powered off"
                raise LabError(f"{self.name} is {state}. Its console ends with:\n{self.console[-2000:]}")
            time.sleep(0.05)
        return time.monotonic() - started

    def shutdown(self, by: ShutdownBy = "agent", timeout: float = _STOP_SECONDS) -> None:
        """Let it shut down in good order, and wait until it is off."""
        flag = "GUEST_AGENT" if by == "agent" else "ACPI_POWER_BTN"
        self.domain.shutdownFlags(getattr(libvirt, f"VIR_DOMAIN_SHUTDOWN_{flag}"))
        self._wait_until(lambda: not self.running, f"off by {by}", timeout)

    def reboot(self, timeout: float = _BOOT_SECONDS) -> None:
        """Let it reboot, within the same QEMU, and wait until it is ready again."""
        before = self._boot_id()
        self.domain.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT)
        self._wait_until(lambda: agent.ping(self.domain) and self._boot_id() != before, "rebooted", timeout)

    def kill(self) -> None:
        """Kill its QEMU as a crash of the host's process would (SIGKILL)."""
        self.host.kill_machine(self.name)
        self._wait_until(lambda: not self.running, "gone", _STOP_SECONDS)

    def destroy(self) -> None:
        """Pull the plug; does nothing when it is off."""
        if self.running:
            self.domain.destroy()

    def remove(self) -> None:
        """Remove the machine and its disks, running or not; does nothing when it is gone already."""
        if any(domain.name() == self.name for domain in self.host.connection().listAllDomains()):
            disks = self.disks.values()
            remove_domain(self.domain, self.host.logs)
            for path in disks:
                path.unlink(missing_ok=True)
        shutil.rmtree(self.host.machines / self.name, ignore_errors=True)

    # Inside

    def exec(self, command: str, *, timeout: float = 60) -> str:
        """Run a shell command inside and give its standard output, without the last line's end.

        Raises:
            CommandError: it ended with a status other than zero.
        """
        return agent.execute(self.domain, command, timeout=timeout).decode().rstrip("\n")

    def write_file(self, path: str, content: bytes) -> None:
        """Write a file inside, and flush it to the disk."""
        agent.write(self.domain, path, content)

    def fill(self, path: str, size: int) -> None:
        """Fill a file inside with random bytes, and flush it to the disk; much faster than ``write_file``."""
        self.exec(f"head -c {size} /dev/urandom > '{path}' && sync '{path}'")

    def write_random(self, path: str, size: int) -> str:
        """Do so and give the file's SHA-256, which takes an emulated processor longer than all the rest."""
        self.fill(path, size)
        return self.sha256(path)

    def read_file(self, path: str) -> bytes:
        """Read a file inside; for large ones ``sha256`` is much faster."""
        return agent.read(self.domain, path)

    def sha256(self, path: str) -> str:
        """Give the SHA-256 of a file inside, in hexadecimal."""
        return agent.sha256(self.domain, path)

    def freeze(self) -> int:
        """Freeze its file systems and give their number; until ``thaw`` nothing can be executed inside."""
        count: int = self.domain.fsFreeze()
        return count

    def thaw(self) -> int:
        """Thaw its file systems and give their number."""
        count: int = self.domain.fsThaw()
        return count

    def wait_thawed(self, timeout: float = _THAW_SECONDS) -> None:
        """Wait until somebody has thawed its file systems: until then, its agent executes nothing.

        Raises:
            LabError: they are still frozen after ``timeout`` seconds.
        """
        self._wait_until(self._executes, "thawed", timeout)

    def _executes(self) -> bool:
        try:
            self.exec("echo alive > /data/alive && sync /data/alive")
        except libvirt.libvirtError:
            return False
        return True

    # Workload

    def start_workload(self, path: str = "/data/journal") -> None:
        """Start to append numbers to a file, each flushed and then acknowledged; it ends with the guest."""
        self.exec(f"setsid workload '{path}' </dev/null >/dev/null 2>&1 &")

    def acked(self) -> int:
        """Give the last number that the workload acknowledged: no crash may lose it."""
        numbers = re.findall(r"lab: acked (\d+)\s", self.console)
        return int(numbers[-1]) if numbers else 0

    def _boot_id(self) -> str:
        try:
            return self.exec("cat /proc/sys/kernel/random/boot_id")
        except libvirt.libvirtError:
            return ""  # it went down between the ping and the question

    def _wait_until(self, reached: Callable[[], bool], state: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not reached():
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} is not {state} within {timeout:.0f} s:\n{self.console[-2000:]}")
            time.sleep(0.05)
