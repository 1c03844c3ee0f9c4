"""Measures how long a failover takes beside the boot of the guest.

The time from the source's end (its whole host is killed) to the answer of the guest's agent on the standby,
minus the time that the same guest takes to boot on the standby when nothing else is going on. Hosts are
namespaces of this one, see ``lab/two_hosts.py``.
"""

import time
from statistics import median
from typing import Annotated

from cyclopts import App, Parameter

from hotspare.replication.failover import service
from hotspare.replication.lease.terms import Terms
from lab import ensure_host, sweep
from lab.guest import LabGuest
from tests.replication.failover.trio import Trio, wait_until

_DEFAULT = Terms()
_PATIENT = Terms(lease=10, beat=1, silence=5)

app = App(name="python -m benchmarks.replication_failover", help_format="plaintext")


@app.default
def measure(*, rounds: Annotated[int, Parameter(negative="")] = 3) -> None:
    """Measure automatic failovers with the default lease and with a longer one, and manual ones."""
    ensure_host()
    sweep()
    for name, terms, manual in (
        ("automatic", _DEFAULT, False),
        ("automatic, patient", _PATIENT, False),
        ("manual", _DEFAULT, True),
    ):
        results = [_once(terms, manual=manual) for _ in range(rounds)]
        for started, answered, boot in results:
            print(f"  started after {started:.2f} s, answers after {answered:.2f} s, boots in {boot:.2f} s")
        start = median(started for started, _, _ in results)
        beside = median(answered - boot for _, answered, boot in results)
        print(f"{name}: {start:.2f} s to the start, {beside:.2f} s beside the boot; median of {rounds}")
        print(f"  (lease {terms.lease:g} s, beat {terms.beat:g} s, silence {terms.silence:g} s)")


def _once(terms: Terms, *, manual: bool) -> tuple[float, float, float]:
    """Give the seconds until QEMU runs, until the agent answers, and that a boot takes."""
    with Trio("bench") as trio:
        hosts = trio.hosts
        guest = LabGuest.create("failover", host=hosts.source)
        guest.start().wait_ready()
        trio.protect(guest, terms=terms)
        trio.wait_armed(hosts.source, guest.name)
        guest.start_workload()
        time.sleep(3)
        copy = LabGuest(guest.name, host=hosts.standby)
        if manual:
            with trio.asking(hosts.standby) as asked:
                began = _kill_and_wait(trio, terms)
                asked.call(service.FAILOVER, service.Failover(protection=guest.name, force=True), timeout=60)
        else:
            began = time.monotonic()
            hosts.kill(hosts.source)
            wait_until(lambda: trio.lease(hosts.standby, guest.name).runs_here, "it is taken over")
        started = time.monotonic() - began
        copy.wait_ready()
        answered = time.monotonic() - began
        # The same guest, the same host, the same disk.
        copy.destroy()
        began = time.monotonic()
        copy.start()
        copy.wait_ready()
        return started, answered, time.monotonic() - began


def _kill_and_wait(trio: Trio, terms: Terms) -> float:
    """Kill the source's host and give when the command is given: while nobody has taken over yet."""
    trio.hosts.kill(trio.hosts.source)
    time.sleep(terms.silence)
    return time.monotonic()


if __name__ == "__main__":
    app()
