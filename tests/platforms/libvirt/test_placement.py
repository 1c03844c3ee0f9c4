"""A machine that comes to another host: pools, networks, identities; refused before anything is made."""

import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import msgspec
import pytest

from hotspare.errors import HotspareError, PlatformUnavailable, TargetExists, UsageError
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.offers import offers_of
from hotspare.platforms.placement import Placement
from hotspare.platforms.platform import Machine, TargetRequest
from hotspare.platforms.registry import networks_of
from lab import connection, domain_name
from lab.sweep import remove_domain
from tests.platforms.libvirt.bare_machine import MIB, BareMachine
from tests.platforms.libvirt.lost_connection import mortal_platform

pytestmark = pytest.mark.lab

MAC = "52:54:00:c0:ff:ee"


@pytest.fixture(scope="module")
def network(lab_host: None) -> Iterator[str]:
    """A network that is defined, though not started."""
    name = domain_name("net")
    made = connection().networkDefineXML(f"<network><name>{name}</name><forward mode='none'/></network>")
    yield name
    made.undefine()


@pytest.fixture(scope="module")
def pool(lab_host: None) -> Iterator[libvirt.virStoragePool]:
    name = domain_name("pool")
    with tempfile.TemporaryDirectory(prefix="hotspare-test-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        xml = f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
        made = connection().storagePoolCreateXML(xml)
        yield made
        made.destroy()


@pytest.fixture(scope="module")
def bare(lab_host: None) -> Iterator[BareMachine]:
    with BareMachine("placed", ("qcow2", "raw"), size=2 * MIB) as made:
        yield made


@pytest.fixture
def machine(bare: BareMachine, platform: LibvirtPlatform) -> Machine:
    """It as from another host: with a card in a network that this one lacks, and a new UUID."""
    described = platform.inspect(bare.name)
    root = ET.fromstring(described.native)
    devices = root.find("devices")
    assert devices is not None
    card = ET.SubElement(devices, "interface", type="network")
    ET.SubElement(card, "mac", address=MAC)
    ET.SubElement(card, "source", network="elsewhere")
    identity = "5a1f0c5e-8a52-4d53-9d5c-0b6f9f0c3c11"
    uuid = root.find("uuid")
    assert uuid is not None
    uuid.text = identity
    return msgspec.structs.replace(described, id=identity, native=ET.tostring(root, encoding="unicode"))


@pytest.fixture
def name(bare: BareMachine) -> Iterator[str]:
    wanted = domain_name("moved")
    yield wanted
    for domain in connection().listAllDomains():
        if domain.name() == wanted:
            root = ET.fromstring(domain.XMLDesc())
            remove_domain(domain)
            for source in root.iterfind("devices/disk[@device='disk']/source"):
                Path(source.attrib["file"]).unlink(missing_ok=True)


def request(name: str, network: str = "", folder: Path | None = None, **chosen: Any) -> TargetRequest:
    networks = {"elsewhere": network} if network else {}
    placement = replace(Placement(networks=networks), **chosen)
    return TargetRequest(name=name, folder=folder, placement=placement)


def made(platform: LibvirtPlatform, machine: Machine, wanted: TargetRequest) -> ET.Element:
    target = platform.create_target(machine, wanted)
    try:
        for disk in machine.disks:
            with closing(target.writer(disk.name)) as writer:
                writer.write(0, b"x" * 512)
                writer.flush()
        target.finalize()
    finally:
        target.discard()
    return ET.fromstring(connection().lookupByName(wanted.name).XMLDesc())


def attribute(root: ET.Element, path: str, key: str) -> str:
    element = root.find(path)
    assert element is not None
    return element.attrib[key]


def test_to_a_pool_and_another_network(
    platform: LibvirtPlatform,
    machine: Machine,
    name: str,
    network: str,
    pool: libvirt.virStoragePool,
    scratch_folder: Path,
) -> None:
    wanted = request(name, network, pool=pool.name(), places={"vdb": f"{scratch_folder}/disks"})
    plan = platform.plan_target(machine, wanted)
    assert [disk.pool for disk in plan.disks] == [pool.name(), ""]
    assert plan.cards[0].network == f"network {network}"
    assert any("net-start" in warning for warning in plan.warnings)
    root = made(platform, machine, wanted)

    assert attribute(root, "devices/interface/source", "network") == network
    assert attribute(root, "devices/interface/mac", "address") != MAC
    assert root.findtext("uuid") != machine.id
    sources = [source.attrib["file"] for source in root.iterfind("devices/disk[@device='disk']/source")]
    assert sources == [disk.path for disk in plan.disks]
    volume = connection().storageVolLookupByPath(sources[0])
    assert (volume.name(), volume.info()[1]) == (f"{name}-vda.qcow2", 2 * MIB)
    assert pool.listVolumes() == [volume.name()]
    assert sources[1] == f"{scratch_folder}/disks/{name}-vdb.raw"


def test_what_there_is_to_choose_from_is_said(
    platform: LibvirtPlatform, machine: Machine, network: str, pool: libvirt.virStoragePool
) -> None:
    offers = offers_of(platform)
    assert network in offers.networks
    assert pool.name() in offers.pools
    assert networks_of(machine) == (("network", "elsewhere"),)
    assert networks_of(msgspec.structs.replace(machine, native="")) == ()


def test_identities_are_kept_if_they_are_free(
    platform: LibvirtPlatform, machine: Machine, name: str, network: str, scratch_folder: Path
) -> None:
    wanted = request(name, network, scratch_folder, keep_id=True, keep_macs=True)
    plan = platform.plan_target(machine, wanted)
    assert (plan.id, plan.cards[0].mac) == (machine.id, MAC)
    root = made(platform, machine, wanted)
    assert root.findtext("uuid") == machine.id
    assert attribute(root, "devices/interface/mac", "address") == MAC

    for kept, says in (
        ({"keep_id": True}, f"{name} has the UUID"),
        ({"keep_macs": True}, f"{name} has the MAC"),
    ):
        with pytest.raises(TargetExists, match=says):
            platform.create_target(machine, request("other", network, scratch_folder, **kept))
    assert len(list(scratch_folder.glob("other*"))) == 0


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({}, "network 'elsewhere'.*There are: .*net.*--map-network elsewhere=NEW"),
        ({"pool": "no-such-pool"}, "no storage pool 'no-such-pool'.*There are: "),
        ({"places": {"vdz": "/x"}}, "no disk 'vdz'.*Its disks: vda, vdb"),
    ],
)
def test_what_is_missing_here_is_said_before_anything_is_made(
    platform: LibvirtPlatform,
    machine: Machine,
    network: str,
    pool: libvirt.virStoragePool,
    scratch_folder: Path,
    chosen: dict[str, Any],
    says: str,
) -> None:
    with pytest.raises(UsageError) as refused:
        platform.create_target(machine, request("never-made", folder=scratch_folder / "new", **chosen))
    assert refused.match(says)
    assert list(scratch_folder.iterdir()) == []


def test_a_bridge_that_is_missing(platform: LibvirtPlatform, machine: Machine, scratch_folder: Path) -> None:
    bridged = msgspec.structs.replace(
        machine,
        native=machine.native.replace('<interface type="network">', '<interface type="bridge">').replace(
            'network="elsewhere"', 'bridge="br-elsewhere"'
        ),
    )
    with pytest.raises(UsageError, match=r"bridge 'br-elsewhere'.*--map-bridge br-elsewhere=NEW"):
        platform.plan_target(bridged, request("never-made", folder=scratch_folder))
    mapped = request("never-made", folder=scratch_folder, bridges={"br-elsewhere": "lo"})
    assert platform.plan_target(bridged, mapped).cards[0].network == "bridge lo"


def test_a_type_of_machine_that_qemu_lacks_here(
    platform: LibvirtPlatform, machine: Machine, name: str, network: str, scratch_folder: Path
) -> None:
    kind = ET.fromstring(machine.native).find("os/type")
    assert kind is not None
    newer = msgspec.structs.replace(
        machine, native=machine.native.replace(kind.attrib["machine"], "pc-i440fx-99.9")
    )
    with pytest.raises(UsageError, match=r"pc-i440fx-99\.9"):
        platform.plan_target(newer, request(name, network, scratch_folder))
    root = made(
        platform, newer, request(name, network, scratch_folder, machine_types={"pc-i440fx-99.9": "pc"})
    )
    assert attribute(root, "os/type", "machine").startswith("pc-i440fx-")


def test_a_cpu_that_is_not_known_here_is_warned_of(
    platform: LibvirtPlatform, machine: Machine, network: str, scratch_folder: Path
) -> None:
    root = ET.fromstring(machine.native)
    for cpu in root.findall("cpu"):
        root.remove(cpu)
    ET.SubElement(ET.SubElement(root, "cpu", mode="custom"), "model").text = "Future-CPU"
    strange = msgspec.structs.replace(machine, native=ET.tostring(root, encoding="unicode"))
    plan = platform.plan_target(strange, request("never-made", network, scratch_folder))
    assert any("Future-CPU" in warning for warning in plan.warnings)


def test_a_name_that_is_taken(
    platform: LibvirtPlatform, machine: Machine, bare: BareMachine, network: str
) -> None:
    with pytest.raises(TargetExists, match="--in-place"):
        platform.plan_target(machine, request(bare.name, network))


def test_what_libvirt_refuses_leaves_nothing(
    platform: LibvirtPlatform, machine: Machine, name: str, network: str, scratch_folder: Path
) -> None:
    folder = scratch_folder / "disks"
    target = platform.create_target(machine, request(name, network, folder))
    connection().defineXML(
        f"<domain type='qemu'><name>{name}</name><memory>1</memory><os><type>hvm</type></os></domain>"
    )
    with pytest.raises(HotspareError):
        target.finalize()
    target.discard()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("back", [True, False])
def test_the_answer_that_a_new_machine_is_made_is_lost(
    machine: Machine,
    name: str,
    network: str,
    scratch_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    back: bool,
) -> None:
    """It is there with its disks, whether libvirt can be asked again or not."""
    define = libvirt.virConnect.defineXML

    def stays_away(uri: str) -> libvirt.virConnect:
        raise PlatformUnavailable(f"libvirt does not answer at {uri}")

    with mortal_platform(scratch_folder) as mortal, monkeypatch.context() as patch:

        def define_and_lose(lost: libvirt.virConnect, definition: str) -> Any:
            define(lost, definition)
            mortal.cut()
            return define(lost, definition)

        patch.setattr(libvirt.virConnect, "defineXML", define_and_lose)
        wanted = request(name, network, scratch_folder / "disks")
        if back:
            made(mortal, machine, wanted)
        else:
            patch.setattr("hotspare.platforms.libvirt.target.open_connection", stays_away)
            with pytest.raises(PlatformUnavailable, match="was lost while it defined"):
                made(mortal, machine, wanted)

    root = ET.fromstring(connection().lookupByName(name).XMLDesc())
    sources = [source.attrib["file"] for source in root.iterfind("devices/disk[@device='disk']/source")]
    assert sources
    assert sorted(sources) == sorted(str(path) for path in (scratch_folder / "disks").iterdir())
