"""A machine with UEFI and a TPM is taken over with all that it is beside its disks, and brings it home."""

import json
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from hotspare.errors import TargetExists, UsageError
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication import protections
from hotspare.replication.failover import service
from hotspare.replication.failover.report import Card
from hotspare.replication.link.wire import NOTHING
from hotspare.replication.model import FailoverPolicy, NamedProtection
from lab.guest import LabGuest
from lab.programs import run
from lab.two_hosts import Host
from tests.platforms.libvirt.firmware import (
    BOOT_SECONDS,
    change_in_tpm,
    mount_variables,
    recall_from_tpm,
    recall_from_variable,
    remember_in_tpm,
    remember_in_variable,
)
from tests.replication.failover.trio import PATIENT, STATE, Trio, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

MAC = "52:54:00:77:00:05"
_AT_BOOT = """
sleep 2  # as long as it takes, its agent answers and there is no network card
for module in failover net_failover virtio_net; do insmod /modules/$module.ko; done
"""


def _make_network(host: Host, name: str, address: str = "") -> None:
    """Make a network that lives and comes back with a host, where the host may have an address."""
    # "open": without rules of a firewall.
    way = f"<forward mode='open'/><ip address='{address}' netmask='255.255.255.0'/>" if address else ""
    network = host.connection().networkDefineXML(
        f"<network><name>{name}</name><bridge name='{name}'/><dns enable='no'/>{way}</network>"
    )
    network.setAutostart(1)
    network.create()


def _make_guest(host: Host) -> LabGuest:
    guest = LabGuest.create("along", host=host, uefi=True, tpm=True, network=True)
    root = ET.fromstring(guest.xml)
    card = root.find("devices/interface")
    assert card is not None
    card.set("type", "network")
    ET.SubElement(card, "source", network="lan")
    mac = card.find("mac")
    assert mac is not None
    mac.set("address", MAC)
    host.connection().defineXML(ET.tostring(root, encoding="unicode"))
    return guest


def _card(guest: LabGuest) -> tuple[str, str]:
    """Give the MAC address of its network card, and the network that it is plugged into."""
    root = ET.fromstring(guest.xml)
    mac, source = root.find("devices/interface/mac"), root.find("devices/interface/source")
    assert mac is not None
    assert source is not None
    return mac.attrib["address"], source.attrib["network"]


def _gets_new_mac(trio: Trio, guest: LabGuest) -> str:
    """Have the card's MAC address changed on the standby, which the user is told beforehand; gives it."""
    hosts, program = trio.hosts, Path(sys.executable).parent / "hotspare"
    words = ["replica", "policy", guest.name, "--map-mac", "all=new", "--state", STATE, "-o", "json"]
    mac_map = json.loads(hosts.source.run(program, *words))["mac_map"]
    assert list(mac_map) == [MAC]

    def known() -> bool:
        with trio.asking(hosts.standby) as asked:
            return any(
                one.protection.failover.mac_map == mac_map for one in asked.call(protections.STATUS, NOTHING)
            )

    wait_until(known, "the standby knows of it")
    new = str(mac_map[MAC])
    dry_run = service.Failover(protection=guest.name, dry_run=True)
    other = f"<interface type='user'><mac address='{new}'/></interface>"
    with trio.asking(hosts.standby) as asked:
        report = asked.call(service.FAILOVER, dry_run)
        assert report.cards == [Card(mac=MAC, here=new, network="network lan2")]
        taken = hosts.standby.connection().defineXML(
            "<domain type='qemu'><name>other</name><memory unit='MiB'>32</memory>"
            f"<os><type arch='x86_64'>hvm</type></os><devices>{other}</devices></domain>"
        )
        with pytest.raises(TargetExists, match=f"The machine other has the MAC address {new} already"):
            asked.call(service.FAILOVER, dry_run)
        taken.undefine()
    return new


def _has_points_of_frozen_file_systems(trio: Trio, replica: Path, guest: LabGuest) -> None:
    """Each point is made so here: the journal of a file system in it has nothing to be replayed."""

    def rated() -> list[ReplicaPoint]:
        found = trio.points(trio.hosts.standby, guest.name)
        return [point for point in found if point.consistency == "filesystem"]

    wait_until(rated, "a point is known to be that")  # a moment after it was made
    found = rated()[0]
    assert found.warnings == ()
    raw = replica / "frozen.raw"
    run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", replica / found.disks[0].image, raw)
    assert "needs_recovery" not in run("dumpe2fs", "-h", raw)
    raw.unlink()
    guest.exec("echo thawed > /data/thawed; sync /data/thawed")


@pytest.mark.parametrize("home", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_networks_addresses_commands_variables_and_tpm(lab_host: None, tmp_path: Path, *, home: bool) -> None:
    with Trio("along") as trio:
        guest = _make_guest(trio.hosts.source)
        _is_taken_over(trio, guest, tmp_path)
        if home:
            _comes_home(trio, guest)


def _is_taken_over(trio: Trio, guest: LabGuest, tmp_path: Path) -> None:
    hosts = trio.hosts
    _make_network(hosts.source, "lan")
    _make_network(hosts.standby, "lan2", "10.77.0.1")
    copy = LabGuest(guest.name, host=hosts.standby)
    began = time.monotonic()
    guest.start().wait_ready(BOOT_SECONDS)
    guest.write_file("/data/at-boot", _AT_BOOT.encode())
    mount_variables(guest)
    remember_in_variable(guest, "First", b"of the source")
    remember_in_tpm(guest, b"sealed at home")
    print(f"{time.monotonic() - began:.1f} s: it is up")

    fenced, off, moved = tmp_path / "fenced", tmp_path / "off", tmp_path / "moved"
    policy = FailoverPolicy(
        automatic=True,
        terms=PATIENT,
        fence_command=f"echo $HOTSPARE_MACHINE $HOTSPARE_HOST >> {fenced}; test -e {off}",
        network_map={"lan": "lan2"},
        addresses={MAC: "10.77.0.5/24 via 10.77.0.1"},
        after_start=f"env | grep ^HOTSPARE_ > {moved}.new; mv {moved}.new {moved}",
    )
    protection = trio.protect(guest, terms=PATIENT, policy=policy, interval=3, application_interval=1)
    trio.wait_armed(hosts.source, guest.name)
    _has_points_of_frozen_file_systems(
        trio, hosts.standby.outside(f"{STATE}/replicas/{protection.id}"), guest
    )
    guest.start_workload()
    new = _gets_new_mac(trio, guest)
    wait_until(lambda: guest.acked() > 20, "it writes")

    trio.wait_armed(hosts.source, guest.name)
    hosts.kill(hosts.source)
    acked = guest.acked()
    wait_until(fenced.exists, "the source is to be fenced")
    time.sleep(3)
    assert trio.lease(hosts.standby, guest.name).epoch == 1
    assert guest.name not in [domain.name() for domain in hosts.standby.connection().listAllDomains()]
    off.touch()
    wait_until(lambda: trio.lease(hosts.standby, guest.name).runs_here, "it is taken over")
    # Not again and again in each beat of the lease: a management board would lock us out.
    calls = fenced.read_text().splitlines()
    assert set(calls) == {f"{guest.name} source"}
    print(f"{time.monotonic() - began:.1f} s: taken over after {len(calls)} calls of the fence command")

    copy.wait_ready(BOOT_SECONDS)
    print(f"{time.monotonic() - began:.1f} s: up on the standby")
    assert len(copy.exec("cat /data/journal").split()) >= acked
    _is_as_it_was(trio, copy, moved)
    assert _card(copy) == (new, "lan2")
    assert new in copy.exec("ip link show")


def _is_as_it_was(trio: Trio, copy: LabGuest, moved: Path) -> None:
    """In another network, with other addresses; the rest is the same."""
    wait_until(moved.exists, "the command is run when all is up", 120)
    said = dict(line.split("=", 1) for line in moved.read_text().splitlines())
    assert said["HOTSPARE_MACHINE"] == copy.name
    assert said["HOTSPARE_EPOCH"] == "2"
    assert said["HOTSPARE_ADDRESSES"] == "10.77.0.5/24 via 10.77.0.1"
    assert "10.77.0.5/24" in copy.exec("ip -4 address show")
    assert "default via 10.77.0.1" in copy.exec("ip route")
    copy.exec("ping -c 1 -w 20 10.77.0.1")
    mount_variables(copy)
    assert recall_from_variable(copy, "First") == b"of the source"
    assert recall_from_tpm(copy, 14) == b"sealed at home"
    report = trio.lease(trio.hosts.standby, copy.name).report
    assert report is not None
    print(msgspec.json.encode(report).decode())
    assert report.problem == ""
    (warning,) = report.warnings
    assert "TPM state are as of" in warning


def _comes_home(trio: Trio, guest: LabGuest) -> None:
    """There, old variables and an old TPM of it are."""
    hosts = trio.hosts
    copy, began = LabGuest(guest.name, host=hosts.standby), time.monotonic()
    remember_in_variable(copy, "Second", b"of the standby")
    change_in_tpm(copy, b"sealed abroad.")
    # An agent that starts anew looks after the machine, and leaves what it is by now alone.
    trio.kill_agent(hosts.standby)
    trio.start_agent(hosts.standby)
    wait_until(lambda: trio.lease(hosts.standby, guest.name).runs_here, "it is looked after")
    hosts.power_on(hosts.source)
    trio.start_agent(hosts.source)
    wait_until(lambda: trio.lease(hosts.source, guest.name).epoch == 2, "the source hears of it")
    with trio.asking(hosts.standby) as asked:
        asked.call(service.REPROTECT, NamedProtection(protection=guest.name), timeout=60)
    trio.wait_armed(hosts.standby, guest.name)
    print(f"{time.monotonic() - began:.1f} s: protected in the other direction")
    asking = service.Failover(protection=guest.name, planned=True)
    network = hosts.source.connection().networkLookupByName("lan")
    network.destroy()
    network.undefine()
    with trio.asking(hosts.source) as asked:
        with pytest.raises(UsageError, match="the network 'lan', which this host does not have"):
            asked.call(service.FAILOVER, asking, timeout=200)
        assert copy.running
        _make_network(hosts.source, "lan")
        report = asked.call(service.FAILOVER, asking, timeout=200)
    assert report.warnings == []
    guest.wait_ready(BOOT_SECONDS)
    print(f"{time.monotonic() - began:.1f} s: home")
    assert _card(guest) == (MAC, "lan")
    mount_variables(guest)
    assert recall_from_variable(guest, "First") == b"of the source"
    assert recall_from_variable(guest, "Second") == b"of the standby"
    assert recall_from_tpm(guest, 14) == b"sealed abroad."
