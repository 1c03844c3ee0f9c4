"""Passkeys in a real Chromium, with the virtual authenticator of its DevTools protocol."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, CDPSession, expect

from tests.api.world import PASSWORD, made_program
from tests.console.chromium import Serving, Visit, chromium, server, visiting


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with server(made_program(tmp_path_factory.mktemp("passkeys"))) as serving:
        yield serving


def plug_in(visit: Visit) -> tuple[CDPSession, str]:
    """Have the browser know an authenticator that verifies its user by itself; gives it to look into."""
    devtools = visit.page.context.new_cdp_session(visit.page)
    devtools.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    made = devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return devtools, made["authenticatorId"]


def test_a_passkey_is_made_lets_in_and_is_removed(browser: Browser, serving: Serving) -> None:
    assert serving.setup_code is not None
    # A passkey belongs to a name, and an address is none.
    with visiting(browser, serving.url.replace("127.0.0.1", "localhost")) as visit:
        page = visit.page
        devtools, authenticator = plug_in(visit)
        visit.first_run(serving.setup_code)
        visit.open("/settings")
        making = page.locator("form[action='/settings/passkeys/begin']")
        making.get_by_label("Password").fill("nonsense")
        making.get_by_role("button", name="Make a passkey").click()
        expect(page.get_by_role("alert")).to_contain_text("wrong")
        making.get_by_label("Password").fill(PASSWORD)
        making.get_by_role("button", name="Make a passkey").click()
        assert visit.grave_findings() == []
        page.get_by_label("Name, by which you know it").fill("phone")
        page.get_by_role("button", name="Make it").click()
        expect(page.get_by_role("status")).to_contain_text("The passkey was made")
        expect(page.get_by_role("row", name="phone")).to_be_visible()
        assert visit.grave_findings() == []
        kept = devtools.send("WebAuthn.getCredentials", {"authenticatorId": authenticator})["credentials"]
        assert [(one["rpId"], one["isResidentCredential"]) for one in kept] == [("localhost", True)]

        page.get_by_role("button", name="Log out").click()
        visit.open("/login?next=/settings")
        page.get_by_role("button", name="Log in with a passkey").click()
        row = page.get_by_role("row", name="phone")
        expect(row).not_to_contain_text("never")

        row.get_by_text("Remove").first.click()
        row.get_by_label("Password").fill(PASSWORD)
        row.get_by_role("button", name="Remove it").click()
        expect(page.get_by_role("status")).to_contain_text("lets nobody in any more")
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("button", name="Log in with a passkey").click()
        expect(page.get_by_role("alert").first).to_contain_text("not known, or not believed")
        assert visit.complaints == []
    with visiting(browser, serving.url) as visit:
        visit.open("/login")
        visit.page.get_by_role("button", name="Log in with a passkey").click()
        problem = visit.page.locator("form[action='/login/passkey'] .problem")
        expect(problem).to_contain_text("not an IP address")
