"""The network cards of a machine on its standby: what they are plugged into, and their MAC addresses."""

import hashlib
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence

from hotspare.errors import UsageError
from hotspare.platforms.libvirt.mapping import map_names, planned_cards
from hotspare.platforms.placement import Placement
from hotspare.platforms.platform import Machine
from hotspare.replication.failover.report import Card
from hotspare.replication.model import FailoverPolicy

ALL = "all"
"""In the place of a card: all that nothing else is said of."""
KEEP = "keep"
NEW = "new"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_GROUP = 0x01
"""Bit of the first byte (IEEE 802): the address is of many, and no card can have it."""
_OF_THE_HOST = "fe:"
"""Libvirt gives such addresses to the host's end of a card, and lets no machine have one."""
_LOCAL = "02:"
"""Locally administered, of one card. Neither libvirt (52:54:00) nor any vendor gives such addresses."""


def placement_of(policy: FailoverPolicy) -> Placement:
    """Say where a machine goes that stays the same machine on its standby."""
    return Placement(
        networks=policy.network_map,
        bridges=policy.network_map,
        keep_id=True,
        keep_macs=True,
        macs=policy.mac_map,
    )


def cards_of(machine: Machine, policy: FailoverPolicy | None = None) -> list[Card]:
    """List the cards of a machine, and what they are on its standby (without a policy: the same)."""
    here = _definition(machine)
    map_names(here, placement_of(policy or FailoverPolicy()))
    return compare_cards(machine, here)


def compare_cards(machine: Machine, here: ET.Element) -> list[Card]:
    """List the cards of a machine as they were on its source, and as they are in a definition made of it."""
    source = planned_cards(_definition(machine), keep_macs=True)
    both = zip(source, planned_cards(here, keep_macs=True), strict=True)
    return [Card(mac=old.mac, here=new.mac, network=new.network) for old, new in both]


def choose_macs(choices: Sequence[tuple[str, str]], cards: Sequence[str], protection: str) -> dict[str, str]:
    """Give the MAC address on the standby by that of the source, for cards that get another one.

    Args:
        choices: card, or ``all``, and ``keep``, ``new`` or an address.
        cards: MAC addresses of the machine.
        protection: its id, which makes new addresses always the same.

    Raises:
        UsageError: a card that is not there, an address that no card can have, or one that two would have.
    """
    wanted: dict[str, str] = {}
    for name, value in choices:
        card = ALL if name == ALL else parse_mac(name)
        if card in wanted:
            raise _refused(f"What becomes of {name} is said twice", "Say it once")
        if card not in {ALL, *cards}:
            raise _refused(
                f"The machine has no network card with the MAC address {card}",
                f"It has {', '.join(cards) or 'none'}",
            )
        if card == ALL and value not in {KEEP, NEW}:
            raise _refused("All cards cannot have the same MAC address", 'Name one card for it, or say "new"')
        wanted[card] = value if value in {KEEP, NEW} else parse_mac(value)
    there = {card: _chosen(card, wanted.get(card, wanted.get(ALL, KEEP)), protection) for card in cards}
    for mac, times in Counter(there.values()).items():
        if times > 1:
            raise _refused(
                f"{times} cards of the machine would have the MAC address {mac}",
                "Choose one of its own for each; cards that are not named keep theirs",
            )
    return {card: mac for card, mac in there.items() if mac != card}


def parse_mac(text: str) -> str:
    """Give an address in small letters with colons. Raises ``UsageError`` for one that no card can have."""
    mac = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise _refused(f"{text!r} is no MAC address", "Write it as 52:54:00:12:34:56")
    if int(mac[:2], 16) & _GROUP:
        raise _refused(
            f"{mac} is a multicast address, which no network card can have",
            "Choose one whose first byte is even, 52:54:00:12:34:56 for example",
        )
    if mac.startswith(_OF_THE_HOST) or mac == "00:00:00:00:00:00":
        raise _refused(f"Libvirt lets no machine have the MAC address {mac}", "Choose another one")
    return mac


def mac_there(mac: str, mac_map: Mapping[str, str]) -> str:
    """Give the address that a card of the source has on the standby."""
    return mac_map.get(mac.lower(), mac.lower())


def _definition(machine: Machine) -> ET.Element:
    """Give it as libvirt has it; empty where the machine was described by something else."""
    if not machine.native.lstrip().startswith("<domain"):
        return ET.Element("domain")
    return ET.fromstring(machine.native)  # noqa: S314 - XML that libvirt gave us


def _chosen(card: str, choice: str, protection: str) -> str:
    if choice == KEEP:
        return card
    return _new_mac(card, protection) if choice == NEW else choice


def _new_mac(card: str, protection: str) -> str:
    """Make an address out of 40 bits that depend on the card and its replica alone."""
    made = hashlib.sha256(f"{protection} {card}".encode()).digest()[:5]
    return _LOCAL + made.hex(":")


def _refused(what: str, hint: str) -> UsageError:
    return UsageError(what, meaning="Nothing was changed", hint=hint)
