"""What a machine does while parties are lost and nobody takes over: it goes on, but for the one case."""

import os
import random
import time
from collections.abc import Iterator

import pytest

from hotspare.replication.model import Phase
from lab.guest import LabGuest
from tests.replication.failover.trio import QUICK, Acknowledged, Trio, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]
ROUNDS = int(os.environ.get("FAILOVER_ROUNDS", "0"))
"""Of the campaign; each takes half a minute and more."""


@pytest.fixture
def trio(lab_host: None) -> Iterator[Trio]:
    with Trio("partitions") as trio:
        yield trio


@pytest.fixture
def guest(trio: Trio) -> LabGuest:
    guest = LabGuest.create("writer", host=trio.hosts.source)
    guest.start().wait_ready()
    trio.protect(guest)
    trio.wait_armed(trio.hosts.source, guest.name)
    guest.start_workload()
    wait_until(lambda: guest.acked() > 10, "it writes")
    return guest


def _goes_on(guest: LabGuest) -> None:
    before = guest.acked()
    wait_until(lambda: guest.acked() > before + 5, "it writes on")


def test_losing_one_after_the_other_stops_nothing_losing_both_at_once_stops_it_for_a_while(
    trio: Trio, guest: LabGuest
) -> None:
    hosts = trio.hosts

    # The witness: nobody takes over, the replica follows all the same. Then the standby, too.
    hosts.kill(hosts.witness)
    wait_until(lambda: not trio.lease(hosts.source, guest.name).armed, "it is disarmed")
    time.sleep(QUICK.lease)
    _goes_on(guest)
    wait_until(lambda: trio.phase(hosts.source, guest.name) is Phase.PROTECTED, "the replica follows")
    hosts.cut(hosts.source, hosts.standby)
    wait_until(lambda: trio.phase(hosts.source, guest.name) is Phase.DEGRADED, "it goes on alone")
    _goes_on(guest)

    # Both are back, the witness with what it had on its disk.
    hosts.power_on(hosts.witness)
    hosts.mend_all()
    trio.start_agent(hosts.witness)
    trio.wait_armed(hosts.source, guest.name)

    # The standby's agent dies, and the witness is cut off before anybody could be asked.
    trio.kill_agent(hosts.standby)
    hosts.cut(hosts.source, hosts.witness)
    time.sleep(QUICK.lease + 1)
    stopped_at = guest.acked()
    time.sleep(1)
    assert guest.acked() == stopped_at
    assert guest.running
    hosts.mend_all()
    _goes_on(guest)
    trio.start_agent(hosts.standby)
    trio.wait_armed(hosts.source, guest.name)
    assert trio.lease(hosts.source, guest.name).epoch == 1


@pytest.mark.skipif(ROUNDS == 0, reason="a campaign: FAILOVER_ROUNDS says how long")
@pytest.mark.timeout(0)
def test_no_partition_lets_two_guests_acknowledge(trio: Trio, guest: LabGuest) -> None:
    """Cut lines at random until the standby takes over: then the source must have fallen silent before."""
    hosts, source = trio.hosts, random.Random(int(os.environ.get("FAILOVER_SEED", "1")))
    copy = LabGuest(guest.name, host=hosts.standby)
    seen = Acknowledged(guest, copy)
    pairs = [
        (hosts.source, hosts.standby), (hosts.source, hosts.witness), (hosts.standby, hosts.witness),
    ]  # fmt: skip
    for number in range(ROUNDS):
        for one, other in source.sample(pairs, source.randint(1, 2)):
            ends = (one, other) if source.random() < 0.5 else (other, one)
            hosts.cut(*ends, one_way=source.random() < 0.5)
            time.sleep(source.choice([0, 1, 3]))
        time.sleep(source.uniform(1, 2 * QUICK.lease))
        hosts.mend_all()
        time.sleep(source.uniform(0, QUICK.lease))
        if trio.lease(hosts.standby, guest.name).epoch > 1:
            break
        print(f"round {number}: {guest.acked()} acknowledged")
    if trio.lease(hosts.standby, guest.name).epoch > 1:
        copy.wait_ready()
        last = guest.acked()
        copy.start_workload("/data/journal2")
        wait_until(lambda: bool(seen.seen[1]), "it writes on the standby")
        assert seen.last(0)[0] < seen.seen[1][0][0]
        assert len(copy.exec("cat /data/journal").split()) >= last
    seen.close()
