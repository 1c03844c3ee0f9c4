"""Takes the pictures of docs/console.md: ``python -m tests.console.screenshots``.

The server, the machines (disk images), the repository and the browser are real. The history of past weeks is
made up, as nobody waits a month for a picture.
"""

import random
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import Page, expect

from hotspare.catalog.catalog import Catalog
from hotspare.catalog.rows import Ended, RunRow
from hotspare.policy.load import LoadSample
from hotspare.units import MIB
from tests.api.world import made_program
from tests.cli.guest_image import make_guest_image
from tests.cli.images import change_image, make_image
from tests.cli.program import Program
from tests.console.chromium import Visit, chromium, server, visiting

FOLDER = Path(__file__).resolve().parents[2] / "docs/console"
_NAMES = ("backoffice", "build", "db01", "db02", "files", "ldap", "mail", "monitoring", "web01", "web02")
_WINDOW = {"width": 1280, "height": 900}
_POLICY = """\
description: All web servers and databases, every night
select: {names: ['web*', 'db*', files, mail]}
schedule: {when: ['22:00'], windows: ['22:00-06:00'], rpo: 26h}
retention: {daily: 7, weekly: 4, monthly: 12}
"""
_SLOW = """\
select: {names: [build]}
backup: {read_limit: 8MiB/s}
"""


def main() -> int:
    """Take all of them."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hotspare-pictures-") as folder:
        program = _made(Path(folder))
        with chromium() as browser, server(program) as serving:
            with visiting(browser, serving.url, viewport=_WINDOW, color_scheme="light") as visit:
                visit.open("/first-run")
                _take(visit.page, "first-run")
                visit.first_run(serving.setup_code or "")
                _take_all(visit)
            with visiting(browser, serving.url, viewport=_WINDOW, color_scheme="dark") as visit:
                visit.log_in()
                visit.open("/")
                _take(visit.page, "overview-dark")
    return 0


def _take_all(visit: Visit) -> None:
    page = visit.page
    visit.open("/")
    _take(page, "overview")
    visit.open("/machines")
    _take(page, "machines")
    page.get_by_role("link", name="files", exact=True).click()
    expect(page.locator(".chart canvas")).to_be_visible()
    _take(page, "machine")
    page.get_by_role("link", name="Machine of").first.click()
    page.get_by_role("button", name="See what would be made").click()
    _take(page, "restore")
    page.go_back()
    page.go_back()
    page.get_by_role("link", name="Files of").first.click()
    page.get_by_role("link", name="All files").click()
    page.get_by_role("link", name="etc/").click()
    _take(page, "files")
    visit.open("/policies/new")
    page.get_by_label("Names").fill("web*")
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator("#preview")).to_contain_text("machines of")
    _take(page, "policy-wizard", whole=True)
    visit.open("/policies/nightly")
    expect(page.get_by_text("What it would select")).to_be_visible()
    _take(page, "policy", whole=True)
    visit.open("/policies/slow")
    page.get_by_role("button", name="Run now").click()
    page.get_by_role("link", name="build").first.click()
    expect(page.locator("#job progress")).to_be_visible()
    page.wait_for_timeout(4000)
    _take(page, "run")
    visit.open("/activity")
    _take(page, "activity")
    visit.open("/repositories")
    page.locator("main h2 a").first.click()
    expect(page.get_by_text("Restorable")).to_be_visible()
    _take(page, "repository")
    visit.open("/reports?period=month")
    _take(page, "report")
    for name in ("audit", "settings", "settings/users"):
        visit.open(f"/{name}")
        _take(page, name.replace("/", "-"))


def _take(page: Page, name: str, *, whole: bool = False) -> None:
    page.screenshot(path=FOLDER / f"{name}.png", full_page=whole)


def _made(folder: Path) -> Program:
    """Make machines with restore points, policies, and a history."""
    program = made_program(folder)
    for seed, name in enumerate(_NAMES):
        if name == "files":
            make_guest_image(folder / "images/files.raw")
        else:
            size = 256 * MIB if name == "build" else 8 * MIB
            make_image(folder / f"images/{name}.raw", size, data=size // 2, seed=seed)
    (folder / "policies").mkdir()
    (folder / "policies/nightly.yaml").write_text(_POLICY)
    (folder / "policies/slow.yaml").write_text(_SLOW)
    for _ in range(4):
        program.expect("backup", *(name for name in _NAMES if name not in {"build", "ldap"}))
        for name in ("web01", "db01", "files"):
            change_image(folder / f"images/{name}.raw", random.Random(_).randrange(4 * MIB, 6 * MIB))
    _make_history(program)
    _make_load(program)
    return program


def _make_load(program: Program) -> None:
    """Note down an office: busy on working days, with a backup of something else at night."""
    chance = random.Random(2)
    catalog = Catalog.open(program.folder / "state", print)
    begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(weeks=3)
    for count in range(3 * 7 * 24):
        at = begin + timedelta(hours=count)
        busy = 0.55 if at.weekday() < 5 and 7 <= at.hour < 19 else 0.35 if at.hour == 3 else 0.05
        sample = LoadSample(at=at, cpu=busy + chance.random() / 5, disk=0, network=0, latency=None)
        catalog.add_load(f"images://{program.folder}/images", sample)
    catalog.close()


def _make_history(program: Program) -> None:
    chance = random.Random(1)
    catalog = Catalog.open(program.folder / "state", print)
    night = datetime.now(UTC).replace(hour=22, minute=0, second=0, microsecond=0) - timedelta(days=31)
    for day in range(1, 31):
        for name in _NAMES[2:5] + _NAMES[6:7] + _NAMES[8:]:
            outcome: Ended = "ok"
            if name == "db02" and day > 26:
                outcome = "failed"
            elif chance.random() < 0.04:
                outcome = chance.choice(["failed", "missed", "interrupted"])
            began = night + timedelta(days=day, minutes=chance.randrange(90))
            if began < datetime.now(UTC):
                catalog.add_run(_run(program, name, began, outcome))
    catalog.close()


def _run(program: Program, name: str, began: datetime, outcome: Ended) -> RunRow:
    failed = outcome == "failed"
    return RunRow(
        id=0,
        kind="backup",
        machine=name,
        platform=f"images://{program.folder}/images",
        repository=f"file://{program.repository}",
        started_at=began,
        finished_at=began + timedelta(minutes=3),
        outcome=outcome,
        error_code="source-lost" if failed else None,
        error="The disk disk0 stopped answering" if failed else None,
        point=None,
        bytes_read=200 * MIB,
        bytes_stored=30 * MIB,
        held_back_seconds=None,
        latency_factor=None,
        policy="nightly",
    )


if __name__ == "__main__":
    sys.exit(main())
