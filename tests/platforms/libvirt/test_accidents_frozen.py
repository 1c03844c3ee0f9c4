"""Accidents in the instant that a real guest is frozen: it is always thawed, and soon."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from hotspare.cancellation import Cancellation
from hotspare.errors import PlatformUnavailable
from hotspare.platforms.libvirt import quiesce
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import Consistency, SnapshotRequest
from lab import LabGuest
from tests.platforms.libvirt.lost_connection import MortalPlatform, mortal_platform

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

PATIENCE = 60.0
REQUEST = SnapshotRequest(point_id="frozen", repository_id="0123456789", since={})


@pytest.fixture
def mortal(scratch_folder: Path) -> Iterator[MortalPlatform]:
    with mortal_platform(scratch_folder) as opened:
        yield opened


def freezes(guest: LabGuest) -> list[str]:
    """What QEMU's agent has logged in the guest: ``freeze`` and ``thaw``, by turns."""
    return guest.exec("cat /run/fsfreeze.log 2>/dev/null || true").split()


def test_libvirt_is_lost_while_the_guest_is_frozen(
    mortal: MortalPlatform,
    platform: LibvirtPlatform,
    module_guest: LabGuest,
    scratch_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module_guest.wait_thawed()
    before = freezes(module_guest)
    begin = libvirt.virDomain.backupBegin

    def lose_it(domain: libvirt.virDomain, *arguments: Any) -> Any:
        mortal.cut()
        return begin(domain, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(libvirt.virDomain, "backupBegin", lose_it)
        with (
            pytest.raises(PlatformUnavailable),
            mortal.open_snapshot(platform.inspect(module_guest.name), REQUEST, Cancellation()),
        ):
            pytest.fail("began")
    assert list(scratch_folder.glob("frozen-*/frozen")), "nothing tells of the freeze any more"

    module_guest.wait_thawed()
    assert freezes(module_guest) == [*before, "freeze", "thaw"]
    with platform.open_snapshot(platform.inspect(module_guest.name), REQUEST, Cancellation()) as snapshot:
        assert snapshot.consistency is Consistency.FILESYSTEM
    assert not list(scratch_folder.glob("frozen-*"))


def test_a_begin_that_takes_too_long(
    platform: LibvirtPlatform, module_guest: LabGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when libvirt waits for another job, or for storage: it is held up until the guest is thawed."""
    module_guest.wait_thawed()
    before = freezes(module_guest)
    begin, begun = libvirt.virDomain.backupBegin, []

    def wait_and_begin(domain: libvirt.virDomain, *arguments: Any) -> Any:
        module_guest.wait_thawed()
        begun.append(time.monotonic() - started)
        return begin(domain, *arguments)

    monkeypatch.setattr(quiesce, "FROZEN_SECONDS", 3)
    monkeypatch.setattr(libvirt.virDomain, "backupBegin", wait_and_begin)
    machine = platform.inspect(module_guest.name)
    started = time.monotonic()
    with platform.open_snapshot(machine, REQUEST, Cancellation()) as snapshot:
        frozen, consistency, warnings = snapshot.frozen_seconds, snapshot.consistency, snapshot.warnings

    assert freezes(module_guest) == [*before, "freeze", "thaw", "thaw"], "the second is ours, and too late"
    assert consistency is Consistency.CRASH
    assert "could not begin within 3 s" in warnings[0]
    assert frozen == 3
    assert 3 <= begun[0] < 10, "what is beyond 3 s is a busy host's"


STOPPED = """
import os, signal, sys
from pathlib import Path
import libvirt
from hotspare.cancellation import Cancellation
from hotspare.platforms.libvirt import quiesce
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import SnapshotRequest
scratch, machine = sys.argv[1:]
quiesce.FROZEN_SECONDS = 3
begin = libvirt.virDomain.backupBegin
def stop_and_begin(*arguments):
    print("frozen", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    return begin(*arguments)
libvirt.virDomain.backupBegin = stop_and_begin
platform = LibvirtPlatform("qemu:///system", scratch_folder=Path(scratch))
request = SnapshotRequest(point_id="stopped", repository_id="0123456789", since={})
with platform.open_snapshot(platform.inspect(machine), request, Cancellation()) as snapshot:
    print(snapshot.consistency.value)
"""


def test_stopped_while_the_guest_is_frozen(scratch_folder: Path, module_guest: LabGuest) -> None:
    """Ctrl-Z, for example: nothing in our process can help the guest then."""
    module_guest.wait_thawed()
    before = freezes(module_guest)
    command = [sys.executable, "-c", STOPPED, str(scratch_folder), module_guest.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == "frozen\n"
            module_guest.wait_thawed()
            assert freezes(module_guest) == [*before, "freeze", "thaw"]
            assert run.poll() is None
        finally:
            os.kill(run.pid, signal.SIGCONT)
        assert run.stdout.read() == "crash\n"
    assert not list(scratch_folder.glob("stopped-*"))
