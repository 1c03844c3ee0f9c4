"""How long pages of the console take: ``python -m benchmarks.console``.

A thousand machines (disk images), each with a restore point, twenty policies, and a hundred thousand runs in
the history. The server is the real one, in a process of its own, with TLS. Pages are asked for one after the
other over one connection. ``--write`` writes docs/performance-console.md.
"""

import argparse
import json
import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rich.console import Console

from benchmarks.narration import narrator
from benchmarks.server_estate import Estate, Server, started
from hotspare.api.estate import repository_key
from hotspare.console.browser import LOGIN

DOCUMENT = Path(__file__).resolve().parent.parent / "docs/performance-console.md"
BOUND_MILLISECONDS = 300
PAGES = {
    "overview": "/",
    "machines by day": "/matrix?number=3",
    "machines": "/machines",
    "machines, filtered": "/machines?q=77&state=ok",
    "machine": "/machine?platform={platform}&id={machine}",
    "activity": "/activity",
    "activity, filtered": "/activity?outcome=failed&policy=policy-10",
    "run": "/activity/runs/5000",
    "policies": "/policies",
    "policy": "/policies/policy-3",
    "new policy": "/policies/new",
    "restore": "/restore",
    "restore point": "/points/{point}?repository={repository}",
    "repositories": "/repositories",
    "repository": "/repositories/{repository}",
    "report": "/reports?period=month",
    "report, all machines": "/reports?period=month&number=0",
    "audit": "/audit",
    "settings": "/settings",
}


_DOCUMENT = """\
# How quick the console's pages are

Made by `make bench-console`, with {machines} machines, a restore point of each in a real repository, 20
policies and {runs} runs. The real server answers over TLS on loopback, {rounds} times for each page, one
after the other. The bound is {bound} ms for 95 of 100. {verdict}

The machine does other things meanwhile; processor time, of the whole server, stands beside it. What is asked
of platforms anew every half minute (their machines) falls onto one page in so many.

{table}
"""


@dataclass(frozen=True, slots=True)
class Timed:
    """One page: milliseconds that each answer took, and of the server's processor."""

    name: str
    size: int
    waited: list[float]
    worked: list[float]


def timed(server: Server, token: str, name: str, path: str, rounds: int) -> Timed:
    """Ask for a page again and again."""
    waited, worked, size = [], [], 0
    with closing(server.connect()) as connection:
        for _ in range(rounds):
            began, cpu = time.perf_counter(), server.cpu
            connection.request("GET", path, headers={"Cookie": f"{LOGIN}={token}", "Accept": "text/html"})
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, (path, answer.status, content[-2000:])
            waited.append((time.perf_counter() - began) * 1000)
            worked.append((server.cpu - cpu) * 1000)
            size = len(content)
    return Timed(name, size, waited, worked)


def measure(estate: Estate, rounds: int) -> list[Timed]:
    """Time all pages."""
    with started(estate, "--slots", "0") as server:
        token = server.login()
        given = _names(server, token, estate)
        for path in PAGES.values():
            timed(server, token, "", path.format(**given), 1)  # the first one opens things
        return [timed(server, token, name, path.format(**given), rounds) for name, path in PAGES.items()]


def _names(server: Server, token: str, estate: Estate) -> dict[str, str]:
    """Find what addresses of pages name."""
    with closing(server.connect()) as connection:
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("GET", "/api/v1/points?limit=1", headers=headers)
        point = json.load(connection.getresponse())["points"][0]
    key = repository_key(str(estate.folder / "repository"))
    return {
        "platform": quote(estate.platform, safe=""),
        "machine": point["machine_id"],
        "point": point["id"],
        "repository": key,
    }


def p95(values: list[float]) -> float:
    """Give what 95 of 100 do not exceed."""
    return sorted(values)[max(0, round(len(values) * 0.95) - 1)]


def table(found: list[Timed]) -> str:
    """Write what was measured as a table."""
    lines = [
        "| page | size | median | p95 | p95 of processor time |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one.name} | {one.size / 1024:.0f} KiB | {statistics.median(one.waited):.0f} ms"
        f" | {p95(one.waited):.0f} ms | {p95(one.worked):.0f} ms |"
        for one in found
    ]
    return "\n".join(lines)


def document(found: list[Timed], machines: int, runs: int, rounds: int) -> str:
    """Write the document."""
    slow = [one.name for one in found if p95(one.waited) > BOUND_MILLISECONDS]
    verdict = f"Above it: {', '.join(slow)}." if slow else "All pages keep it."
    return _DOCUMENT.format(
        machines=machines,
        runs=runs,
        rounds=rounds,
        bound=BOUND_MILLISECONDS,
        verdict=verdict,
        table=table(found),
    )


def main() -> None:
    """Measure, and write it down if that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    say = narrator(Console(stderr=True))
    with tempfile.TemporaryDirectory(prefix="hotspare-bench-") as folder:
        estate = Estate(Path(folder), options.machines, options.runs)
        say("Making machines, restore points and a history")
        estate.make()
        say("Asking for pages")
        found = measure(estate, options.rounds)
    text = document(found, options.machines, options.runs, options.rounds)
    if options.write:
        DOCUMENT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
