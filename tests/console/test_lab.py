"""The whole way on a real virtual machine, in a real browser: the console does its main job."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from lab import LabGuest, domain_name
from tests.api.world import made_program
from tests.cli.program import Program
from tests.console.chromium import Visit, chromium, server, visiting

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

MIB = 1024 * 1024
LIBVIRT = "qemu:///system"


@pytest.fixture
def program(tmp_path: Path, lab_host: None) -> Iterator[Program]:
    """Give the program, whose settings know a folder of images and no libvirt host."""
    program = made_program(tmp_path)
    with tempfile.TemporaryDirectory(prefix="hotspare-test-", dir="/var/tmp") as scratch:
        Path(scratch).chmod(0o711)
        program.environment |= {"HOTSPARE_SCRATCH_FOLDER": scratch}
        yield program


def test_from_the_first_run_to_a_restored_virtual_machine(
    program: Program, guest: LabGuest, tmp_path: Path
) -> None:
    digest = guest.write_random("/data/first", 12 * MIB)
    name = domain_name("console-restored")
    with chromium() as browser, server(program) as serving, visiting(browser, serving.url) as visit:
        visit.first_run(serving.setup_code or "")
        make_policy(visit, guest.name)
        watch_a_run(visit.page, guest.name)
        assert hashlib.sha256(downloaded(visit.page, tmp_path)).hexdigest() == digest
        guest.destroy()
        try:
            restore_as(visit, guest.name, name)
            restored = LabGuest.attach(name)
            restored.wait_ready()
            assert restored.sha256("/data/first") == digest
        finally:
            LabGuest(name).remove()
        visit.open("/audit")
        entry = visit.page.locator("tr", has_text="post /points/{point}/restore").first
        expect(entry).to_contain_text(name)
        assert visit.complaints == []


def make_policy(visit: Visit, machine: str) -> None:
    """Add the libvirt host by naming it in a policy, and see by a dry run that it answers."""
    page = visit.page
    visit.open("/policies/new")
    page.get_by_label("Platforms").fill(LIBVIRT)
    page.get_by_label("Names").fill(machine)
    page.get_by_text("Where to, and how").first.click()
    page.get_by_label("Read not faster than").fill("1MiB/s")
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator("#preview")).to_contain_text(f"{machine} {LIBVIRT}")
    page.get_by_role("button", name="Keep the policy").click()
    expect(page.get_by_role("status")).to_contain_text("The policy was kept")


def watch_a_run(page: Page, machine: str) -> None:
    """Have it run, and see it go on and end without loading the page again."""
    page.get_by_role("button", name="Run now").click()
    page.get_by_role("link", name=machine).first.click()
    bar = page.locator("#job progress")
    expect(bar).to_be_visible()
    values: set[float] = set()
    while (now := bar.evaluate_all("bars => bars.map(bar => bar.value)")) and len(values) < 2:
        values.update(now)
        page.wait_for_timeout(200)
    assert len(values) == 2, "the bar never moved"
    expect(page.locator("#job .state").first).to_contain_text("ok")
    page.get_by_role("link", name="Its restore point").click()
    expect(page.get_by_text("filesystem").first).to_be_visible()


def downloaded(page: Page, folder: Path) -> bytes:
    """Browse to the file in the restore point that is shown, and download it."""
    page.get_by_role("link", name="Browse its files").click()
    page.get_by_role("rowheader").get_by_role("link").first.click()
    with page.expect_download() as coming:
        page.get_by_role("link", name="Download first").click()
    file = folder / "first"
    coming.value.save_as(file)
    return file.read_bytes()


def restore_as(visit: Visit, machine: str, name: str) -> None:
    """Restore the newest point as a new machine, powered on."""
    page = visit.page
    visit.open("/restore")
    page.get_by_role("link", name=machine, exact=True).click()
    page.get_by_role("link", name="Restore the newest point").click()
    page.get_by_label("Name of the new machine").fill(name)
    page.get_by_label("Platform").select_option(LIBVIRT)
    page.get_by_label("Power it on afterwards").check()
    page.get_by_role("button", name="See what would be made").click()
    expect(page.get_by_role("heading", name="What would be made")).to_be_visible()
    page.get_by_role("button", name="Restore it").click()
    expect(page.locator("#action .state").first).to_contain_text("ok")
