"""Pausing a guest for some milliseconds, without any way on which it could stay paused."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import libvirt

from hotspare.errors import HotspareError
from hotspare.platforms.libvirt.connection import explained

_LIMIT_SECONDS = 3

# A process of its own, which lets the guest go on when ours is killed or stuck: $1 is libvirt's URI, $2 the
# domain's UUID, $3 the seconds that it waits for the word that all is well.
_GUARD = """
word=$(timeout "$3" head -n 1)
[ "$word" = resumed ] && exit 0
attempt=0
while [ $attempt -lt 60 ]; do
    timeout 10 virsh --quiet --connect "$1" resume "$2" && exit 0
    attempt=$((attempt + 1))
    sleep 1
done
"""


@contextmanager
def paused(domain: libvirt.virDomain, uri: str) -> Iterator[None]:
    """Let a guest stand still while the block runs; one that does so already is left to it.

    Never do this while a write of the guest waits for a silent standby: QEMU would wait for it as well.

    Raises:
        HotspareError: it cannot be paused, or there is nobody who could help if we were killed.
    """
    with explained(f"The machine {domain.name()} cannot be paused"):
        runs = domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED
    if not runs:
        yield
        return
    guard = _start_guard(uri, domain.UUIDString())
    try:
        with explained(f"The machine {domain.name()} cannot be paused"):
            domain.suspend()
        try:
            yield
        finally:
            with explained(f"The machine {domain.name()} cannot be let go on", hint="It is tried again"):
                _resume(domain)
        _dismiss(guard)
    finally:
        if guard.stdin is not None:
            with suppress(OSError):
                guard.stdin.close()  # without the word it resumes the guest by itself


def _resume(domain: libvirt.virDomain) -> None:
    try:
        domain.resume()
    except libvirt.libvirtError as error:
        # The guard was faster, or the machine has ended.
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise


def _start_guard(uri: str, uuid: str) -> subprocess.Popen[bytes]:
    words = ["sh", "-c", _GUARD, "hotspare-resume", uri, uuid, str(_LIMIT_SECONDS)]
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise HotspareError(f"No process can be started: {error}", meaning="Nothing was paused") from error


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        if guard.stdin is not None:
            guard.stdin.write(b"resumed\n")
            guard.stdin.close()
    try:
        guard.wait(_LIMIT_SECONDS * 2)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
