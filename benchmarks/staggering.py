"""A week of 1,000 machines on 50 hosts, by fixed times as of cron and by admission: ``python -m``.

A simulation: it shows how the rules differ on one and the same model, not what a real estate does.
``--machines`` and ``--hosts`` change its size; ``--write`` writes docs/performance-staggering.md and a chart.
"""

import argparse
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, timedelta
from heapq import heapify, heappop, heappush
from pathlib import Path
from zoneinfo import ZoneInfo

from benchmarks.staggering_estate import (
    DAY,
    HOUR,
    MINUTE,
    SLOW,
    START,
    Estate,
    Machine,
    Run,
    history,
    make_estate,
)
from benchmarks.staggering_report import Outcome, page, week_chart
from hotspare.policy.admission import Admission
from hotspare.policy.limits import Limits, resources
from hotspare.policy.low_peak import LowPeak, learn_low_peak
from hotspare.policy.openings import Openings
from hotspare.policy.planning import EARLY, Hours, Standing, hours_of, request_for
from hotspare.policy.policy import Policy, Schedule
from hotspare.policy.selection import KnownMachine
from hotspare.policy.throughput import PastRun
from hotspare.policy.window import OpenTimes

DOCS = Path(__file__).resolve().parent.parent / "docs"
STEP = MINUTE
LOOK = 5 * MINUTE
"""How often promises are looked at, and admission is asked when nothing happens."""
WARM_UP = DAY
"""The first day is not counted: by then everything has settled."""
WEEK = 7 * DAY
SEED = 7


class Rule:
    """Says which machines begin now; told when runs end."""

    def begin(self, now: float, slowness: dict[int, float]) -> list[Machine]:
        """Give the machines whose backup begins now."""
        raise NotImplementedError

    def ended(self, run: Run, at: float) -> None:
        """Note that a run ended."""


class Cron(Rule):
    """Fixed times: each machine at its own, as often as its promise asks for.

    Args:
        estate: what is protected.
        time_of: gives the second of the day at which a daily machine begins.
    """

    def __init__(self, estate: Estate, time_of: Callable[[Machine, int], float]) -> None:
        self._times: dict[int, list[Machine]] = defaultdict(list)
        self._running: set[str] = set()
        for number, machine in enumerate(estate.machines):
            every = DAY if machine.rpo > DAY else 4 * HOUR
            first = time_of(machine, number) % every
            for count in range(int((WARM_UP + WEEK) // every)):
                self._times[int((first + count * every) // STEP)].append(machine)

    def begin(self, now: float, slowness: dict[int, float]) -> list[Machine]:
        """Give those whose time has come; one that still runs is left out, as by a lock file."""
        del slowness
        coming = [one for one in self._times.pop(int(now // STEP), []) if one.name not in self._running]
        self._running.update(machine.name for machine in coming)
        return coming

    def ended(self, run: Run, at: float) -> None:
        """Let the machine's next time count again."""
        del at
        self._running.discard(run.machine.name)


class Staggered(Rule):
    """The product's own code: learnt low-peak hours, deadlines, throughput, limits and latency."""

    def __init__(self, estate: Estate, low_peaks: list[LowPeak]) -> None:
        self._estate = estate
        self._low_peaks = low_peaks
        self._admission = Admission(Limits(host=1, repository=24))
        self._machines = {machine.name: machine for machine in estate.machines}
        self._runs: dict[str, list[PastRun]] = defaultdict(list)
        self._due = [(machine.last + self._interval(machine), machine.name) for machine in estate.machines]
        heapify(self._due)
        self._changed = True
        self._hours: dict[tuple[int, int], Hours] = {}

    @staticmethod
    def _interval(machine: Machine) -> float:
        """Ask as a policy with an RPO alone does."""
        return EARLY * machine.rpo

    def begin(self, now: float, slowness: dict[int, float]) -> list[Machine]:
        """Give what admission grants."""
        while self._due and self._due[0][0] <= now:
            self._ask(self._machines[heappop(self._due)[1]], now)
            self._changed = True
        if not self._changed and now % LOOK:
            return []
        self._changed = False
        stamp = START.timestamp() + now
        for host, slow in slowness.items():
            self._admission.latency(str(host), slow, stamp)
        for host in range(self._estate.hosts):
            if host not in slowness:
                self._admission.latency(str(host), 1.0, stamp)
        return [
            self._machines[grant.request.id.rpartition("/")[2]] for grant in self._admission.grants(stamp)
        ]

    def _ask(self, machine: Machine, now: float) -> None:
        rpo = f"{machine.rpo / HOUR:.0f}h"
        policy = Policy(name="all", schedule=Schedule(low_peak="use", rpo=rpo, break_windows_for_rpo=True))
        moment = START + timedelta(seconds=now)
        low_peak, key = self._low_peaks[machine.host], (machine.host, int(now // DAY))
        if key not in self._hours:  # they are the same for all machines of a host
            self._hours[key] = hours_of(policy, low_peak, moment)
        known = KnownMachine(machine.name, machine.name, str(machine.host))
        newest = START + timedelta(seconds=machine.last)
        taken = resources(host=str(machine.host), repository=str(machine.repository))
        runs = self._runs[machine.name] or [PastRun(int(machine.changes * 16 * 2**20), 300.0)]
        standing = Standing(known, newest, runs[::-1])
        self._admission.ask(request_for(policy, standing, taken, low_peak, moment, self._hours[key]))

    def ended(self, run: Run, at: float) -> None:
        """Let the machine be due again."""
        machine = run.machine
        self._changed = True
        self._admission.finish(f"all/{machine.host}/{machine.name}")
        self._runs[machine.name].append(PastRun(int(run.size * 2**20), at - run.began))
        heappush(self._due, (run.began + self._interval(machine), machine.name))


def simulate(estate: Estate, rule: Rule, low_peak: list[Openings], seed: int) -> Outcome:
    """Let a week pass by a rule, minute by minute."""
    began = time.process_time()
    outcome = Outcome()
    chance = random.Random(seed)
    now = 0.0
    slowness: dict[int, float] = {}
    while now < WARM_UP + WEEK:
        if now == WARM_UP:
            outcome = Outcome()
        hour = int((now - WARM_UP) // HOUR)
        for machine in rule.begin(now, slowness):
            estate.begin(machine, now, chance)
            outcome.runs += 1
        on_host = Counter(run.machine.host for run in estate.runs)
        busiest = max(on_host.values(), default=0)
        outcome.most_on_a_host = max(outcome.most_on_a_host, busiest)
        outcome.runs_by_hour[hour] = max(outcome.runs_by_hour[hour], busiest)
        outcome.most_at_once = max(outcome.most_at_once, len(estate.runs))
        quiet = {host for host in on_host if low_peak[host].at(START.timestamp() + now)}
        outcome.run_minutes += len(estate.runs) * STEP / MINUTE
        outcome.run_minutes_in_low_peak += sum(on_host[host] for host in quiet) * STEP / MINUTE
        ended, slowness = estate.step(now, STEP)
        slow = sum(value >= SLOW for value in slowness.values()) * STEP / MINUTE
        outcome.slow_minutes += slow
        outcome.slow_by_hour[hour] += round(slow)
        for run, at in ended:
            outcome.durations.append(at - run.began)
            rule.ended(run, at)
        now += STEP
        if now % LOOK == 0:
            broken = [machine.name for machine in estate.machines if now - machine.last > machine.rpo]
            outcome.broken_machine_hours += len(broken) * LOOK / HOUR
            outcome.broken_machines.update(broken)
    outcome.seconds = time.process_time() - began
    return outcome


def compare(machines: int, hosts: int, seed: int = SEED) -> dict[str, Outcome]:
    """Simulate the same week by each rule."""
    zone = ZoneInfo("UTC")
    model = make_estate(machines, hosts, seed)
    low_peaks = [learn_low_peak(history(model, host, 3, seed), zone) for host in range(hosts)]
    low = [_quiet_openings(one) for one in low_peaks]
    rules: dict[str, Callable[[Estate], Rule]] = {
        "cron, all at 22:00": lambda estate: Cron(estate, lambda _machine, _number: 22 * HOUR),
        "cron, spread from 22:00 to 6:00": lambda estate: Cron(
            estate, lambda _machine, number: 22 * HOUR + number * 8 * HOUR / machines
        ),
        "admission": lambda estate: Staggered(estate, low_peaks),
    }
    found = {}
    for name, make in rules.items():
        estate = make_estate(machines, hosts, seed)
        found[name] = simulate(estate, make(estate), low, seed)
    return found


def _quiet_openings(low_peak: LowPeak) -> Openings:
    times = OpenTimes(ZoneInfo("UTC"), low_peak.windows)
    start = START.astimezone(UTC)
    return Openings.of(
        times.between(start, start + timedelta(seconds=WARM_UP + WEEK)) if low_peak.windows else []
    )


def main() -> None:
    """Compare, print, and write the page when asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--write", action="store_true", help="write docs/performance-staggering.md and .svg")
    chosen = parser.parse_args()
    found = compare(chosen.machines, chosen.hosts)
    text = page(found, chosen.machines, chosen.hosts)
    print(text)
    if chosen.write:
        (DOCS / "performance-staggering.md").write_text(text)
        (DOCS / "performance-staggering.svg").write_text(week_chart(found))


if __name__ == "__main__":
    main()
