"""Routes of jobs, on a real job database with a real mover; what it does with a job is scripted."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.testclient import TestClient

from hotspare.access.roles import Grant, Role
from hotspare.jobs import mover as module
from hotspare.jobs.orders import Order
from tests.api.world import PASSWORD, World, get, made_program, post, served
from tests.cli.images import make_image
from tests.jobs.test_mover import Bench

MACHINES = ("db", "web")


@dataclass
class Working:
    """A server whose jobs go as far as a test lets them: nobody schedules, a mover takes what is queued."""

    world: World
    bench: Bench

    def begin(self, machine: str, job: str) -> None:
        """Let a job begin, as a scheduler would."""
        client = self.world.client()
        found = get(client, f"/machines/{machine}")["machine"]
        uri = self.world.estate.platforms()[0]
        order = Order(policy="nightly", platform=uri, machine_id=found["id"], machine=machine)
        self.bench.queue.submit(job, "here", order)

    def wait(self, job: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until something holds for a job, and give it."""
        client, deadline = self.world.client(), time.monotonic() + 60
        while not holds(found := get(client, f"/jobs/{job}")):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Working]:
    program = made_program(tmp_path_factory.mktemp("working"))
    for name in MACHINES:
        make_image(program.folder / f"images/{name}.raw")
    (program.folder / "policies").mkdir()
    (program.folder / "policies/nightly.yaml").write_text("")
    (program.folder / "policies/others.yaml").write_text("select:\n  names: ['x*']\n")
    with served(program) as world, pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "BEAT_SECONDS", 0.2)
        bench = Bench(f"sqlite:///{program.folder}/state/jobs.sqlite")
        yield Working(world, bench)
        bench.close()


def asked(client: TestClient, machine: str, status: int = 202, **more: Any) -> dict[str, Any]:
    return post(client, "/jobs", {"policy": "nightly", "machine": machine, **more}, status)


def test_without_a_job_database_it_is_not_available(world: World) -> None:
    for method, path in (("GET", "/jobs"), ("GET", "/jobs/job-1"), ("POST", "/jobs/job-1/cancel")):
        answer = world.client().request(method, f"/api/v1{path}")
        assert (answer.status_code, answer.json()["code"]) == (503, "job-database")


def test_asked_for_hurried_and_cancelled_before_it_begins(working: Working) -> None:
    client = working.world.client("operator")
    job = asked(client, "web", priority=7)
    assert (job["state"], job["machine"], job["priority"]) == ("waiting", "web", 7)
    assert asked(client, "web")["id"] == job["id"]  # it waits already
    answer = client.put(f"/api/v1/jobs/{job['id']}/priority", json={"priority": 50})
    assert answer.json()["priority"] == get(client, f"/jobs/{job['id']}")["priority"] == 50
    (listed,) = [one for one in get(client, "/jobs")["jobs"] if one["id"] == job["id"]]
    assert {"type": "job", "v": 1, **listed} == get(client, f"/jobs/{job['id']}")
    assert post(client, f"/jobs/{job['id']}/cancel", status=202)["state"] == "cancelled"


def test_what_cannot_be_is_refused(working: Working) -> None:
    client = working.world.client()
    assert asked(client, "nobody", 404)["code"] == "no-machine"
    assert asked(client, "web", 404, platform="images:///etc")["code"] == "no-machine"
    assert asked(client, "web", 422, priority=1000)["code"] == "usage"
    assert asked(client, "web", 422, soon=True)["code"] == "usage"
    assert post(client, "/jobs", {"policy": "none", "machine": "web"}, 404)["code"] == "no-policy"
    assert post(client, "/jobs", {"policy": "others", "machine": "web"}, 404)["code"] == "no-machine"
    assert get(client, "/jobs/job-none", 404)["code"] == "no-job"
    assert post(client, "/jobs/job-none/retry", {}, 404)["code"] == "no-job"


def test_stopped_refused_when_over_and_done_again(working: Working) -> None:
    client = working.world.client("operator")
    working.begin("web", "job-stopped")
    working.wait("job-stopped", lambda job: job["state"] == "running" and job["bytes_processed"] > 0)
    assert post(client, "/jobs/job-stopped/retry", {}, 409)["code"] == "conflict"
    assert post(client, "/jobs/job-stopped/cancel", status=202)["state"] == "cancelled"
    over = working.wait("job-stopped", lambda job: job["error"] is not None)
    assert (over["state"], over["attempt"]) == ("cancelled", 1)
    assert post(client, "/jobs/job-stopped/cancel", status=409)["code"] == "conflict"
    answer = client.put("/api/v1/jobs/job-stopped/priority", json={"priority": 1})
    assert answer.json()["code"] == "conflict"
    headers = {"Idempotency-Key": "again"}
    again = [client.post("/api/v1/jobs/job-stopped/retry", json={}, headers=headers).json() for _ in "12"]
    assert again[0] == again[1]
    assert (again[0]["state"], again[0]["machine"]) == ("waiting", "web")
    post(client, f"/jobs/{again[0]['id']}/cancel", status=202)


def test_pages_make_up_the_whole(working: Working) -> None:
    client = working.world.client()
    for number in range(4):
        working.begin("db", f"job-page-{number}")
    for machine in MACHINES:
        asked(client, machine)
    command = working.world.program.expect("job", "list", "-o", "json").document()
    whole = [job["id"] for job in command["jobs"]]
    assert len(set(whole)) == len(whole) >= 6
    for limit in (1, 2, 1000):
        ids: list[str] = []
        document: dict[str, Any] = {}
        while not ids or document["next"]:
            after = {"after": document["next"]} if ids else {}
            document = get(client, "/jobs", limit=limit, **after)
            assert len(document["jobs"]) <= limit
            ids += [job["id"] for job in document["jobs"]]
        assert ids == whole
    # They must not keep other tests' jobs from beginning.
    working.bench.work.released = True
    for number in range(4):
        working.wait(f"job-page-{number}", lambda job: job["state"] == "ok")
    working.bench.work.released = False


@pytest.mark.parametrize("after", ["x", "W10", "WyJhIiwiYiIsImMiXQ", "WyJ3YWl0aW5nIiwiLTEiLCJhIl0"])
def test_a_made_up_place_in_the_list_is_no_accident(working: Working, after: str) -> None:
    assert working.world.client().get("/api/v1/jobs", params={"after": after}).status_code == 422


def test_who_is_restricted_sees_and_moves_nothing_of_others(working: Working) -> None:
    world = working.world
    job = asked(world.client(), "web")["id"]
    other = world.client("elsewhere")
    assert get(world.client(), "/jobs")["movers"] != []
    document = get(other, "/jobs")
    assert (document["jobs"], document["movers"]) == ([], [])
    get(other, f"/jobs/{job}", 404)
    asked(other, "web", 404)
    for verb in ("cancel", "retry"):
        post(other, f"/jobs/{job}/{verb}", {}, 404)
    assert other.put(f"/api/v1/jobs/{job}/priority", json={"priority": 1}).status_code == 404
    assert get(world.client(), f"/jobs/{job}")["state"] == "waiting"


def test_a_scope_shows_what_is_in_it(working: Working) -> None:
    world = working.world
    uri = world.estate.platforms()[0]
    asked(world.client(), "web")
    # Sees all of the platform, and may begin nothing there.
    tenant = [Grant(role=Role.VIEWER, platform=uri), Grant(role=Role.OPERATOR, platform="nowhere://*")]
    world.access.users.add("tenant", PASSWORD, tenant)
    client = world.client("tenant")
    job = get(client, "/jobs")["jobs"][0]["id"]
    assert post(client, f"/jobs/{job}/cancel", {}, 403)["code"] == "not-permitted"
    asked(client, "web", 404)
    world.access.users.remove("tenant")
