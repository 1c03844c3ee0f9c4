"""What a server knows of other hosts without waiting for them."""

import threading
import time
from collections.abc import Callable
from typing import cast

import pytest

from hotspare.cli.known_hosts import KnownHosts
from hotspare.cli.other_host import OtherHost
from hotspare.documents.host import HostReport
from hotspare.errors import MachineNotFound, PlatformUnavailable
from hotspare.platforms.platform import Machine, PowerState
from hotspare.policy.load import LoadSample

URI = "qemu+ssh://root@host2:22/system"
WEB = Machine(id="1", name="web", platform=URI, state=PowerState.RUNNING)
REPORT = HostReport([WEB], {"1": frozenset({"/srv/vms"})}, None)
GONE = PlatformUnavailable("gone")


class ScriptedHost:
    """A host that answers as it is told, when it is let."""

    uri = URI

    def __init__(self, answer: HostReport | Exception) -> None:
        self.answer = answer
        self.asked: list[float] = []
        self.let = threading.Event()
        self.let.set()

    def report(self, seconds: float) -> HostReport:
        self.let.wait(60)
        self.asked.append(seconds)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def known(host: ScriptedHost, seconds: float = 0.0) -> tuple[KnownHosts, Callable[[], list[Machine]]]:
    hosts = KnownHosts(seconds)
    return hosts, hosts.known(cast("OtherHost", host)).machines


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_first_answer_is_waited_for_and_kept() -> None:
    host = ScriptedHost(REPORT)
    hosts, machines = known(host, seconds=3600)
    assert machines() == machines() == [WEB]
    assert host.asked == [0.0], "asked once, and not for its load"
    shown = hosts.known(cast("OtherHost", host))
    assert shown.inspect("web") == shown.inspect("1") == WEB
    assert shown.pools(WEB) == {"host2:22:/srv/vms"}
    with pytest.raises(MachineNotFound):
        shown.inspect("db")


def test_a_host_that_is_gone_is_an_error_until_it_is_back() -> None:
    load = LoadSample(at=None, cpu=0.1, disk=0, network=0, latency=0.002)  # type: ignore[arg-type]
    host = ScriptedHost(REPORT)
    hosts, machines = known(host)
    assert machines() == [WEB]

    def fails() -> bool:
        try:
            machines()
        except PlatformUnavailable as error:
            return error is GONE
        return False

    host.answer = GONE
    until(fails)
    host.answer = HostReport([WEB], REPORT.pools, load)
    until(lambda: not fails())
    assert hosts.known(cast("OtherHost", host)).load(9.0) == load


def test_a_host_that_says_nothing_keeps_nobody_waiting_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotspare.cli.known_hosts._FIRST_PATIENCE", 0.05)
    host = ScriptedHost(REPORT)
    host.let.clear()
    _, machines = known(host)
    for _ in range(3):
        with pytest.raises(PlatformUnavailable, match="has not answered yet"):
            machines()
    host.let.set()
    until(lambda: bool(host.asked))
    assert host.asked == [0.0], "nobody has asked it twice meanwhile"
    until(lambda: _has(machines))


def _has(machines: Callable[[], list[Machine]]) -> bool:
    try:
        return machines() == [WEB]
    except PlatformUnavailable:
        return False
