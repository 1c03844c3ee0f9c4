"""Who is due on a server, and what its runs may take; on folders of images, without a server."""

import logging
import time
from collections.abc import Iterator

import pytest

from hotspare.backup.claim import UNDISPUTED
from hotspare.cancellation import Cancellation
from hotspare.cli.known_hosts import KnownHosts
from hotspare.cli.options import Options
from hotspare.cli.server_plans import ServerPlans
from hotspare.cli.server_work import ServerWork
from hotspare.errors import PlatformUnavailable
from hotspare.events import ignore
from hotspare.jobs.orders import Order
from hotspare.policy.limits import Resource
from tests.cli.images import make_image
from tests.cli.program import Program

MIB = 1024 * 1024
FAR = "qemu+ssh://other/system"


@pytest.fixture
def host(program: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    make_image(program.folder / "images" / "web.raw", MIB, data=MIB, seed=1)
    program.expect("repo", "create")
    program.environment["HOTSPARE_SSH_COMMAND"] = "/bin/false"
    for name, value in program.environment.items():
        monkeypatch.setenv(name, value)
    return program


@pytest.fixture
def plans(host: Program) -> Iterator[ServerPlans]:
    plans = ServerPlans(Options(), KnownHosts())
    yield plans
    plans.close()


def test_a_run_takes_part_of_the_links_that_it_crosses(host: Program, plans: ServerPlans) -> None:
    host.expect("policy", "add", "tight", "--rpo", "2h")
    limits = "link: 2\nlinks: {lan: {repositories: ['file://*'], bandwidth: 64MiB/s}}\n"
    (host.folder / "policies" / "limits.yaml").write_text(limits)
    assert plans.limits.link == 2
    (due,) = plans.due(time.time())
    assert Resource("link", "lan") in due.request.resources
    assert due.order.upload_limit == 32 * MIB
    done = ServerWork(Options(), KnownHosts()).back_up(due.order, UNDISPUTED, ignore, Cancellation())
    assert done.outcome == "ok", done.error


def test_a_host_that_does_not_answer_is_said_and_others_go_on(
    host: Program, plans: ServerPlans, caplog: pytest.LogCaptureFixture
) -> None:
    here = host.environment["HOTSPARE_PLATFORM"]
    host.expect("policy", "add", "tight", "--rpo", "2h", "--platform", FAR, "--platform", here)
    with caplog.at_level(logging.WARNING):
        due = plans.due(time.time())
    assert [one.order.machine for one in due] == ["web"]
    assert f"Machines of {FAR} are left out for now" in caplog.text
    assert [one.order.machine for one in plans.due(time.time())] == ["web"], "nothing was closed over it"


def test_what_somebody_asks_for_of_such_a_host_waits_and_what_is_not_there_does_not(
    host: Program, plans: ServerPlans
) -> None:
    host.expect("policy", "add", "hand")
    here = host.environment["HOTSPARE_PLATFORM"]
    with pytest.raises(PlatformUnavailable):
        plans.asked_for(Order(policy="hand", platform=FAR, machine_id="1", machine="far"), time.time())
    gone = Order(policy="hand", platform=here, machine_id="gone", machine="gone")
    assert plans.asked_for(gone, time.time()) is None
