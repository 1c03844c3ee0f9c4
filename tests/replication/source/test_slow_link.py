"""A slow way to the standby: later, never wrong."""

import time

import pytest

from tests.replication.source.mirrored import mirrored

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(300)]


def test_over_a_slow_link_that_loses_much_the_replica_is_whole(lab_host: None) -> None:
    relay = ("--delay", "0.02", "--loss", "0.02", "--rate", "2000000")
    with mirrored("slow", "--every", "5s", relay=relay) as machine:
        _gap, written = machine.longest_gap(6)
        assert written > 0
        assert machine.source.status(machine.machine)["phase"] == "protected"
        machine.guest.host.kill_machine(machine.machine)
        time.sleep(1)
        acked = machine.guest.acked()
        assert machine.check_replica(acked) >= acked > 0
