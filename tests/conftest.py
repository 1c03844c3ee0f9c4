"""Fixtures that any test may use: guests of the lab (see lab/ and CONTRIBUTING.md)."""

from collections.abc import Iterator

import pytest

from lab import DiskSpec, LabGuest, ensure_host, sweep
from lab.image import guest_image

_MIB = 1024 * 1024


@pytest.fixture(scope="session")
def lab_host() -> None:
    """A host on which guests can be made: libvirt runs, the guest's system is built, leftovers are gone."""
    ensure_host()
    sweep()
    guest_image()


@pytest.fixture
def guest(lab_host: None) -> Iterator[LabGuest]:
    """A running guest of this test alone, with a small qcow2 disk at /data."""
    with _small_guest("test") as running:
        yield running


@pytest.fixture(scope="module")
def module_guest(lab_host: None) -> Iterator[LabGuest]:
    """A running guest that the tests of one module share; each must leave it running and thawed."""
    with _small_guest("module") as running:
        yield running


def _small_guest(label: str) -> LabGuest:
    guest = LabGuest.create(label, disks=[DiskSpec(size=64 * _MIB)])
    try:
        guest.start().wait_ready()
    except BaseException:
        guest.remove()
        raise
    return guest
