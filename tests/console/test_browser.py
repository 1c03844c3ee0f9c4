"""The console in a real Chromium, from the first run to a restore, with a server as users start it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from hotspare.catalog.catalog import Catalog
from hotspare.policy.load import LoadSample
from tests.api.world import PASSWORD, made_program, make_machines
from tests.cli.program import Program
from tests.console.chromium import Serving, Visit, chromium, server, visiting

PATHS = (
    "/",
    "/matrix",
    "/machines",
    "/activity",
    "/policies",
    "/policies/new",
    "/policies/nightly",
    "/policies/nightly/preview",
    "/policies/nightly/edit",
    "/policies/nightly/yaml",
    "/restore",
    "/repositories",
    "/reports",
    "/reports?period=month&number=0",
    "/audit",
    "/settings",
    "/settings/tokens",
    "/settings/users",
    "/settings/approvals",
    "/no-such-page",
)
HAS_COLOUR = """(canvas, wanted) => {
  const shown = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  for (let at = 0; at < shown.length; at += 4) {
    if (wanted.every((value, channel) => shown[at + channel] === value)) return true;
  }
  return false;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    program = made_program(tmp_path_factory.mktemp("browser"))
    make_machines(program.folder)
    _note_load(program)
    return program


def _note_load(program: Program) -> None:
    """Note down a host with quiet nights, for there is more to see of one."""
    catalog = Catalog.open(program.folder / "state", pytest.fail)
    start = datetime.now(UTC) - timedelta(days=8)
    for count in range(8 * 24):
        at = start + timedelta(hours=count)
        busy = 0.1 if at.hour < 6 else at.hour / 24
        sample = LoadSample(at=at, cpu=busy, disk=0, network=0, latency=None)
        catalog.add_load(f"images://{program.folder}/images", sample)
    catalog.close()


@pytest.fixture(scope="module")
def serving(program: Program) -> Iterator[Serving]:
    with server(program) as serving:
        yield serving


@pytest.fixture
def visit(browser: Browser, serving: Serving) -> Iterator[Visit]:
    with visiting(browser, serving.url) as visit:
        yield visit
        assert visit.complaints == []


@pytest.fixture(scope="module")
def journey(browser: Browser, serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Go the whole way once; the tests after it look at what there is then. Gives the downloaded file."""
    with visiting(browser, serving.url) as visit:
        downloaded = _go(visit, serving, tmp_path_factory.mktemp("downloads"))
        assert visit.complaints == []
    return downloaded


def _go(visit: Visit, serving: Serving, folder: Path) -> Path:
    page = visit.page
    assert serving.setup_code
    visit.first_run(serving.setup_code)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()

    page.get_by_role("link", name="Policies").click()
    page.get_by_role("link", name="New policy").click()
    page.get_by_label("Names").fill("g*")
    page.get_by_role("button", name="Dry run").click()
    preview = page.locator("#preview")
    expect(preview).to_contain_text("1 machine of 2")
    expect(preview).to_contain_text("name fits g*")
    expect(preview.get_by_text("left out").first).to_be_visible()
    page.get_by_role("button", name="Keep the policy").click()
    expect(page.get_by_role("status")).to_contain_text("The policy was kept")

    page.get_by_role("button", name="Run now").click()
    expect(page.get_by_role("heading", name="Activity")).to_be_visible()
    # The page is not loaded again: it is told.
    expect(page.locator("#going-on")).to_contain_text("Nothing runs", timeout=60_000)
    page.get_by_role("link", name="Machines").click()
    page.get_by_role("link", name="guest").click()
    page.get_by_role("button", name="Back up now by nightly").click()
    expect(page.locator("#job .state").first).to_contain_text("ok", timeout=60_000)
    expect(page.locator("#job")).to_contain_text("Mover")
    page.get_by_role("link", name="Its restore point").click()

    page.get_by_role("link", name="Browse its files").click()
    page.get_by_role("link", name="All files").click()
    page.get_by_role("link", name="etc/").click()
    with page.expect_download() as coming:
        page.get_by_role("link", name="Download hosts").click()
    file = folder / coming.value.suggested_filename
    coming.value.save_as(file)

    page.get_by_role("link", name="Restore", exact=True).click()
    page.get_by_role("link", name="guest").click()
    page.get_by_role("link", name="Restore the newest point").click()
    page.get_by_label("Name of the new machine").fill("guest-again")
    page.get_by_role("button", name="See what would be made").click()
    expect(page.get_by_role("heading", name="What would be made")).to_be_visible()
    page.get_by_role("button", name="Restore it").click()
    expect(page.locator("#action .state").first).to_contain_text("ok", timeout=60_000)
    return file


def test_the_way_from_the_first_run_to_a_restore(journey: Path, program: Program, visit: Visit) -> None:
    assert journey.name == "hosts"
    assert journey.read_text() == "127.0.0.1 localhost\n"
    restored = program.folder / "images/guest-again.qcow2"
    assert restored.exists() or (program.folder / "images/guest-again.raw").exists()
    visit.log_in()
    visit.open("/audit")
    record = visit.page.locator("table")
    for action in (
        "set up",
        "post /policies/keep",
        "post /policies/{policy}/run",
        "get /points/{point}/files",
        "get /points/{point}/download",
        "post /points/{point}/restore",
    ):
        expect(record).to_contain_text(action)
    visit.page.get_by_role("button", name="Prove that nobody has changed it").click()
    expect(visit.page.get_by_role("status")).to_contain_text("as they were written")


@pytest.mark.usefixtures("journey")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_grave_finding_of_axe(browser: Browser, serving: Serving, scheme: str) -> None:
    findings: dict[str, list[str]] = {}
    with visiting(browser, serving.url, color_scheme=scheme) as visit:
        for path in ("/login",):
            visit.open(path)
            findings[path] = visit.grave_findings()
        visit.log_in()
        for path in (*PATHS, *_linked(visit)):
            visit.open(path)
            findings[path] = visit.grave_findings()
        assert visit.complaints == []
    assert {path: found for path, found in findings.items() if found} == {}


def _linked(visit: Visit) -> list[str]:
    """Give pages that have an id in their address, each found where people find it."""
    visit.open("/machines")
    visit.page.get_by_role("link", name="guest", exact=True).click()
    found = [visit.page.url.removeprefix(visit.url)]
    point = _links(visit, "/points/")[0].partition("?")
    found += [f"{point[0].removesuffix('/restore')}{part}?{point[2]}" for part in ("", "/files", "/restore")]
    found.append(f"{found[2]}&path=/etc")
    visit.open("/repositories")
    repository = _links(visit, "/repositories/")[0]
    found += [repository, f"{repository}/contents"]
    visit.open("/activity")
    for begins in ("/activity/runs/", "/activity/actions/"):
        found += _links(visit, begins)[:1]
    return found


def _links(visit: Visit, begins: str) -> list[str]:
    links = visit.page.eval_on_selector_all("main a", "all => all.map(one => one.getAttribute('href'))")
    return [link for link in links if link.startswith(begins)]


@pytest.mark.usefixtures("journey")
def test_everything_can_be_reached_by_keyboard(visit: Visit) -> None:
    visit.open("/login")
    page = visit.page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_label("Name").focus()
    page.keyboard.type("anna")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


@pytest.mark.usefixtures("journey")
def test_it_works_without_scripts(browser: Browser, serving: Serving) -> None:
    with visiting(browser, serving.url, java_script_enabled=False) as visit:
        page = visit.page
        visit.log_in()
        visit.open("/machines")
        page.get_by_label("Name or tag").fill("web")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator("#list tbody tr")).to_have_count(1)
        visit.open("/policies/nightly/edit")
        page.get_by_label("Names").fill("*")
        page.get_by_role("button", name="Dry run").click()
        expect(page.locator("#preview")).to_contain_text("machines of")
        page.get_by_role("button", name="dark", exact=True).click()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        paper = page.locator("body")
        expect(paper).to_have_css("background-color", "rgb(13, 18, 22)")
        page.emulate_media(media="print")
        expect(paper).to_have_css("background-color", "rgb(255, 255, 255)")
        expect(paper).to_have_css("color-scheme", "light")


@pytest.mark.usefixtures("journey")
def test_a_filter_narrows_the_list_as_one_types(visit: Visit) -> None:
    visit.log_in()
    visit.open("/machines")
    visit.page.get_by_label("Name or tag").press_sequentially("web")
    expect(visit.page.locator("#list tbody tr")).to_have_count(1)
    assert "q=web" in visit.page.url


@pytest.mark.usefixtures("journey")
def test_what_changes_is_drawn(visit: Visit) -> None:
    visit.log_in()
    visit.open("/machines")
    visit.page.get_by_role("link", name="guest", exact=True).click()
    address = visit.page.url
    # The policy keeps one point a day: another that no policy asked for makes two.
    visit.page.get_by_role("button", name="Back up now, by no policy").click()
    expect(visit.page.locator("#action .state").first).to_contain_text("ok")
    visit.page.goto(address)
    chart = visit.page.locator(".chart canvas")
    expect(chart).to_be_visible()
    assert chart.evaluate(HAS_COLOUR, [0xCF, 0xD7, 0xDB, 0xFF]), "its grid has the colour of lines"
