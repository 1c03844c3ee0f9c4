"""The connection to libvirt, and its errors in words for the user."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import libvirt

from hotspare.errors import HotspareError, MachineNotFound, NoSpace, PermissionRefused, PlatformUnavailable

_NO_PERMISSION = frozenset(
    {libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_AUTH_UNAVAILABLE}
    | {libvirt.VIR_ERR_ACCESS_DENIED, libvirt.VIR_ERR_OPERATION_DENIED}
)
_NO_CONNECTION = frozenset(
    {libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_INVALID_CONN}
    | {libvirt.VIR_ERR_LIBSSH, libvirt.VIR_ERR_SYSTEM_ERROR}
)


def open_connection(uri: str) -> libvirt.virConnect:
    """Connect to libvirt.

    Raises:
        PlatformUnavailable: libvirt does not answer at this URI.
        PermissionRefused: this user may not use it.
    """
    # Without a handler libvirt prints every error, also those that are expected, to standard error.
    libvirt.registerErrorHandler(_say_nothing, None)
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_PERMISSION or "Permission denied" in str(error):
            raise PermissionRefused(
                f"This user may not use libvirt at {uri}: {message_of(error)}",
                meaning="Nothing was done",
                hint="Run hotspare as root, for example with sudo",
            ) from error
        raise PlatformUnavailable(
            f"libvirt does not answer at {uri}: {message_of(error)}",
            meaning="Nothing was done",
            hint="Start it with: systemctl start libvirtd. hotspare doctor looks at the rest of the host",
        ) from error


def _say_nothing(_context: object, _error: object) -> None:
    pass


def message_of(error: libvirt.libvirtError) -> str:
    """Give the message that libvirt has for people."""
    return str(error.get_error_message() or error)


@contextmanager
def explained(what: str, meaning: str = "", hint: str = "") -> Iterator[None]:
    """Raise an error of ours, saying ``what`` could not be done, for one of libvirt's in the block.

    Raises:
        PlatformUnavailable: libvirt does not answer any more.
        PermissionRefused: libvirt or the operating system refuses.
        MachineNotFound: the machine has been removed.
        NoSpace: a file system is full.
        HotspareError: anything else that libvirt refuses.
    """
    try:
        yield
    except libvirt.libvirtError as error:
        raise _kind_of(error)(f"{what}: {message_of(error)}", meaning=meaning, hint=hint) from error


def _kind_of(error: libvirt.libvirtError) -> type[HotspareError]:
    code, message = error.get_error_code(), str(error)
    if "No space left" in message:
        return NoSpace
    if code in _NO_PERMISSION or "Permission denied" in message:
        return PermissionRefused
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return MachineNotFound
    # Once the socket is closed each call ends in an internal error that says so.
    lost = code in _NO_CONNECTION or "socket is closed" in message
    return PlatformUnavailable if lost else HotspareError


def is_gone(connection: libvirt.virConnect) -> bool:
    """Tell whether the connection is gone, and with it any knowledge of what libvirt does."""
    try:
        return not connection.isAlive()
    except libvirt.libvirtError:
        return True


def is_known_off(domain: libvirt.virDomain) -> bool:
    """Tell whether libvirt says that a machine is off or gone; False too when libvirt cannot be asked."""
    try:
        return not domain.isActive()
    except libvirt.libvirtError as error:
        return bool(error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN)


def find_domain(connection: libvirt.virConnect, name: str, uri: str) -> libvirt.virDomain:
    """Find a domain by name or UUID.

    Raises:
        MachineNotFound: there is none.
        PlatformUnavailable: libvirt does not answer any more.
    """
    lookups: tuple[Any, ...] = (connection.lookupByName, connection.lookupByUUIDString)
    for lookup in lookups:
        try:
            return lookup(name)
        except libvirt.libvirtError as error:
            # What is not a UUID is an invalid argument to the second.
            if error.get_error_code() not in {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG}:
                with explained(f"The machine {name!r} cannot be looked up at {uri}"):
                    raise
    raise MachineNotFound(
        f"There is no machine {name!r} at {uri}",
        meaning="Nothing was done",
        hint="hotspare machine list shows those that there are",
    )
