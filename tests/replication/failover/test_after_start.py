"""What is done once a machine is up on its standby: the user's command, and addresses inside."""

import subprocess
from pathlib import Path

import pytest

from hotspare.errors import HotspareError
from hotspare.platforms.platform import Machine, PowerState
from hotspare.replication.failover import machine as machines
from hotspare.replication.failover import takeover
from hotspare.replication.failover.active import Active
from hotspare.replication.failover.reprotect import turned
from hotspare.replication.model import FailoverPolicy, Mode, Protection

MAC = "02:00:00:00:00:07"
NEW_MAC = "02:00:00:00:00:77"


def _protection(command: str = "") -> Protection:
    policy = FailoverPolicy(
        after_start=command,
        addresses={MAC: "10.0.0.5/24 via 10.0.0.1"},
        network_map={"lan": "lan2"},
        mac_map={MAC: NEW_MAC},
    )
    return Protection(
        id="p", machine_id="uuid", machine="web", mode=Mode.SYNC, source="a", standby="b", failover=policy
    )


def test_the_command_learns_what_was_started(tmp_path: Path) -> None:
    said = tmp_path / "said"
    machine = Machine(id="uuid", name="web", platform="qemu:///system", state=PowerState.RUNNING)
    active = Active(epoch=4, since=0, point="one", newest=True, disks=(), machine=machine, state=())
    takeover._run_hook(_protection(f"env | grep ^HOTSPARE_ | sort > {said}"), active)
    assert said.read_text().splitlines() == [
        "HOTSPARE_ADDRESSES=10.0.0.5/24 via 10.0.0.1",
        "HOTSPARE_EPOCH=4",
        "HOTSPARE_MACHINE=web",
        "HOTSPARE_MACHINE_ID=uuid",
        "HOTSPARE_POINT=one",
    ]


def test_a_command_that_fails_says_so() -> None:
    with pytest.raises(HotspareError, match="status 7: no such name"):
        takeover.run_command("echo no such name; exit 7", {})


def test_an_address_is_changed_inside() -> None:
    """The script, in a network and with a sysfs of its own, as in a guest."""
    script = f"""
        mount -t sysfs sysfs /sys && ip link add card type veth peer name other || exit 1
        ip link set card address {MAC} && ip address add 192.0.2.1/24 dev card || exit 1
        sh -c "$0" hotspare {MAC} 10.0.0.5/24 10.0.0.1 || exit 1
        ip -4 -brief address show card; ip -4 route show default
        sh -c "$0" hotspare 02:00:00:00:00:08 10.0.0.6/24 ''
    """
    words = ["unshare", "--net", "--mount", "sh", "-c", script, machines._ADDRESS_SCRIPT]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "10.0.0.5/24" in done.stdout, done.stderr
    assert "192.0.2.1" not in done.stdout
    assert "default via 10.0.0.1 dev card" in done.stdout
    assert (done.returncode, "no network card has the address" in done.stdout) == (3, True)


def test_a_protection_is_turned_with_its_networks_and_mac_addresses() -> None:
    other = turned(_protection())
    assert (other.source, other.standby) == ("b", "a")
    assert other.failover.network_map == {"lan2": "lan"}
    assert other.failover.mac_map == {NEW_MAC: MAC}
    assert other.failover.addresses == {}
    again = turned(other).failover
    assert (again.network_map, again.mac_map) == ({"lan": "lan2"}, {MAC: NEW_MAC})
