"""A machine goes on on its standby with all that it had acknowledged, never on both, and comes home again."""

import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.replication import protections
from hotspare.replication.failover import service
from hotspare.replication.link.wire import NOTHING
from hotspare.replication.model import FailoverPolicy, NamedProtection, Phase, Status
from lab.guest import LabGuest
from lab.two_hosts import Host
from tests.replication.failover.trio import QUICK, STATE, Acknowledged, Trio, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

ABROAD = "52:54:00:ab:0a:d0"
_LOAD_CARD = "for one in failover net_failover virtio_net; do insmod /modules/$one.ko; done;"


@pytest.fixture
def trio(lab_host: None) -> Iterator[Trio]:
    with Trio("failover") as trio:
        yield trio


def _mac(guest: LabGuest) -> str:
    """Give the MAC address of its network card."""
    mac = ET.fromstring(guest.xml).find("devices/interface/mac")
    assert mac is not None
    return mac.attrib["address"]


def _written(guest: LabGuest) -> int:
    """Give the last number in the file that the workload appends to; all before must be there."""
    numbers = guest.exec("cat /data/journal").split()
    assert [int(number) for number in numbers] == list(range(1, len(numbers) + 1))
    return len(numbers)


def _status(trio: Trio, host: Host, name: str) -> Status:
    with trio.asking(host) as asked:
        return next(one for one in asked.call(protections.STATUS, NOTHING) if one.protection.machine == name)


def test_a_killed_host_is_taken_over_and_does_not_start_the_machine_again(trio: Trio) -> None:
    hosts = trio.hosts
    guest = LabGuest.create("kept", host=hosts.source, network=True)
    guest.domain.setAutostart(1)
    guest.start().wait_ready()
    policy = FailoverPolicy(automatic=True, terms=QUICK, mac_map={_mac(guest): ABROAD})
    trio.protect(guest, policy=policy)
    trio.wait_armed(hosts.source, guest.name)
    guest.start_workload()
    wait_until(lambda: guest.acked() > 30, "it writes")

    # A rehearsal meanwhile: replication goes on, and nothing of it is left.
    before, began = guest.acked(), time.monotonic()
    checks = ("mount | grep -q ' /data '", f"{_LOAD_CARD} grep {ABROAD} /sys/class/net/*/address", "exit 3")
    with trio.asking(hosts.standby) as asked:
        asking = service.Rehearse(protection=guest.name, checks=checks)
        report = asked.call(service.REHEARSE, asking, timeout=200)
    print(f"rehearsed in {time.monotonic() - began:.1f} s: {[(s.name, s.seconds) for s in report.steps]}")
    assert [bool(step.problem) for step in report.steps] == [False] * 5 + [True, False]
    assert "status 3" in report.problem
    assert [(card.mac, card.here) for card in report.cards] == [(_mac(guest), ABROAD)]
    assert guest.acked() > before
    trio.wait_armed(hosts.source, guest.name)
    assert not [one for one in hosts.standby.connection().listAllDomains() if "rehearsal" in one.name()]
    assert not list(hosts.standby.outside(f"{STATE}/rehearsals").glob("*"))

    hosts.kill(hosts.source)
    acked = guest.acked()
    copy = LabGuest(guest.name, host=hosts.standby)
    seconds = wait_until(lambda: trio.lease(hosts.standby, guest.name).runs_here, "it runs on the standby")
    print(f"taken over after {seconds:.1f} s")
    copy.wait_ready()
    assert _written(copy) >= acked
    assert copy.exec("dmesg | grep -ci 'ext4.*error' || true") == "0"

    hosts.power_on(hosts.source)
    trio.start_agent(hosts.source)
    wait_until(lambda: trio.lease(hosts.source, guest.name).epoch == 2, "the source hears of it")
    time.sleep(2 * QUICK.beat)
    assert not guest.running
    assert not trio.lease(hosts.source, guest.name).runs_here
    assert not guest.domain.autostart()
    assert copy.running


@pytest.mark.parametrize("until", ["it is home", pytest.param("its agent is killed", marks=pytest.mark.soak)])
def test_a_source_that_is_cut_off_stands_still_and_the_machine_comes_home(
    trio: Trio, tmp_path: Path, until: str
) -> None:
    hosts = trio.hosts
    guest = LabGuest.create("cut", host=hosts.source, network=True)
    own = _mac(guest)
    copy = LabGuest(guest.name, host=hosts.standby)
    guest.start().wait_ready()
    guest.fill("/data/ballast", 6 * 2**20)
    fenced = tmp_path / "fenced"
    fence = f"touch {fenced}"
    policy = FailoverPolicy(automatic=True, terms=QUICK, fence_command=fence, mac_map={own: ABROAD})
    trio.protect(guest, policy=policy)
    trio.wait_armed(hosts.source, guest.name)
    guest.start_workload()
    wait_until(lambda: guest.acked() > 30, "it writes")
    _standby_is_cut_off(trio, guest)
    assert not fenced.exists()
    _source_is_cut_off(trio, guest, copy)
    assert fenced.exists()
    assert _mac(copy) == ABROAD
    _comes_home(trio, guest, copy)
    assert _mac(guest) == own
    if until == "its agent is killed":
        _agent_is_killed_at_home(trio, guest, copy)


def _standby_is_cut_off(trio: Trio, guest: LabGuest) -> None:
    """The source goes on, and nobody would take over, or fence it."""
    hosts = trio.hosts
    hosts.cut(hosts.source, hosts.standby)
    wait_until(lambda: not trio.lease(hosts.source, guest.name).armed, "it is disarmed")
    before = guest.acked()
    wait_until(lambda: guest.acked() > before + 10, "it writes without its replica")
    time.sleep(QUICK.lease)  # what the standby has promised has run out
    hosts.mend(hosts.source, hosts.standby)
    trio.wait_armed(hosts.source, guest.name)


def _source_is_cut_off(trio: Trio, guest: LabGuest, copy: LabGuest) -> None:
    """Its guest stands still before the other one starts."""
    hosts = trio.hosts
    seen = Acknowledged(guest, copy)
    hosts.cut_off(hosts.source)
    wait_until(lambda: trio.lease(hosts.standby, guest.name).runs_here, "it is taken over")
    copy.wait_ready()
    copy.start_workload("/data/journal2")
    wait_until(lambda: copy.acked() > 10, "it writes on the standby")
    seen.close()
    assert seen.last(0)[0] < seen.seen[1][0][0]
    assert _written(copy) >= guest.acked()


def _comes_home(trio: Trio, guest: LabGuest, copy: LabGuest) -> None:
    """The old guest is ended, and its disks are what the way home begins with."""
    hosts = trio.hosts
    hosts.mend_all()
    wait_until(lambda: not guest.running, "the old guest is ended")
    copy.fill("/data/new", 2**19)
    with trio.asking(hosts.standby) as asked:
        asked.call(service.REPROTECT, NamedProtection(protection=guest.name), timeout=60)
    wait_until(lambda: trio.phase(hosts.standby, guest.name) is Phase.PROTECTED, "it is protected again")
    status = _status(trio, hosts.standby, guest.name)
    print(f"way home: {status.bytes_compared} compared, {status.bytes_sent} sent")
    assert 2**19 <= status.bytes_sent < 5 * 2**20  # not the ballast
    digest = copy.sha256("/data/new")
    with trio.asking(hosts.source) as asked:
        asking = service.Failover(protection=guest.name, planned=True)
        report = asked.call(service.FAILOVER, asking, timeout=200)
    print(report.steps)
    assert not copy.running
    guest.wait_ready()
    assert guest.sha256("/data/new") == digest
    assert trio.lease(hosts.source, guest.name).epoch == 3


def _agent_is_killed_at_home(trio: Trio, guest: LabGuest, copy: LabGuest) -> None:
    """Nothing but the fence stops the guest then."""
    hosts = trio.hosts
    with trio.asking(hosts.source) as asked:
        asked.call(service.REPROTECT, NamedProtection(protection=guest.name), timeout=60)
    trio.wait_armed(hosts.source, guest.name)
    guest.start_workload("/data/journal3")
    wait_until(lambda: int(guest.exec("cat /data/journal3 2>/dev/null | wc -l")) > 10, "it writes at home")
    trio.kill_agent(hosts.source)
    wait_until(lambda: trio.lease(hosts.standby, guest.name).runs_here, "it is taken over")
    acked = guest.acked()
    copy.wait_ready()
    assert guest.acked() == acked  # it stands still
    assert guest.running  # and nobody but the fence has seen to that
    assert len(copy.exec("cat /data/journal3").split()) >= acked
    trio.start_agent(hosts.source)
    wait_until(lambda: not guest.running, "the agent ends what the fence has stopped")
