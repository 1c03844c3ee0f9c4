"""A real Chromium, and the server that it visits: started as users start it."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.api.world import PASSWORD
from tests.cli.program import Program

AXE = Path(__file__).parent / "vendored/axe.min.js"
_PATIENCE = 60


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the distribution's Chromium."""
    expect.set_options(timeout=_PATIENCE * 500)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """One person's window."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    """Of the browser: scripts that failed, and what the policy of our headers forbade."""

    def open(self, path: str) -> None:
        """Load a page."""
        self.page.goto(self.url + path)

    def first_run(self, code: str) -> None:
        """Make the first user."""
        self.open("/")
        self.page.get_by_label("Code that the server printed").fill(code)
        self.page.get_by_label("Your name").fill("anna")
        self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        self.page.get_by_label("The same password again").fill(PASSWORD)
        self.page.get_by_role("button", name="Make the first user").click()

    def log_in(self, name: str = "anna") -> None:
        """Log in."""
        self.open("/login")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Log in", exact=True).click()
        self.page.get_by_role("button", name="Log out").wait_for()

    def grave_findings(self) -> list[str]:
        """Give what axe finds on this page that is serious or critical."""
        # First what comes by itself, then the page as it looks whenever a part is brought up to date.
        expect(self.page.locator(".htmx-request")).to_have_count(0, timeout=_PATIENCE * 1000)
        self.page.eval_on_selector_all(
            "[hx-get], [hx-post], [hx-indicator]",
            "all => all.forEach(one => one.classList.add('htmx-request'))",
        )
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found: dict[str, Any] = self.page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {node['html'][:150]} {node.get('failureSummary', '')}"
            for one in found["violations"]
            if one["impact"] in {"serious", "critical"}
            for node in one["nodes"]
        ]


@contextmanager
def visiting(browser: Browser, url: str, **look: Any) -> Iterator[Visit]:
    """Open a window of somebody who was never here."""
    context = browser.new_context(ignore_https_errors=True, **look)
    context.set_default_timeout(_PATIENCE * 500)
    page = context.new_page()
    visit = Visit(page, url)

    def note(message: ConsoleMessage) -> None:
        # A form that is refused is answered with 401 or 422, which Chromium tells too.
        if message.type == "error" and "Failed to load resource" not in message.text:
            visit.complaints.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    try:
        yield visit
    except BaseException:
        print(page.url, visit.complaints, page.locator("body").inner_text(), sep="\n")
        page.screenshot(path="/tmp/console-failure.png", full_page=True)
        raise
    finally:
        context.close()


@dataclass
class Serving:
    """A running ``hotspare server``."""

    url: str
    setup_code: str | None


@contextmanager
def server(program: Program) -> Iterator[Serving]:
    """Run the server until the block is left."""
    process = program.start("server", "--listen", "127.0.0.1:0", "-o", "json")
    assert process.stdout is not None
    said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    try:
        yield Serving(said["url"], said["setup_code"])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
