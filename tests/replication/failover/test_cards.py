"""Which MAC address a network card has on the standby."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.errors import UsageError
from hotspare.platforms.platform import Machine, PowerState
from hotspare.replication.failover.cards import cards_of, choose_macs, mac_there, parse_mac
from hotspare.replication.failover.report import Card
from hotspare.replication.model import FailoverPolicy

ONE, OTHER, SET = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:99"
NATIVE = f"""
<domain type='qemu'><name>web</name><devices>
  <interface type='network'><mac address='{ONE.upper()}'/><source network='lan'/></interface>
  <interface type='bridge'><mac address='{OTHER}'/><source bridge='br0'/></interface>
</devices></domain>"""
_macs = st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=6, unique=True).map(
    lambda numbers: [f"52:{number.to_bytes(5).hex(':')}" for number in numbers]
)


def test_each_card_keeps_its_address_gets_a_new_one_or_that_which_is_set() -> None:
    assert choose_macs([(ONE, "keep")], [ONE, OTHER], "p") == {}
    assert choose_macs([(ONE.upper(), SET.replace(":", "-"))], [ONE, OTHER], "p") == {ONE: SET}
    made = choose_macs([("all", "new"), (OTHER, "keep")], [ONE, OTHER], "p")
    assert list(made) == [ONE]
    assert parse_mac(made[ONE]).startswith("02:")
    # Cards may change places.
    assert choose_macs([(ONE, OTHER), (OTHER, ONE)], [ONE, OTHER], "p") == {ONE: OTHER, OTHER: ONE}


@given(cards=_macs)
def test_new_addresses_are_always_the_same_and_each_card_has_its_own(cards: list[str]) -> None:
    made = choose_macs([("all", "new")], cards, "p")
    assert made == choose_macs([("all", "new")], cards[::-1], "p")
    assert len({*made.values(), *cards}) == 2 * len(cards)
    elsewhere = choose_macs([("all", "new")], cards, "q")
    assert not set(made.values()) & set(elsewhere.values())


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ([(ONE, "01:00:5e:00:00:01")], "multicast"),
        ([(ONE, "ff:ff:ff:ff:ff:ff")], "multicast"),
        ([(ONE, "00:00:00:00:00:00")], "Libvirt lets no machine"),
        ([(ONE, "fe:54:00:00:00:01")], "Libvirt lets no machine"),
        ([(ONE, "fresh")], "'fresh' is no MAC address"),
        ([("eth0", "new")], "'eth0' is no MAC address"),
        ([(SET, "new")], f"no network card with the MAC address {SET}"),
        ([(ONE, "new"), (ONE.upper(), "keep")], "said twice"),
        ([("all", "new"), ("all", "keep")], "said twice"),
        ([("all", SET)], "All cards cannot have the same"),
        ([(ONE, SET), (OTHER, SET)], f"2 cards of the machine would have the MAC address {SET}"),
        ([(ONE, OTHER)], f"2 cards of the machine would have the MAC address {OTHER}"),
    ],
)
def test_what_cannot_be_is_refused(choices: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose_macs(choices, [ONE, OTHER], "p")


def test_cards_are_listed_as_they_are_on_the_standby() -> None:
    machine = Machine(id="u", name="web", platform="qemu:///system", state=PowerState.RUNNING, native=NATIVE)
    policy = FailoverPolicy(network_map={"lan": "lan2"}, mac_map={ONE: SET})
    assert cards_of(machine, policy) == [
        Card(mac=ONE, here=SET, network="network lan2"),
        Card(mac=OTHER, here=OTHER, network="bridge br0"),
    ]
    assert [card.here for card in cards_of(machine)] == [ONE, OTHER]


def test_an_address_inside_is_set_on_the_card_that_has_become_another() -> None:
    assert mac_there(ONE.upper(), {ONE: SET}) == SET
    assert mac_there(OTHER, {ONE: SET}) == OTHER
