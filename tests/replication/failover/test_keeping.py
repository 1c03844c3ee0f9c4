"""A machine whose start fails is tried again, as long as this host is its holder."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from hotspare.errors import HotspareError
from hotspare.replication.failover import keeping
from hotspare.replication.failover import machine as machines
from hotspare.replication.failover.keeping import ThisHost
from hotspare.replication.lease.terms import Record
from hotspare.replication.model import Mode, Protection

PROTECTION = Protection(
    id="p", machine_id="uuid", machine="web", mode=Mode.SYNC, source="source", standby="standby"
)
_PATIENCE = 20.0


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ThisHost:
    monkeypatch.setattr(keeping, "_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(machines, "destroy", lambda _uri, _machine: None)
    monkeypatch.setattr(machines, "no_autostart", lambda _uri, _machine: None)
    agent = SimpleNamespace(
        protection=lambda _name: PROTECTION,
        folder_of=lambda _protection: tmp_path,
        identity=SimpleNamespace(id="standby"),
    )
    return ThisHost(agent, PROTECTION)  # type: ignore[arg-type]


def _failing(times: int, tried: list[int]) -> Callable[..., None]:
    def bring_up(_agent: object, _protection: Protection, record: Record) -> None:
        tried.append(record.epoch)
        if len(tried) <= times:
            raise HotspareError("the network lan2 is not active")

    return bring_up


def test_a_start_that_fails_is_tried_again(host: ThisHost, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    monkeypatch.setattr(keeping, "bring_up", _failing(2, tried))
    host.held(Record(2, "standby"), was_running=False)
    assert tried == [2, 2, 2]


def test_but_not_once_another_host_holds_it(host: ThisHost, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    monkeypatch.setattr(keeping, "bring_up", _failing(1000, tried))
    monkeypatch.setattr(keeping, "_ATTEMPTS", 1000)
    trying = threading.Thread(target=host.held, args=(Record(2, "standby"),), kwargs={"was_running": False})
    trying.start()
    end = time.monotonic() + _PATIENCE
    while len(tried) < 3:
        assert time.monotonic() < end
        time.sleep(0.01)
    host.lost()
    trying.join(_PATIENCE)
    assert not trying.is_alive()


def test_what_was_started_too_late_is_ended(host: ThisHost, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def bring_up(*_asked: object) -> None:
        host.lost()
        done.append("started")

    monkeypatch.setattr(keeping, "bring_up", bring_up)
    monkeypatch.setattr(machines, "destroy", lambda _uri, _machine: done.append("ended"))
    host.held(Record(2, "standby"), was_running=False)
    assert done == ["ended", "started", "ended"]
