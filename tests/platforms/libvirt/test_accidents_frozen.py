"""Accidents in the instant that a real guest is frozen: it is always thawed, and soon."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from hotspare.cancellation import Cancellation
from hotspare.errors import PlatformUnavailable
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


def wait_until_thawed(guest: LabGuest) -> None:
    """A frozen guest's agent refuses to execute anything."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            guest.exec("echo alive > /data/alive && sync /data/alive")
        except libvirt.libvirtError:
            assert time.monotonic() < deadline, "the guest stays frozen"
            time.sleep(0.05)
        else:
            return


def test_libvirt_is_lost_while_the_guest_is_frozen(
    mortal: MortalPlatform,
    platform: LibvirtPlatform,
    module_guest: LabGuest,
    scratch_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait_until_thawed(module_guest)
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

    wait_until_thawed(module_guest)
    assert freezes(module_guest) == [*before, "freeze", "thaw"]
    with platform.open_snapshot(platform.inspect(module_guest.name), REQUEST, Cancellation()) as snapshot:
        assert snapshot.consistency is Consistency.FILESYSTEM
    assert not list(scratch_folder.glob("frozen-*"))
