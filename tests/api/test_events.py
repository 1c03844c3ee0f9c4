"""What happens is told to all who watch, over real connections: once, at once, and to nobody who may not."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from hotspare.access.roles import Grant, Role
from hotspare.api import events, watching
from hotspare.api.serving import listen, server_for
from hotspare.api.watching import Watching
from tests.api.test_jobs import Working, asked, working
from tests.api.world import PASSWORD, World, post
from tests.jobs.daemon import wait_for

__all__ = ["working"]
Told = tuple[str, dict[str, Any]]


@dataclass
class Listening:
    """Somebody who watches."""

    answer: http.client.HTTPResponse

    def next(self) -> Told:
        """Wait for the next event, and give its kind and document."""
        kind = ""
        while line := self.answer.readline().decode():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ").strip()
            elif line.startswith("data: "):
                return kind, json.loads(line.removeprefix("data: "))
        raise EOFError

    def until(self, kind: str, **wanted: object) -> dict[str, Any]:
        """Skip events until one has all of these fields."""
        while True:
            told, document = self.next()
            if told == kind and all(document.get(key) == value for key, value in wanted.items()):
                return document


@pytest.fixture
def address(working: Working) -> Iterator[str]:
    with served_at(working.world) as address:
        yield address


@contextmanager
def served_at(world: World) -> Iterator[str]:
    """Serve on a port; whoever watches at the end is let go."""
    with listen("127.0.0.1", 0) as listening:
        server = server_for(world.app, None)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
        # The next test's server serves the same application.
        old = world.app.state.server
        world.app.state.server = type(old)(
            old.estate, old.access, old.actions, old.repeats, Watching(old.estate, old.actions)
        )


@contextmanager
def watch(world: World, address: str, name: str = "anna", query: str = "") -> Iterator[Listening]:
    headers = {"Authorization": f"Bearer {world.login(name)}"}
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.request("GET", f"/api/v1/events{query}", headers=headers)
        with connection.getresponse() as answer:
            assert (answer.status, answer.getheader("Content-Type")) == (
                200,
                "text/event-stream; charset=utf-8",
            )
            yield Listening(answer)


def test_jobs_are_told_from_asking_to_their_end(working: Working, address: str) -> None:
    client = working.world.client()
    with watch(working.world, address) as watcher:
        before = watcher.until("waiting")["jobs"]
        job = asked(client, "db")["id"]
        assert watcher.until("waiting")["jobs"] == before + 1
        post(client, f"/jobs/{job}/cancel", status=202)
        working.begin("db", "job-told")
        running = watcher.until("job", id="job-told", state="running", bytes_processed=40)
        assert running["bytes_total"] == 80
        working.bench.work.released = True
        assert watcher.until("job", id="job-told", state="ok")["point"]
        working.bench.work.released = False
    with watch(working.world, address) as newcomer:
        assert newcomer.until("job", id="job-told")["state"] == "ok"


def test_actions_are_told(working: Working, address: str) -> None:
    with watch(working.world, address) as watcher:
        action = post(working.world.client(), "/backups", {"machines": ["web"]}, 202)["action"]
        told = watcher.until("action")["action"]
        while told["state"] in {"waiting", "running"}:
            told = watcher.until("action")["action"]
        assert (told["id"], told["state"]) == (action["id"], "ok")


def test_it_ends_when_it_is_to(working: Working, address: str) -> None:
    with watch(working.world, address, query="?seconds=0") as watcher:
        assert watcher.next()[0] == "waiting"
        assert all(kind in {"job", "action"} for kind, _ in rest(watcher))
    wait_for(lambda: working.world.app.state.server.watching.count == 0)


def rest(watcher: Listening) -> Iterator[Told]:
    while True:
        try:
            yield watcher.next()
        except EOFError:
            return


def test_who_is_restricted_is_told_nothing_of_others(working: Working, address: str) -> None:
    asked(working.world.client(), "web")
    working.begin("web", "job-secret")
    working.wait("job-secret", lambda job: job["state"] == "running")
    with watch(working.world, address, "elsewhere", "?seconds=3") as other:
        working.bench.work.released = True
        working.wait("job-secret", lambda job: job["state"] == "ok")
        assert list(rest(other)) == [("waiting", {"type": "waiting", "v": 1, "jobs": 0})]
    working.bench.work.released = False


def test_who_is_sent_away_is_told_nothing_more(
    working: Working, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(events, "_IDENTIFIED_SECONDS", 0.0)
    access = working.world.access
    access.users.add("guest", PASSWORD, [Grant(role=Role.VIEWER)])
    with watch(working.world, address, "guest") as watcher:
        watcher.next()
        access.users.remove("guest")
        list(rest(watcher))


def test_however_many_watch_it_is_looked_once_a_second(
    working: Working, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    found = Watching._found

    def counted(self: Watching) -> watching._Look:
        looks.append(time.monotonic())
        return found(self)

    monkeypatch.setattr(Watching, "_found", counted)
    with ExitStack() as stack:
        watchers = [stack.enter_context(watch(working.world, address)) for _ in range(20)]
        wait_for(lambda: working.world.app.state.server.watching.count == 20)
        began, at = len(looks), time.monotonic()
        working.begin("db", "job-for-all")
        for watcher in watchers:
            watcher.until("job", id="job-for-all")
        assert len(looks) - began <= (time.monotonic() - at) / watching.LOOK_SECONDS + 1
    wait_for(lambda: working.world.app.state.server.watching.count == 0)
    ended = len(looks)
    time.sleep(2 * watching.LOOK_SECONDS)
    assert len(looks) - ended <= 1


def test_who_takes_nothing_in_is_let_go(
    working: Working, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = 0

    def found(self: Watching) -> watching._Look:
        nonlocal big
        big += 1
        event = watching._event("job", {"number": big, "filling": "x" * 1_000_000})
        return watching._Look({("job", "big"): watching.Thing(event, lambda: None)})  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(Watching, "_found", found)
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.01)
    hub = working.world.app.state.server.watching
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as deaf:
        shown = working.world.login("anna")
        deaf.sendall(
            f"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shown}\r\n\r\n".encode()
        )
        wait_for(lambda: hub.count == 1)
        (watcher,) = [one for audience in hub._audiences.values() for one in audience.watchers]
        with watch(working.world, address) as quick:
            seen = 0
            while seen < 200:
                seen = quick.until("job")["number"]
        assert watcher._coming.qsize() == 1  # that it is over, and nothing that it could have missed
    wait_for(lambda: hub.count == 0)


def test_the_kernel_cuts_off_who_is_deaf() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
