"""Machines and hosts that are killed: what the guest was told is done is on the replica.

``REPLICA_KILLS`` says how often; see the table in docs/replication.md.
"""

import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from tests.replication.source.mirrored import Mirrored, mirrored

pytestmark = [
    pytest.mark.lab,
    pytest.mark.soak,
    pytest.mark.timeout(0 if "REPLICA_KILLS" in os.environ else 240),
]

KILLS = int(os.environ.get("REPLICA_KILLS", "2"))


@pytest.fixture(scope="module")
def machine(lab_host: None) -> Iterator[Mirrored]:
    with mirrored("kills", "--every", "3s") as both:
        yield both


def test_no_acknowledged_write_is_missing_after_a_kill(
    machine: Mirrored, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(os.environ.get("REPLICA_SEED"))
    for number in range(KILLS):
        machine.boot()
        machine.wait_protected(300)
        time.sleep(chance.uniform(0.3, 4))
        whole_host = number % 2 == 1
        if whole_host:
            machine.hosts.kill(machine.hosts.source)
        else:
            machine.guest.host.kill_machine(machine.machine)
        time.sleep(0.3)
        acked = machine.guest.acked()
        has = machine.check_replica(acked)
        what = "host" if whole_host else "QEMU"
        print(f"{number + 1}: {what} killed, acknowledged {acked}, on the replica {has}", flush=True)
        assert acked > 0
        if whole_host:
            machine.hosts.power_on(machine.hosts.source)
            machine.source.start()
    record_property("kills without a lost write", KILLS)
