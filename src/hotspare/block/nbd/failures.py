"""What the errors of an NBD connection mean for the user."""

from hotspare.block.nbd.connection import Address, HangupError
from hotspare.block.nbd.protocol import Command, Errno, NbdProtocolError, NbdRefusedError, OptionReply
from hotspare.block.nbd.replies import Request
from hotspare.errors import HotspareError, NoSpace, PermissionRefused, SourceLost

_HINT = "Look at the log of the hypervisor or of the program that serves the disk"

_VERBS = {
    Command.READ: "read",
    Command.WRITE: "write",
    Command.FLUSH: "flush",
    Command.TRIM: "trim",
    Command.WRITE_ZEROES: "write zeroes",
    Command.BLOCK_STATUS: "tell the block status",
}

_EROFS = 30
"""Not in the protocol, but some servers send it as it comes."""


def describe(address: Address, export: str) -> str:
    """Name an export for a message."""
    place = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)
    return f"NBD export {export!r} at {place}"


def connection_failure(name: str, cause: Exception, timeout: float) -> HotspareError:
    """Say why a connection that was up is of no further use."""
    if isinstance(cause, BlockingIOError | TimeoutError):
        return SourceLost(f"{name} did not answer for {timeout:g} seconds", hint=_HINT)
    if isinstance(cause, HangupError):
        return SourceLost(f"{name} closed the connection", hint=_HINT)
    if isinstance(cause, NbdProtocolError):
        return SourceLost(f"{name} broke the NBD protocol: {cause}", hint=_HINT)
    return SourceLost(f"The connection to {name} failed: {cause}", hint=_HINT)


def connect_failure(name: str, cause: Exception, timeout: float) -> HotspareError:
    """Say why there is no connection."""
    if isinstance(cause, NbdRefusedError):
        return _refusal(name, cause)
    if isinstance(cause, PermissionError):
        return PermissionRefused(f"No permission to connect to {name}", hint="Run as a user who may")
    if isinstance(cause, FileNotFoundError | ConnectionRefusedError):
        return SourceLost(f"Nothing serves {name} ({cause.strerror})", hint=_HINT)
    return connection_failure(name, cause, timeout)


def request_failure(name: str, request: Request) -> HotspareError | None:
    """Say why the server could not do one request; None if it could."""
    if request.error is None:
        return None
    errno, text = request.error.errno, request.error.text
    verb = _VERBS.get(request.command, request.command.name)
    reason = text or (Errno(errno).name if errno in list(Errno) else f"error {errno}")
    what = f"{name} could not {verb} {request.length} bytes at {request.offset}: {reason}"
    if errno == Errno.ENOSPC:
        return NoSpace(what, hint="Make room where the disk is stored")
    if errno in (Errno.EPERM, _EROFS):
        return PermissionRefused(what, hint="The export is read-only, or the server's user may not do this")
    return SourceLost(what, hint=_HINT)


def _refusal(name: str, refused: NbdRefusedError) -> HotspareError:
    said = f": {refused.text}" if refused.text else ""
    if refused.error == OptionReply.ERR_TLS_REQD:
        return PermissionRefused(
            f"{name} wants an encrypted connection{said}", hint="Let it listen on a unix socket without TLS"
        )
    if refused.error == OptionReply.ERR_POLICY:
        return PermissionRefused(f"{name} refused us{said}", hint="Allow this host on the server")
    if refused.error == OptionReply.ERR_UNKNOWN:
        return SourceLost(f"The server has no {name}{said}", hint=_HINT)
    return SourceLost(f"{name} was refused with error {refused.error:#x}{said}", hint=_HINT)
