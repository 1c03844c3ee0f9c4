"""Writing files into a guest through its agent; see QEMU's "guest agent protocol reference"."""

import base64
import errno
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import libvirt
import libvirt_qemu

from hotspare.errors import PermissionRefused, PlatformUnavailable
from hotspare.platforms.guest_files import ShellEnded
from hotspare.platforms.libvirt.connection import message_of
from hotspare.platforms.libvirt.guest_agent import agent_is_connected, run_shell
from hotspare.units import KIB

_PIECE = 40 * KIB
"""What is written at once: the agent hangs at requests of more than about 64 KiB, and base64 adds a third."""
_ANSWER_SECONDS = 60
_SHELL_SECONDS = 300
_NEEDED = ("guest-file-open", "guest-file-write", "guest-file-seek", "guest-file-close")
_FOR_SHELL = ("guest-exec", "guest-exec-status")
_GONE = frozenset(
    {libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_AGENT_UNSYNCED}
)


class AgentFiles:
    """A ``GuestFiles`` of a libvirt domain."""

    def __init__(self, domain: libvirt.virDomain) -> None:
        """Ask the agent what it allows. Raises ``PlatformUnavailable``, ``PermissionRefused``."""
        self._domain = domain
        self._name = domain.name()
        if not domain.isActive() or not agent_is_connected(domain):
            raise PlatformUnavailable(
                f"No guest agent answers in {self._name}",
                meaning="Nothing was restored",
                hint="Start the machine, install qemu-guest-agent in it, or restore with --to or --tar",
            )
        allowed = self._allowed()
        missing = [command for command in _NEEDED if command not in allowed]
        if missing:
            raise PermissionRefused(
                f"The guest agent in {self._name} does not allow {', '.join(missing)}",
                meaning="Nothing was restored",
                hint="Allow it in the configuration of the guest's agent (RHEL: /etc/sysconfig/qemu-ga), or"
                " restore with --tar and unpack it there",
            )
        self.has_shell = all(command in allowed for command in _FOR_SHELL) and self._is_unix()

    def exists(self, path: str) -> bool:
        """Tell whether a file can be opened; see the contract."""
        try:
            handle = self._ask("guest-file-open", path=path, mode="r")
        except OSError:
            return False
        self._close(handle)
        return True

    def write(self, path: str, pieces: Iterable[tuple[int, bytes]], size: int) -> None:
        """Write a file; see the contract."""
        handle = self._ask("guest-file-open", path=path, mode="w")
        try:
            at = 0
            for offset, data in pieces:
                if offset != at:
                    self._ask("guest-file-seek", handle=handle, offset=offset, whence=0)
                for start in range(0, len(data), _PIECE):
                    self._write(handle, data[start : start + _PIECE])
                at = offset + len(data)
            if at < size:  # it ends in a hole
                self._ask("guest-file-seek", handle=handle, offset=size - 1, whence=0)
                self._write(handle, b"\0")
        finally:
            self._close(handle)

    def shell(self, script: str, arguments: Sequence[str]) -> ShellEnded:
        """Run a script; see the contract."""
        with self._explained():
            try:
                ended = run_shell(self._domain, script, arguments, seconds=_SHELL_SECONDS)
            except TimeoutError as error:
                raise OSError(errno.ETIMEDOUT, str(error)) from error
        return ShellEnded(*ended)

    def _write(self, handle: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            encoded = base64.b64encode(view).decode()
            answer = self._ask("guest-file-write", handle=handle, **{"buf-b64": encoded})
            count = int(answer["count"])
            if not 0 < count <= len(view):
                raise OSError(errno.EIO, "the guest's agent wrote nothing")
            view = view[count:]

    def _close(self, handle: int) -> None:
        with suppress(OSError):
            self._ask("guest-file-close", handle=handle)

    def _allowed(self) -> set[str]:
        with self._explained():
            commands = self._ask("guest-info")["supported_commands"]
        return {str(one["name"]) for one in commands if one.get("enabled")}

    def _is_unix(self) -> bool:
        try:
            return str(self._ask("guest-get-osinfo").get("id", "")) != "mswindows"
        except OSError:
            return True  # an old agent, or a system without /etc/os-release

    def _ask(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        request = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})})
        with self._explained():
            return json.loads(libvirt_qemu.qemuAgentCommand(self._domain, request, _ANSWER_SECONDS, 0))[
                "return"
            ]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise ``PlatformUnavailable`` when the agent is gone, ``OSError`` when it refuses."""
        try:
            yield
        except libvirt.libvirtError as error:
            if error.get_error_code() in _GONE:
                raise PlatformUnavailable(
                    f"The guest agent in {self._name} does not answer any more: {message_of(error)}",
                    meaning="What was restored before is there, and perhaps a hidden part of the next file",
                    hint="Run it again with --overwrite once the guest answers",
                ) from error
            raise OSError(errno.EIO, message_of(error)) from error


@contextmanager
def guest_files(domain: libvirt.virDomain) -> Iterator[AgentFiles]:
    """Open the way into a guest. Raises as ``GuestFilesPlatform.guest_files``."""
    yield AgentFiles(domain)
