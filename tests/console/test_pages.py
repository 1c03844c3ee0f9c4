"""What pages show and what their forms do, without a browser."""

import re
import time
from datetime import UTC, datetime, timedelta
from html import unescape
from zoneinfo import ZoneInfo

import pytest
from starlette.responses import Response

from hotspare.api.inside import PlanRequest
from hotspare.catalog.catalog import Catalog
from hotspare.errors import PlatformUnavailable
from hotspare.platforms.offers import Offers
from hotspare.policy.load import LoadSample
from tests.api.world import PASSWORD, World
from tests.cli.images import change_image
from tests.console.visitor import Visitor

OK = "✓</span> ok"


@pytest.fixture
def anna(world: World) -> Visitor:
    return Visitor(world, "anna")


def machine_at(world: World, name: str) -> str:
    uri, line = next(one for one in world.estate.inventory().machines if one[1].name == name)
    return f"/machine?platform={uri}&id={line.id}"


def point_at(world: World, name: str, part: str = "") -> str:
    repository = world.estate.repository()
    point = next(one for one in world.estate.points(repository) if one.machine_name == name)
    return f"/points/{point.id}{part}?repository={key(world)}"


def key(world: World) -> str:
    return next(iter(world.estate.repositories()))


def points_of_web(world: World, visitor: Visitor) -> int:
    found = re.search(r"(\d+) restore points?", visitor.get(machine_at(world, "web")))
    assert found
    return int(found[1])


def finished(visitor: Visitor, path: str) -> str:
    """Wait for the end of an action; gives its page."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        text = visitor.get(path)
        if not re.search(r"state-running|state-disabled", text.partition("<h1>")[2]):
            return text
        time.sleep(0.1)
    raise AssertionError(text)


def shown(text: str) -> str:
    """Give the text of a page's content."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text.partition("<main")[2])).split())


def test_the_overview_counts_and_shows_days(world: World, anna: Visitor) -> None:
    text = anna.get("/")
    assert "2 machines" in shown(text)
    assert "2 unprotected" in shown(text)  # no policy keeps them backed up
    assert "1 ok" in text
    assert "No restore point was ever tried" in text
    assert "Full in about" in text or "more than ten years" in text


def test_machines_are_filtered(world: World, anna: Visitor) -> None:
    assert "2 machines" in shown(anna.get("/machines"))
    assert "1 machine" in shown(anna.get("/machines?q=WEB"))
    assert "0 machines" in shown(anna.get("/machines?state=failed"))
    assert "2 machines" in shown(anna.get("/machines?state=unprotected&number=99"))


def test_a_machine_shows_points_runs_and_why_it_stands_so(world: World, anna: Visitor) -> None:
    text = shown(anna.get(machine_at(world, "guest")))
    assert "warning" in text
    assert "No policy selects it; it has restore points" in text
    assert "1 restore point," in text
    assert "by hand" in text
    anna.get("/machine?platform=nowhere&id=7", 404)


def test_a_backup_begun_by_hand_is_followed_to_its_end(world: World, anna: Visitor) -> None:
    change_image(world.program.folder / "images/web.raw")
    before = points_of_web(world, anna)
    uri, line = next(one for one in world.estate.inventory().machines if one[1].name == "web")
    answer = anna.post("/machine/back-up", {"platform": uri, "id": line.id})
    path = answer.headers["Location"].partition("?")[0]
    text = finished(anna, path)
    assert OK in text
    assert "disk0" in text
    assert points_of_web(world, anna) == before + 1
    assert path in anna.get("/activity")
    runs = anna.get("/activity?kind=backup&outcome=ok&machine=" + line.id)
    run = re.search(r"/activity/runs/\d+", runs)
    assert run
    assert "Backup of" in anna.get(run[0])


def test_jobs_say_what_is_missing_where_no_server_runs_policies(world: World, anna: Visitor) -> None:
    assert "No server has ever used this job database" in anna.get("/activity")
    anna.get("/activity/jobs/job-7", 503)


FORM = {"name": "nightly", "enabled": "on", "select.names": "web*", "schedule.when": "22:00"}
FORM |= {"schedule.time_zone": "Europe/Berlin", "schedule.rpo": "26h", "retention.last": "1"}
FORM |= {"backup.latency_factor": "2", "backup.check_tracking": "0", "backup.skip_unused": "on"}


def test_a_policy_is_tried_kept_changed_and_removed(world: World, anna: Visitor) -> None:
    tried = shown(anna.post("/policies/keep", {**FORM, "do": "preview"}, 200).text)
    assert "1 machine of 2" in tried
    assert "name fits web*" in tried
    assert "guest: no pattern fits its name" in tried
    assert world.estate.policies().names() == []
    assert (
        anna.post("/policies/keep", {**FORM, "do": "keep"})
        .headers["Location"]
        .startswith("/policies/nightly")
    )
    policy = world.estate.policies().get("nightly")
    assert (policy.select.names, policy.schedule.time_zone, policy.retention.last) == (
        ("web*",),
        "Europe/Berlin",
        1,
    )
    assert "already" in anna.post("/policies/keep", {**FORM, "do": "keep"}, 409).text
    assert "22:00" in shown(anna.get("/policies/nightly"))
    assert "1 machine of 2" in shown(anna.get("/policies/nightly/preview"))
    # What the form shows is what it was given: kept as it is, nothing changes.
    again = fields_in(anna.get("/policies/nightly/edit"))
    anna.post("/policies/keep", {**again, "do": "keep"})
    assert world.estate.policies().get("nightly") == policy
    anna.post("/policies/nightly/switch", {})
    assert not world.estate.policies().get("nightly").enabled
    assert "disabled" in shown(anna.get("/policies"))
    text = world.estate.policies().text("nightly")
    anna.post("/policies/nightly/yaml", {"text": f"# for Berlin\n{text}"})
    assert world.estate.policies().text("nightly").startswith("# for Berlin")
    wrong = anna.post("/policies/nightly/yaml", {"text": "schedule: {when: [nonsense]}"}, 422).text
    assert "line 1" in wrong
    anna.post("/policies/nightly/remove", {})
    assert world.estate.policies().names() == []


def test_a_host_that_does_not_answer_is_named_in_a_dry_run(
    world: World, anna: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTSPARE_SSH_COMMAND", "/bin/false")
    platforms = f"{world.program.environment['HOTSPARE_PLATFORM']}\nqemu+ssh://other/system"
    form = {**FORM, "select.platforms": platforms, "do": "preview"}
    tried = shown(anna.post("/policies/keep", form, 200).text)
    assert "1 machine of 2" in tried
    assert "qemu+ssh://other/system does not answer" in tried


def fields_in(text: str) -> dict[str, str]:
    """Give what a browser would send of the form on a page."""
    form = text.partition('<form method="post" action="/policies/keep"')[2].partition("</form>")[0]
    fields = {}
    for tag in re.findall(r"<input[^>]*>", form):
        name, value = (re.search(rf'{key}="([^"]*)"', tag) for key in ("name", "value"))
        if name and value and ('type="checkbox"' not in tag or " checked" in tag):
            fields[name[1]] = unescape(value[1])
    for name, value in re.findall(r'<textarea[^>]*name="([^"]*)"[^>]*>(.*?)</textarea>', form, re.DOTALL):
        fields[name] = unescape(value)
    for name, options in re.findall(r'<select[^>]*name="([^"]*)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', options)
        fields[name] = chosen[1] if chosen else ""
    return fields


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "Nightly!", "cannot be called"),
        ("schedule.when", "sometimes", "sometimes"),
        ("schedule.rpo", "soon", "no span of time"),
        ("retention.last", "-1", "no number"),
        ("priority", "high", "no number"),
        ("schedule.time_zone", "Mars/Olympus", "Mars/Olympus"),
    ],
)
def test_a_mistake_in_a_form_is_said_and_what_was_typed_stays(
    anna: Visitor, field: str, value: str, said: str
) -> None:
    text = anna.post("/policies/keep", {**FORM, "description": "typed", field: value, "do": "keep"}, 422).text
    assert said in unescape(text)
    assert 'value="typed"' in text


def test_files_are_browsed_and_downloaded(world: World, anna: Visitor) -> None:
    assert "All files" in anna.get(point_at(world, "guest", "/files"))
    listing = anna.get(point_at(world, "guest", "/files") + "&path=/etc")
    assert "nginx/" in listing
    answer = anna.client.get(point_at(world, "guest", "/download") + "&path=/etc/hosts")
    assert answer.text == "127.0.0.1 localhost\n"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for path, status in (("/etc", 422), ("/etc/none", 404), ("", 422)):
        anna.get(point_at(world, "guest", "/download") + f"&path={path}", status)
    entry = world.access.audit.newest(1)[0]
    assert (entry.actor, entry.action) == ("anna", "get /points/{point}/download")


def test_a_disk_is_downloaded_whole(world: World, anna: Visitor) -> None:
    answer = anna.client.get(point_at(world, "guest", "/disks/disk0"))
    assert answer.content == (world.program.folder / "images/guest.raw").read_bytes()
    anna.get(point_at(world, "guest", "/disks/disk7"), 404)


def test_what_the_chosen_host_has_is_offered_and_what_was_chosen_is_asked_for(
    world: World, anna: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disk images have neither networks nor pools: those of the machine and of the host are made up."""
    offers = Offers(pools=("fast",), networks=("default", "prod"), bridges=("br0",))
    asked: list[PlanRequest] = []

    def plan(_point: str, body: PlanRequest, *_: object) -> Response:
        asked.append(body)
        raise PlatformUnavailable("host2 does not answer", meaning="Nothing was restored")

    monkeypatch.setattr("hotspare.console.restores.networks_of", lambda _machine: (("network", "lab"),))
    monkeypatch.setattr(world.estate, "offers", lambda _uri: offers)
    monkeypatch.setattr("hotspare.api.inside.plan_restore", plan)
    path = point_at(world, "guest", "/restore")
    page = anna.get(path)
    assert "There: fast" in page
    assert '<datalist id="networks"><option>default</option><option>prod</option></datalist>' in page
    uri = world.estate.settings.platform
    form = {"repository": key(world), "platform": uri, "name": "guest-again", "network:lab": "prod"}
    said = anna.post(path, {**form, "pool": "fast", "do": "plan"}, 503).text
    assert "host2 does not answer" in said
    assert 'value="prod"' in said, "what was filled in is still there"
    assert asked == [PlanRequest(name="guest-again", platform=uri, pool="fast", networks={"lab": "prod"})]

    def silent(_uri: str) -> Offers:
        raise PlatformUnavailable("host2 has not answered yet")

    monkeypatch.setattr(world.estate, "offers", silent)
    assert "host2 has not answered yet" in anna.get(path)


def test_a_machine_is_restored_once_its_plan_was_seen(world: World, anna: Visitor) -> None:
    path = point_at(world, "guest", "/restore")
    assert 'value="guest-restored"' in anna.get(path)
    form = {"repository": key(world), "platform": world.estate.settings.platform, "name": "guest-again"}
    assert "What would be made" in anna.post(path, {**form, "do": "plan"}, 200).text
    assert "problem-what" in anna.post(path, {**form, "name": "web", "do": "plan"}, 409).text
    answer = anna.post(path, {**form, "do": "restore"})
    text = finished(anna, answer.headers["Location"].partition("?")[0])
    assert OK in text
    made = list((world.program.folder / "images").glob("guest-again*"))
    assert made
    for image in made:
        image.unlink()
    world.estate.look_again()


def test_a_repository_is_shown_checked_and_a_prune_tried(world: World, anna: Visitor) -> None:
    assert key(world) in anna.get("/repositories")
    assert "What it holds" in shown(anna.get(f"/repositories/{key(world)}"))
    text = shown(anna.get(f"/repositories/{key(world)}/contents"))
    assert re.search(r"of (1 machine|2 machines)\b", text), "another test may have forgotten points"
    for part, form in (("check", {}), ("prune", {"do": "dry-run"})):
        answer = anna.post(f"/repositories/{key(world)}/{part}", form)
        assert OK in finished(anna, answer.headers["Location"].partition("?")[0])
    assert "Checks and prunes begun here" in anna.get(f"/repositories/{key(world)}")


def test_the_record_is_shown_and_proven(world: World, anna: Visitor) -> None:
    anna.post("/settings/tokens", {"name": "grafana", "role": "viewer", "days": "7"}, 200)
    assert "post /settings/tokens" in anna.get("/audit")
    assert "as they were written" in anna.post("/audit/verify", {}, 200).text


def test_a_token_is_shown_once_and_revoked(world: World, anna: Visitor) -> None:
    made = anna.post("/settings/tokens", {"name": "cron", "role": "viewer", "tag": "prod"}, 200).text
    token = re.search(r"hotspare_[0-9a-f]+_[\w-]+", made)
    assert token
    assert world.access.tokens.caller(token[0]).token.name == "cron"
    listed = anna.get("/settings/tokens")
    assert token[0] not in listed
    assert "viewer, tag prod" in listed
    anna.post(f"/settings/tokens/{token[0].split('_')[1]}/revoke", {})
    assert "cron" not in shown(anna.get("/settings/tokens"))


def test_users_are_made_changed_and_removed(world: World, anna: Visitor) -> None:
    anna.post("/settings/users", {"name": "cleo", "password": PASSWORD, "role": "operator"})
    assert "cleo" in anna.get("/settings/users")
    assert (
        "already"
        in anna.post("/settings/users", {"name": "cleo", "password": PASSWORD, "role": "viewer"}, 409).text
    )
    anna.post("/settings/users/cleo", {"do": "role", "role": "viewer", "platform": "qemu*"})
    (grant,) = world.access.users.get("cleo").grants
    assert (grant.role, grant.platform) == ("viewer", "qemu*")
    anna.post("/settings/users/cleo", {"do": "disable"})
    assert world.access.users.get("cleo").disabled
    anna.post("/settings/users/cleo", {"do": "nonsense"}, 422)
    anna.post("/settings/users/cleo/remove", {})
    assert "cleo" not in {user.name for user in world.access.users.all()}


def test_a_second_person_agrees_to_forget(world: World, anna: Visitor) -> None:
    anna.post("/settings/approvals/switch", {"on": "on"})
    path = point_at(world, "web", "/forget")
    number = path.split("/")[2]
    try:
        assert "said=waits" in anna.post(path, {"repository": key(world)}).headers["Location"]
        assert "Nothing was done yet" in anna.get("/?said=waits")
        (waiting,) = [one for one in world.access.approvals.all() if one.state == "waiting"]
        anna.post(f"/settings/approvals/{waiting.id}/approve", {}, 403)
        ben = Visitor(world, "ben")
        assert "waiting for your consent" in ben.get("/")
        ben.post(f"/settings/approvals/{waiting.id}/approve", {})
        world.estate.look_again()
        assert number not in {point.id for point in world.estate.points(world.estate.repository())}
    finally:
        world.access.approvals.switch(on=False)


def test_a_password_is_changed_and_ends_all_logins(world: World) -> None:
    world.access.users.add("dora", PASSWORD, [])
    dora = Visitor(world, "dora")
    dora.post("/settings/password", {"current": "wrong", "new": "x" * 12, "again": "x" * 12}, 401)
    dora.post("/settings/password", {"current": PASSWORD, "new": "x" * 12, "again": "x" * 12})
    assert dora.client.get("/settings").headers["Location"].startswith("/login")
    world.access.users.remove("dora")


def test_what_is_said_in_an_address_is_only_ours(anna: Visitor) -> None:
    assert "nonsense" not in anna.get("/?said=nonsense").partition("<footer")[0]


def test_text_of_others_stays_text(world: World, anna: Visitor) -> None:
    answer = anna.get("/machines?q=%3Cscript%3Ealert(1)%3C/script%3E")
    assert "<script>alert" not in answer


def test_the_report_sums_up_and_can_be_downloaded(world: World, anna: Visitor) -> None:
    world.estate.look_again()
    text = anna.get("/reports?period=day")
    assert "By machine" in shown(text)
    assert "of disks protected" in shown(text)
    assert 'href="/machine?' in text
    links = [unescape(link) for link in re.findall(r'href="(/reports/csv[^"]*)"', text)]
    assert len(links) == 3
    for link in links:
        answer = anna.client.get(link)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="hotspare-')
        assert answer.text.startswith("since,until,")
    assert "web" in anna.client.get(links[0]).text
    past = shown(anna.get("/reports?since=2020-01-01&until=2020-02-01"))
    assert "2020-01-01 00:00 UTC to 2020-02-01 00:00 UTC" in past
    assert "cannot begin" in anna.get("/reports?since=2020-02-01&until=2020-01-01", 422)


def test_a_policy_shows_the_hours_that_were_learnt_and_whether_it_uses_them(
    world: World, anna: Visitor
) -> None:
    uri = world.estate.inventory().machines[0][0]
    tell_load(world, uri)
    for manner, words in (
        ("use", "This policy uses them : runs begin only in these hours"),
        ("propose", "This policy does not use them"),
    ):
        tried = anna.post("/policies/keep", {**FORM, "schedule.low_peak": manner, "do": "preview"}, 200).text
        assert words in shown(tried)
        assert tried.count('<td class="busy-') == 7 * 24
        assert tried.count(" low-peak</span>") == 7 * 6
    ignored = anna.post("/policies/keep", {**FORM, "schedule.low_peak": "ignore", "do": "preview"}, 200).text
    assert "does not look at them" in shown(ignored)


def tell_load(world: World, uri: str) -> None:
    """Note down a host that has little to do from midnight to six, in Berlin."""
    start = datetime.now(UTC) - timedelta(days=15)

    def note(catalog: Catalog) -> None:
        for count in range(15 * 24):
            at = start + timedelta(hours=count)
            busy = 0.1 if at.astimezone(ZoneInfo("Europe/Berlin")).hour < 6 else 0.8
            catalog.add_load(uri, LoadSample(at=at, cpu=busy, disk=0, network=0, latency=None))

    world.estate.ask(note)
