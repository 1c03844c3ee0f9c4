"""What the server costs, and how quick it answers: ``python -m benchmarks.server``.

A thousand machines (disk images), each with a restore point, and a hundred thousand runs in the history. The
server is the real one, in a process of its own, with TLS. ``--write`` writes docs/performance-server.md.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path

from rich.console import Console

from benchmarks.narration import narrator
from benchmarks.server_estate import HOTSPARE, Estate, Server, started
from benchmarks.server_report import Page, Report, Start, write_report
from benchmarks.server_watchers import watch_together
from hotspare.units import MIB

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = (
    "/machines?limit=100",
    "/machines?limit=1000",
    "/points?limit=100",
    "/points?limit=1000",
    "/points?machine=machine-0500",
    "/runs?limit=100",
    "/runs?limit=1000",
    "/runs?limit=1000&machine=machine-0500",
    "/runs?limit=1000&policy=policy-7",
    "/jobs?limit=1000",
    "/policies",
    "/repositories",
    "/audit?limit=1000",
    "/ready",
)
AFTER_START_SECONDS = 75.0
"""By then it has looked at all once, and made the self-backup of the day."""
IDLE_SECONDS = 40.0
WATCHED_SECONDS = 40.0


def help_seconds(rounds: int) -> list[Start]:
    """Time ``hotspare --help``, a process each."""
    return [_timed([str(HOTSPARE), "--help"]) for _ in range(rounds)]


def _timed(command: list[str]) -> Start:
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return Start(time.monotonic() - began, used.ru_utime + used.ru_stime)


def start_seconds(estate: Estate, rounds: int) -> list[Start]:
    """Time the server's start to its being ready; the files of its libraries are in the page cache."""
    found = []
    for _ in range(rounds):
        with started(estate) as server:
            found.append(Start(server.ready_seconds, server.ready_cpu))
    return found


def page_times(server: Server, token: str, path: str, rounds: int) -> Page:
    """Ask for a page again and again over one connection."""
    waited, worked, size = [], [], 0
    with closing(server.connect()) as connection:
        for number in range(rounds + 1):
            began, cpu = time.perf_counter(), server.cpu
            connection.request("GET", f"/api/v1{path}", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
            if number:  # the first one opens things
                waited.append(time.perf_counter() - began)
                worked.append(server.cpu - cpu)
                size = len(content)
    return Page(path, waited, worked, size)


def watchers(estate: Estate, counts: list[int]) -> dict[int, tuple[float, float]]:
    """Give the server's share of a core while so many watch two backups, and the events that each is told."""
    found = {}
    disk = random.Random(1).randbytes(192 * MIB)
    for name in ("slow-a", "slow-b"):
        (estate.folder / f"images/{name}.raw").write_bytes(disk)
    with started(estate, "--slots", "0") as server:
        token = server.login()
        # The backups themselves go on in another process.
        command = [str(HOTSPARE), "server", "mover", "--slots", "2"]
        (estate.folder / "policies/slow.yaml").write_text(
            "select:\n  names: ['slow-*']\nbackup:\n  read_limit: 1MiB/s\n"
        )
        mover = subprocess.Popen(command, env=estate.environment, stderr=subprocess.DEVNULL)
        try:
            for name in ("slow-a", "slow-b"):
                _have_done(server, token, name)
            for count in counts:
                crowd = asyncio.run(watch_together(server, token, count, WATCHED_SECONDS))
                told = min(crowd.events, default=0) / WATCHED_SECONDS
                assert not count or told > 0, "somebody was told nothing"
                found[count] = (crowd.server_cpu, told)
        finally:
            mover.kill()
            mover.wait()
    return found


def _have_done(server: Server, token: str, machine: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with closing(server.connect()) as connection:
        body = json.dumps({"policy": "slow", "machine": machine})
        connection.request("POST", "/api/v1/jobs", body, headers)
        job = json.load(connection.getresponse())["id"]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            connection.request("GET", f"/api/v1/jobs/{job}", headers=headers)
            if json.load(connection.getresponse())["phase"] == "transfer":
                return
            time.sleep(1)
    raise TimeoutError(machine)


def measure(estate: Estate, rounds: int, console: Console) -> Report:
    """Measure all of it."""
    say = narrator(console)
    say(f"making {estate.machines} machines with a restore point each, and {estate.runs} runs")
    estate.make()
    say("hotspare --help")
    helps = help_seconds(rounds)
    say("starts")
    with started(estate) as first:
        first_start = Start(first.ready_seconds, first.ready_cpu)
    starts = start_seconds(estate, rounds)
    with started(estate) as server:
        token = server.login()
        say("idle")
        time.sleep(AFTER_START_SECONDS)
        before, began = server.cpu, time.monotonic()
        time.sleep(IDLE_SECONDS)
        idle_cpu = (server.cpu - before) / (time.monotonic() - began)
        idle_memory = server.memory()
        pages = []
        for path in PAGES:
            say(f"GET {path}")
            pages.append(page_times(server, token, path, 4 * rounds))
        used_memory = server.memory()
    say("watchers")
    watched = watchers(estate, [0, 200])
    return Report(
        estate.machines,
        estate.runs,
        helps,
        first_start,
        starts,
        idle_cpu,
        idle_memory,
        used_memory,
        pages,
        watched,
    )


def main() -> None:
    """Measure, print, and write the page when asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write docs/performance-server.md")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hotspare-bench-") as folder:
        estate = Estate(Path(folder), chosen.machines, chosen.runs)
        report = measure(estate, chosen.rounds, Console(stderr=True))
    text = write_report(report, f"python -m benchmarks.server --rounds {chosen.rounds} --write")
    print(text)
    if chosen.write:
        (DOCS / "performance-server.md").write_text(text)


if __name__ == "__main__":
    main()
