"""Fixtures that any test may use: guests of the lab (see lab/ and CONTRIBUTING.md)."""

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from hotspare.repository.keys import slot
from lab import DiskSpec, LabGuest, ensure_host, sweep
from lab.image import guest_image
from tests.long_files import LONG_FILES

_MIB = 1024 * 1024

# An example may take as long as it takes on a busy host; a test as a whole has its timeout.
settings.register_profile("busy host", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy host")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give tests on real virtual machines a second try, which the summary shows; long files go first.

    Guests under emulation share two cores with other tests: now and then one is not up in time. All other
    tests have one try.

    A file is done by one process. A long one that is begun late has the other processes wait for it with
    nothing to do.
    """
    for item in items:
        if item.get_closest_marker("lab"):
            item.add_marker(pytest.mark.flaky(reruns=1))
    if hasattr(config, "workerinput"):  # one of several processes
        places = {name: place for place, name in enumerate(LONG_FILES)}
        items.sort(key=lambda item: places.get(item.location[0].removeprefix("tests/"), len(places)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests counted that run for some time, not for a number of rounds."""
    counted = Counter[str]()
    for report in terminalreporter.getreports("passed"):
        if report.when == "call":
            for name, count in report.user_properties:
                counted[name] += int(count)
    for name, total in counted.items():
        terminalreporter.write_line(f"{total} {name}")


@pytest.fixture(scope="session", autouse=True)
def _cheap_passphrases() -> Iterator[None]:
    """Slots that cost little to open: hundreds of repositories are made, each opened many times.

    What a passphrase costs by default is tested in tests/repository/test_keys.py; commands that make a
    repository in a process of their own, as the demonstration does, pay it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            slot, "new_kdf", lambda: slot.Kdf(salt="c2FsdCBvZiB0ZXN0cw==", passes=1, memory_kib=64, lanes=1)
        )
        yield


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
