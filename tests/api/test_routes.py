"""What routes answer: the documents of commands, whole lists in pages, errors as problems."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from hotspare.access.roles import Grant, Role
from tests.api.world import PASSWORD, World, get, post

PROBLEM = {"type", "title", "status", "detail", "code", "meaning", "hint"}


def from_command(world: World, *words: str) -> dict[str, Any]:
    return world.program.expect(*words, "-o", "json").document()


def finished(client: TestClient, action: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while action["state"] in {"waiting", "running"} and time.monotonic() < deadline:
        time.sleep(0.05)
        action = get(client, f"/actions/{action['id']}")["action"]
    return action


def whole(client: TestClient, noun: str, limit: int) -> list[dict[str, Any]]:
    document = get(client, f"/{noun}", limit=limit)
    found: list[dict[str, Any]] = document[noun]
    while document["next"]:
        document = get(client, f"/{noun}", limit=limit, after=document["next"])
        found += document[noun]
    return found


def test_the_documents_are_those_of_commands(world: World) -> None:
    client = world.client()
    world.estate.look_again()
    uri = get(client, "/machines")["machines"][0]["platform"]
    machines = [{**one, "platform": uri} for one in from_command(world, "machine", "list")["machines"]]
    assert get(client, "/machines")["machines"] == machines
    assert get(client, "/machines/web") == from_command(world, "machine", "show", "web")
    points = from_command(world, "point", "list")["points"]
    assert get(client, "/points")["points"] == points
    point = points[-1]["id"]
    assert get(client, f"/points/{point}") == from_command(world, "point", "show", point)
    assert get(client, "/runs")["runs"] == from_command(world, "run", "list")["runs"]
    key = get(client, "/repositories")["repositories"][0]["id"]
    described = from_command(world, "repo", "info")
    del described["object_lock"]
    assert get(client, f"/repositories/{key}") == described


def test_the_files_in_a_point_are_listed(world: World) -> None:
    client = world.client("restore-only")
    point = get(client, "/points", machine="guest")["points"][-1]["id"]
    for path in (None, "/etc", "/etc/hosts"):
        query = "" if path is None else f"?path={path}"
        words = ["files", "ls", point, *([] if path is None else [path]), "--appliance", "never"]
        assert get(client, f"/points/{point}/files{query}") == from_command(world, *words)
    assert get(client, f"/points/{point}/files?path=/nowhere", 404)["code"] == "no-path"
    entry = world.access.audit.newest(1)[0]
    assert (entry.actor, entry.outcome) == ("restore-only", "no-path")
    assert point in entry.target
    assert "nowhere" in entry.target


def test_a_restore_is_planned_without_making_anything(world: World) -> None:
    client = world.client("operator")
    point = get(client, "/points", machine="web")["points"][-1]["id"]
    plan = post(client, f"/points/{point}/restore-plan", {"name": "again"})
    command = from_command(world, "restore", point, "--to", "again", "--dry-run")
    for document in (plan, command):  # others write to this file system too
        for disk in document["plan"]["disks"]:
            del disk["bytes_free"]
    assert plan == command
    assert post(client, f"/points/{point}/restore-plan", {"name": "web"}, 409)["code"] == "target-exists"
    body = {"name": "again", "platform": "images:///etc"}
    assert post(client, f"/points/{point}/restore-plan", body, 422)["code"] == "usage"


@pytest.mark.parametrize("noun", ["machines", "points", "runs"])
@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_pages_make_up_the_whole(world: World, noun: str, limit: int) -> None:
    client = world.client()
    assert whole(client, noun, limit) == get(client, f"/{noun}", limit=1000)[noun]


def test_pages_of_a_list_that_grows_repeat_nothing(world: World) -> None:
    client = world.client()
    first = get(client, "/runs", limit=1)
    number = world.estate.ask(
        lambda it: it.begin_run(kind="verify", machine="web", platform="", repository="")
    )
    rest = get(client, "/runs", after=first["next"])["runs"]
    assert number not in [run["id"] for run in rest]
    assert first["runs"][0]["id"] not in [run["id"] for run in rest]
    assert get(client, f"/runs/{number}")["run"]["kind"] == "verify"


@pytest.mark.parametrize("path", ["/machines", "/points", "/runs", "/audit", "/actions"])
@pytest.mark.parametrize("after", ["x", "W10", "WyJhIiwiYiIsImMiLCJkIl0", "é", "WyItMSJd"])
def test_a_made_up_place_in_a_list_is_no_accident(world: World, path: str, after: str) -> None:
    answer = world.client().get(f"/api/v1{path}", params={"after": after})
    assert answer.status_code in {200, 422}
    assert answer.status_code == 200 or set(answer.json()) == PROBLEM


def test_errors_are_problem_details(world: World) -> None:
    client = world.client()
    for method, path, status, code in (
        ("GET", "/api/v1/points/nothing", 404, "no-point"),
        ("GET", "/api/v1/machines/nobody", 404, "no-machine"),
        ("GET", "/api/v1/runs/99999", 404, "not-there"),
        ("GET", "/api/v1/nowhere", 404, "http-404"),
        ("PUT", "/api/v1/machines", 405, "http-405"),
        ("GET", "/api/v1/runs?limit=0", 422, "usage"),
        ("GET", "/api/v1/policies/nothing", 404, "no-policy"),
        ("POST", "/api/v1/backups", 422, "usage"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        problem = answer.json()
        assert set(problem) == PROBLEM
        assert (problem["status"], problem["code"]) == (status, code)
        assert problem["type"] == f"urn:hotspare:error:{code}"
    nobody = world.client(None).get("/api/v1/me")
    assert nobody.headers["www-authenticate"] == "Bearer"


def test_a_mistake_of_ours_tells_nothing_of_the_inside(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr(world.estate, "inventory", broken)
    answer = world.client().get("/api/v1/machines")
    assert (answer.status_code, answer.json()["code"]) == (500, "failed")
    assert "the inside" not in answer.text


def test_policies_are_made_and_removed(world: World) -> None:
    client = world.client()
    body = {"select": {"names": ["web*"]}, "schedule": {"when": ["22:00"]}, "retention": {"daily": 7}}
    made = client.put("/api/v1/policies/nightly", json=body).json()
    assert made == from_command(world, "policy", "show", "nightly")
    assert get(client, "/policies") == from_command(world, "policy", "list")
    wrong = client.put("/api/v1/policies/nightly", json={"schedule": {"wen": "22:00"}}).json()
    assert (wrong["status"], wrong["code"]) == (422, "config")
    assert 'Did you mean "when"?' in wrong["hint"]
    assert client.put("/api/v1/policies/limits", json={}).status_code == 422
    assert get(client, "/policies/nightly") == made
    assert client.delete("/api/v1/policies/nightly").status_code == 200
    assert get(client, "/policies")["policies"] == []


def test_a_backup_begun_here_is_a_run_and_a_point(world: World) -> None:
    client = world.client("operator")
    before = len(get(client, "/points", machine="web")["points"])
    action = post(client, "/backups", {"machines": ["web"]}, 202)["action"]
    done = finished(client, action)
    assert (done["state"], done["error"]) == ("ok", None)
    assert done["result"]["type"] == "backup"
    world.estate.look_again()
    points = get(client, "/points", machine="web")["points"]
    assert len(points) == before + 1
    assert get(client, "/runs", limit=1)["runs"][0]["point"] == points[-1]["id"]
    assert get(client, "/actions")["actions"][0]["id"] == action["id"]
    assert world.access.audit.newest(1)[0].detail["machines"] == ["web"]


def test_a_restore_begun_here_is_a_machine(world: World) -> None:
    client = world.client("restore-only")
    point = get(client, "/points", machine="guest")["points"][-1]["id"]
    body = {"name": "guest-by-http"}
    action = post(client, f"/points/{point}/restore", body, 202, key="r1")["action"]
    assert post(client, f"/points/{point}/restore", body, 202, key="r1")["action"]["id"] == action["id"]
    done = finished(client, action)
    assert (done["state"], done["error"]) == ("ok", None)
    image = world.program.folder / "images/guest-by-http.raw"
    try:
        assert image.read_bytes() == (world.program.folder / "images/guest.raw").read_bytes()
    finally:
        image.unlink()
    world.estate.look_again()
    begun = len(world.actions.all())
    for wrong, status, code in (
        ({"name": "again", "platform": "images:///etc"}, 422, "usage"),
        ({"name": "again", "where": "there"}, 422, "usage"),
    ):
        assert post(client, f"/points/{point}/restore", wrong, status)["code"] == code
    assert len(world.actions.all()) == begun


def test_a_machine_that_is_not_there_begins_nothing(world: World) -> None:
    client = world.client("operator")
    begun = len(world.actions.all())
    assert post(client, "/backups", {"machines": ["web", "--all"]}, 404)["code"] == "no-machine"
    assert len(world.actions.all()) == begun


def test_a_repository_is_checked_and_pruned(world: World) -> None:
    client = world.client()
    key = get(client, "/repositories")["repositories"][0]["id"]
    check = finished(client, post(client, f"/repositories/{key}/check", {}, 202)["action"])
    assert check["result"]["type"] == "repository-check"
    prune = finished(client, post(client, f"/repositories/{key}/prune", {"dry_run": True}, 202)["action"])
    assert (prune["state"], prune["result"]["dry_run"]) == ("ok", True)
    cancelled = post(client, f"/actions/{prune['id']}/cancel", {}, 202)["action"]
    assert cancelled["state"] == "ok"


def test_the_same_key_does_it_once(world: World) -> None:
    client = world.client("operator")
    begun = len(world.actions.all())
    first = post(client, "/backups", {"machines": ["web"]}, 202, key="k1")
    again = post(client, "/backups", {"machines": ["web"]}, 202, key="k1")
    assert again["action"]["id"] == first["action"]["id"]
    assert len(world.actions.all()) == begun + 1
    assert post(client, "/backups", {"machines": ["guest"]}, 409, key="k1")["code"] == "conflict"
    other = post(world.client(), "/backups", {"machines": ["web"]}, 202, key="k1")  # of somebody else
    assert other["action"]["id"] != first["action"]["id"]
    # An error is an answer as well.
    for _ in range(2):
        assert post(client, "/backups", {"machines": ["nobody"]}, 404, key="k2")["code"] == "no-machine"
    for action in (first, other):
        finished(client, action["action"]) if action is first else finished(world.client(), action["action"])


def test_a_key_does_not_get_anybody_past_the_guard(world: World) -> None:
    client = world.client("operator")
    answer = post(client, "/backups", {"machines": ["nobody"]}, 404, key="k3")
    assert answer["code"] == "no-machine"
    headers = {"Authorization": "Bearer nonsense", "Idempotency-Key": "k3"}
    denied = client.post("/api/v1/backups", json={"machines": ["nobody"]}, headers=headers)
    assert denied.status_code == 401


def test_a_point_is_forgotten(world: World) -> None:
    client = world.client()
    world.program.expect("backup", "web")
    world.estate.look_again()
    point = get(client, "/points", machine="web")["points"][-1]["id"]
    world.program.expect("point", "keep", point)
    assert client.delete(f"/api/v1/points/{point}").json()["code"] == "point-kept"
    world.program.expect("point", "release", point)
    assert client.delete(f"/api/v1/points/{point}").json()["points"][0]["id"] == point
    get(client, f"/points/{point}", 404)
    assert point not in [one["id"] for one in from_command(world, "point", "list")["points"]]


def test_a_second_person_has_to_agree(world: World) -> None:
    anna, ben = world.client("anna"), world.client("ben")
    assert anna.put("/api/v1/settings/second-person", json={"on": True}).json()["second_person"]
    world.program.expect("backup", "web")
    world.estate.look_again()
    point = get(anna, "/points", machine="web")["points"][-1]["id"]
    asked = anna.delete(f"/api/v1/points/{point}")
    assert (asked.status_code, asked.json()["type"]) == (202, "approval")
    get(anna, f"/points/{point}")
    number = asked.json()["approval"]["id"]
    assert post(anna, f"/approvals/{number}/approve", {}, 403)["code"] == "not-permitted"
    post(world.client("operator"), f"/approvals/{number}/approve", {}, 403)
    get(anna, f"/points/{point}")
    assert post(ben, f"/approvals/{number}/approve")["approval"]["decided_by"] == "ben"
    get(anna, f"/points/{point}", 404)
    # Retention, and the switch itself.
    assert anna.put("/api/v1/policies/long", json={"retention": {}}).status_code == 200
    short = anna.put("/api/v1/policies/long", json={"retention": {"last": 1}})
    assert short.status_code == 202
    assert get(anna, "/policies/long")["policy"]["retention"]["last"] == 0
    post(ben, f"/approvals/{short.json()['approval']['id']}/approve")
    assert get(anna, "/policies/long")["policy"]["retention"]["last"] == 1
    off = anna.put("/api/v1/settings/second-person", json={"on": False})
    assert off.status_code == 202
    assert get(anna, "/settings")["second_person"]
    post(ben, f"/approvals/{off.json()['approval']['id']}/reject")
    assert get(anna, "/settings")["second_person"]
    again = anna.put("/api/v1/settings/second-person", json={"on": False}).json()["approval"]["id"]
    post(ben, f"/approvals/{again}/approve")
    assert not get(anna, "/settings")["second_person"]
    anna.delete("/api/v1/policies/long")


def test_people_log_in_and_out(world: World) -> None:
    nobody = world.client(None)
    shown = post(nobody, "/login", {"name": "viewer", "password": PASSWORD})["token"]
    viewer = world.client(None, shown=shown)
    assert get(viewer, "/me")["user"]["name"] == "viewer"
    token = post(viewer, "/tokens", {"name": "grafana", "days": 30}, 201)
    assert [one["name"] for one in get(viewer, "/tokens")["tokens"] if one["kind"] == "token"] == ["grafana"]
    assert get(world.client(None, shown=token["shown"]), "/me")["token"]["name"] == "grafana"
    foreign = next(one["id"] for one in get(world.client(), "/tokens")["tokens"] if one["user"] == "anna")
    assert viewer.delete(f"/api/v1/tokens/{foreign}").status_code == 404
    assert viewer.delete(f"/api/v1/tokens/{token['token']['id']}").status_code == 200
    get(world.client(None, shown=token["shown"]), "/me", 401)
    post(viewer, "/logout")
    get(viewer, "/me", 401)
    assert post(nobody, "/login", {"name": "viewer", "password": "wrong"}, 401)["code"] == "login"


def test_users_are_administered(world: World) -> None:
    client = world.client()
    body = {"name": "carl", "password": PASSWORD, "grants": [{"role": "viewer", "tag": "prod"}]}
    made = post(client, "/users", body, 201)["user"]
    assert made["grants"] == [{"role": "viewer", "repository": "*", "platform": "*", "tag": "prod"}]
    assert post(client, "/users", body, 409)["code"] == "user-exists"
    assert PASSWORD not in str(world.access.audit.newest(5))
    changed = client.patch("/api/v1/users/carl", json={"grants": [{"role": "operator"}], "disabled": True})
    assert changed.json()["user"]["disabled"]
    assert client.patch("/api/v1/users/carl", json={"grants": [{"role": "god"}]}).status_code == 422
    assert client.delete("/api/v1/users/carl").status_code == 200
    assert "carl" not in [user["name"] for user in get(client, "/users")["users"]]


def test_what_was_done_and_refused_is_recorded(world: World) -> None:
    viewer, anna = world.client("viewer"), world.client()
    post(viewer, "/backups", {"machines": ["web"]}, 403)
    entries = get(anna, "/audit", limit=5)["entries"]
    assert (entries[0]["actor"], entries[0]["action"], entries[0]["outcome"]) == (
        "viewer",
        "post /api/v1/backups",
        "not-permitted",
    )
    verified = get(anna, "/audit/verify")
    known = f"{verified['number']}:{verified['hash']}"
    assert from_command(world, "audit", "verify", "--known", known)["number"] >= verified["number"]
    newest = get(anna, "/audit", limit=1)["entries"]
    assert from_command(world, "audit", "list", "-n", "1")["entries"] == newest
    other = f"{verified['number']}:{'0' * 64}"
    assert world.program.run("audit", "verify", "--known", other).status == 43


def test_the_server_says_how_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = world.client(None)
    assert get(nobody, "/health")["status"] == "ok"
    assert get(nobody, "/ready")["ready"]
    bad = Path(world.estate.settings.policy_folder / "bad.yaml")
    bad.parent.mkdir(exist_ok=True)
    bad.write_text("wen: 22:00\n")
    unready = get(nobody, "/ready", 503)
    bad.unlink()
    assert unready["parts"]["policies"] == "config"
    assert str(world.program.folder) not in json.dumps(unready)


def test_the_metrics_are_instants_and_sets_of_states(world: World) -> None:
    world.client().put("/api/v1/policies/promised", json={"schedule": {"rpo": "26h"}})
    answer = world.client("viewer").get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    success = families["hotspare_machine_last_success_timestamp_seconds"].samples
    assert {sample.labels["machine"] for sample in success} == {"web", "guest"}
    now = datetime.now(UTC).timestamp()
    assert all(now - 3600 < sample.value <= now for sample in success)
    states = [
        (sample.labels["hotspare_machine_state"], sample.value)
        for sample in families["hotspare_machine_state"].samples
        if sample.labels["machine"] == "web"
    ]
    assert sorted(states) == [("failed", 0), ("gone", 0), ("never-backed-up", 0), ("ok", 1)]
    assert [sample.value for sample in families["hotspare_policy_rpo_seconds"].samples] == [26 * 3600]
    assert [sample.value for sample in families["hotspare_platform_up"].samples] == [1]
    world.client().delete("/api/v1/policies/promised")


def test_a_tag_is_a_scope(world: World) -> None:
    """Images have no tags: who is restricted to one sees no machine."""
    world.access.users.add("tagged", PASSWORD, [Grant(role=Role.OPERATOR, tag="prod")])
    client = world.client("tagged")
    assert get(client, "/machines")["machines"] == []
    assert get(client, "/runs")["runs"] == []
    post(client, "/backups", {"machines": ["web"]}, 404)
    world.access.users.remove("tagged")
