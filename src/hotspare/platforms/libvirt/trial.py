"""A ``Trial``: a transient domain of our own upon throw-away overlays.

libvirt ends it when our connection does (``AUTODESTROY``), also when this process is killed. What is left
then is the folder, with the overlays and sockets; ``sweep_host`` removes that, and the domain should it be
there.
"""

import errno
import json
import os
import shutil
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import libvirt
import libvirt_qemu

from hotspare.block.qemu import run_tool
from hotspare.errors import HotspareError, NoSpace, SourceLost
from hotspare.platforms.guest_files import ShellEnded
from hotspare.platforms.libvirt.connection import explained, message_of
from hotspare.platforms.libvirt.definition import NewDisk
from hotspare.platforms.libvirt.guest_agent import run_shell
from hotspare.platforms.libvirt.kvm import kvm_problem
from hotspare.platforms.libvirt.picture import png_of_ppm
from hotspare.platforms.libvirt.restored_state import RestoredState
from hotspare.platforms.libvirt.scratch import Leftover, RunFolder, ScratchOwner, leftovers, qemu_account
from hotspare.platforms.libvirt.state import StateFolders
from hotspare.platforms.libvirt.trial_definition import (
    TrialParts,
    noted_folder,
    trial_cards,
    trial_definition,
)
from hotspare.platforms.platform import Machine, StateFile
from hotspare.platforms.trial import Activity, Trial, TrialCard, TrialRequest

TRIAL_PREFIX = "hotspare-trial-"
_PING_SECONDS = 2
_NAME_MAX = 40
"""Letters of the machine's name; libvirt makes paths of the whole."""
_LOGS = Path("/var/log/libvirt/qemu")
_CONSOLE_MAX = 64 * 1024
_AGENT_PING = json.dumps({"execute": "guest-ping"})


@contextmanager
def open_trial(
    connection: libvirt.virConnect, uri: str, scratch_folder: Path, machine: Machine, request: TrialRequest
) -> Iterator[Trial]:
    """Prepare a trial; see ``TrialPlatform``. Trials that were killed are cleared away first."""
    identity = str(uuid.uuid4())
    name = f"{TRIAL_PREFIX}{machine.name.replace('/', '_')[:_NAME_MAX]}-{identity[:8]}"
    owner = ScratchOwner(
        uri=uri,
        domain=identity,
        name=name,
        repository_id=request.repository_id,
        point_id=request.point_id,
        pid=os.getpid(),
        trial=True,
    )
    _clear_dead_trials(connection, uri, scratch_folder)
    run = RunFolder.create(scratch_folder, owner, qemu_account(connection))
    state = RestoredState(uri, machine, run.path / "variables", kept_uuid=identity)
    trial = LibvirtTrial(connection, machine, request, run.path, state, name=name, identity=identity)
    try:
        yield trial
    finally:
        trial.end()
        state.discard()
        run.remove()


class LibvirtTrial:
    """One domain of ours; see the contract."""

    def __init__(
        self,
        connection: libvirt.virConnect,
        machine: Machine,
        request: TrialRequest,
        folder: Path,
        state: RestoredState,
        *,
        name: str,
        identity: str,
    ) -> None:
        self.name = name
        self.cards: Sequence[TrialCard] = trial_cards(machine.native, folder)
        self.disk_socket = folder / "disks.sock"
        self._connection = connection
        self._machine = machine
        self._request = request
        self._folder = folder
        self._state = state
        self._identity = identity
        self._domain: libvirt.virDomain | None = None

    def add_state(self, state: StateFile) -> str | None:
        """Put UEFI variables into the folder, and a TPM's files where libvirt looks for them."""
        return self._state.add(state)

    def start(self) -> None:
        """Start the domain; see the contract."""
        disks = {
            disk.name: NewDisk(self._overlay(disk.name, disk.size), "qcow2") for disk in self._machine.disks
        }
        state = self._state.placed
        if state.nvram is None and self._machine.firmware == "uefi":
            # Fresh ones, and not where libvirt would leave them.
            state = state._replace(nvram=self._folder / "variables.fd")
        parts = TrialParts(
            name=self.name,
            uuid=self._identity,
            folder=self._folder,
            disks=disks,
            state=state,
            memory_max=self._request.memory_max,
        )
        definition = trial_definition(self._machine, parts, kvm_works=lambda: kvm_problem() is None)
        with explained(
            f"{self._machine.name} cannot be started for a trial",
            meaning="The restore point is not touched, and nothing is said about it",
            hint="hotspare doctor looks at this host; machines with network cards need QEMU 7.2 or newer",
        ):
            self._domain = self._connection.createXML(definition, libvirt.VIR_DOMAIN_START_AUTODESTROY)

    def _overlay(self, disk: str, size: int) -> Path:
        """Make an overlay over what is served; one that is there is of a trial that restarted itself."""
        path = self._folder / f"{disk}.qcow2"
        if not path.exists():
            base = f"nbd+unix:///{disk}?socket={self.disk_socket}"
            run_tool(
                [
                    "qemu-img",
                    "create",
                    "-q",
                    "-u",
                    "-f",
                    "qcow2",
                    "-F",
                    "raw",
                    "-b",
                    base,
                    str(path),
                    str(size),
                ],
                path,
            )
        return path

    def is_running(self) -> bool:
        """Tell whether it runs; see the contract.

        Raises:
            NoSpace: the place for what it writes is full.
            SourceLost: QEMU stopped it, since a disk could not be read.
        """
        domain = self._domain
        if domain is None:
            return False
        try:
            state, reason = domain.state()
            if state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR:
                raise self._stopped(domain.diskErrors())
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                self._domain = None
                return False
            with explained(f"The trial of {self._machine.name} cannot be looked at"):
                raise
        return state not in {libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED}

    def _stopped(self, errors: dict[str, int]) -> HotspareError:
        disks = ", ".join(sorted(errors))
        if libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE in errors.values():
            return NoSpace(
                f"There is no space for what the trial of {self._machine.name} writes ({disks})",
                meaning="Nothing is said about the restore point",
                hint="Set HOTSPARE_SCRATCH_FOLDER to a folder on a larger local file system",
            )
        return SourceLost(
            f"The trial of {self._machine.name} was stopped, since {disks or 'a disk'} could not be read",
            meaning="Nothing is said about the restore point beyond that",
            hint="Look whether the repository can be reached, and at what hotspare repo check says",
        )

    def agent_answers(self) -> bool:
        """Ping the guest's agent."""
        if self._domain is None:
            return False
        try:
            libvirt_qemu.qemuAgentCommand(self._domain, _AGENT_PING, _PING_SECONDS, 0)
        except libvirt.libvirtError:
            return False
        return True

    def shell(
        self,
        script: str,
        arguments: Sequence[str],
        *,
        seconds: float,
        stdin: bytes = b"",
        check: Callable[[], None] = lambda: None,
    ) -> ShellEnded:
        """Run a script; see the contract."""
        if self._domain is None:
            raise OSError(errno.ESRCH, "the machine is powered off")
        try:
            ended = run_shell(self._domain, script, arguments, stdin=stdin, seconds=seconds, check=check)
        except libvirt.libvirtError as error:
            raise OSError(errno.EIO, message_of(error)) from error
        return ShellEnded(*ended)

    def addresses(self) -> list[str]:
        """Ask the agent for IPv4 addresses."""
        if self._domain is None:
            return []
        source = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
        try:
            cards = self._domain.interfaceAddresses(source, 0)
        except libvirt.libvirtError:
            return []
        return [
            one["addr"]
            for name, card in cards.items()
            if name != "lo"
            for one in card["addrs"] or ()
            if one["type"] == libvirt.VIR_IP_ADDR_TYPE_IPV4
        ]

    def activity(self) -> Activity:
        """Give processor time, and bytes of all disks together."""
        if self._domain is None:
            return Activity(0, 0, 0)
        try:
            nanoseconds = self._domain.info()[4]
            _, read, _, written, _ = self._domain.blockStats("")
        except libvirt.libvirtError:
            return Activity(0, 0, 0)
        return Activity(nanoseconds / 1e9, max(read, 0), max(written, 0))

    def screenshot(self) -> bytes | None:
        """Have QEMU draw the console: as PNG, or as PPM where it was built without."""
        if self._domain is None:
            return None
        pieces: list[bytes] = []
        try:
            stream = self._connection.newStream()
            kind = self._domain.screenshot(stream, 0)
            stream.recvAll(lambda _stream, data, kept: kept.append(data), pieces)
            stream.finish()
        except libvirt.libvirtError:
            return None
        picture = b"".join(pieces)
        return picture if kind == "image/png" else png_of_ppm(picture)

    def console(self) -> str:
        """Read the end of what came out of the serial port."""
        try:
            with (self._folder / "console.log").open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - _CONSOLE_MAX))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def stop(self) -> None:
        """Power the domain off; with that it is gone. Never raises for what is gone already."""
        with suppress(libvirt.libvirtError):
            self._connection.lookupByUUIDString(self._identity).destroy()
        self._domain = None

    def end(self) -> None:
        """Remove the domain, and QEMU's log of it; a second call does nothing."""
        self.stop()
        with suppress(OSError):
            (_LOGS / f"{self.name}.log").unlink()


def folder_of_trial(domain: libvirt.virDomain) -> Path | None:
    """Give the folder of a trial of ours; None for any other domain, and for one that is gone."""
    if not domain.name().startswith(TRIAL_PREFIX):
        return None
    try:
        return noted_folder(ET.fromstring(domain.XMLDesc(0)))  # noqa: S314 - libvirt's own XML
    except libvirt.libvirtError:
        return None


def is_trial(domain: libvirt.virDomain) -> bool:
    """Tell whether a domain is a trial of ours."""
    return folder_of_trial(domain) is not None


def dead_trial(connection: libvirt.virConnect, leftover: Leftover) -> libvirt.virDomain | None:
    """Give the domain that a trial left which was killed; None when libvirt has ended it."""
    try:
        return connection.lookupByUUIDString(leftover.owner.domain)
    except libvirt.libvirtError:
        return None


def clear_trial(connection: libvirt.virConnect, leftover: Leftover) -> str | None:
    """Remove a trial that was killed; says why that cannot be, None when it is done."""
    domain = dead_trial(connection, leftover)
    try:
        if domain is not None:
            domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            return message_of(error)
    shutil.rmtree(StateFolders.of(leftover.owner.uri).tpm / leftover.owner.domain, ignore_errors=True)
    with suppress(OSError):
        (_LOGS / f"{leftover.owner.name}.log").unlink()
    leftover.remove()
    return "its folder cannot be removed" if leftover.path.exists() else None


def _clear_dead_trials(connection: libvirt.virConnect, uri: str, scratch_folder: Path) -> None:
    with leftovers(scratch_folder) as found:
        for leftover in found:
            if leftover.owner.trial and leftover.owner.uri == uri:
                clear_trial(connection, leftover)
