"""Machines of another host by policy: backed up there, stopped, lost on the way; and restored."""

import json
import signal
from collections.abc import Iterator

import pytest

from hotspare.jobs.book import JobBook
from hotspare.jobs.orders import Order
from hotspare.units import MIB
from lab import LabGuest
from tests.jobs.daemon import Site, site, wait_for
from tests.mover.over_http import restore_by_a_server
from tests.mover.remote import Remote, eventually, leftovers
from tests.storage.servers import Sshd

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
SLOWLY = "backup:\n  read_limit: 512KiB/s\n"


@pytest.fixture
def served(remote: Remote) -> Iterator[Site]:
    """Give a server of both: a folder of images here, and the other host's libvirt."""
    (remote.program.folder / "images").mkdir()
    with site(remote.program, make=False) as served:
        served.image("here", b"a" * MIB)
        yield served


def uris(remote: Remote) -> list[str]:
    return [f"images://{remote.program.folder}/images", remote.program.environment["HOTSPARE_PLATFORM"]]


def both(remote: Remote, guest: LabGuest, more: str = "") -> str:
    return f"select:\n  platforms: {json.dumps(uris(remote))}\n  names: [here, {guest.name}]\n{more}"


def ask(served: Site, remote: Remote, guest: LabGuest) -> str:
    order = Order(
        policy="nightly",
        platform=uris(remote)[1],
        machine_id=guest.domain.UUIDString(),
        machine=guest.name,
    )
    with JobBook(served.database) as book:
        return book.ask(order)


def test_a_policy_of_two_hosts_one_of_which_goes_away(
    served: Site, remote: Remote, guest: LabGuest, any_sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, (here, there) = remote.program, uris(remote)
    served.policy("nightly", both(remote, guest, "backup:\n  exclude_disks: ['vdz*']\n"))
    guest.write_random("/data/much", 4 * MIB)

    plan = program.expect("policy", "run", "nightly", "--dry-run", "-o", "json").document()
    assert {one["platform"] for one in plan["machines"]} == {here, there}
    done = program.expect("policy", "run", "nightly", "-o", "json").document()
    assert [one["outcome"] for one in done["results"]] == ["ok", "ok"]
    assert {one["platform"] for one in served.points()} == {here, there}
    runs = program.expect("run", "list", "--policy", "nightly", "-o", "json").document()["runs"]
    (run,) = [one for one in runs if one["machine"] == guest.name]
    assert (run["platform"], run["outcome"]) == (there, "ok")
    assert run["bytes_read"] >= 4 * MIB, "its events were heard"
    again = program.expect("policy", "run", "nightly", "-o", "json").document()
    assert {one["mode"] for one in again["results"] if one["machine"] == guest.name} == {"increment"}

    restore_by_a_server(remote, guest, any_sshd, monkeypatch)

    (sample,) = program.expect(
        "load", "sample", "--platform", there, "--seconds", "0.5", "-o", "json"
    ).document()["samples"]
    assert (sample["platform"], sample["disk"] >= 0) == (there, True)
    limits = program.folder / "policies" / "limits.yaml"
    limits.write_text(f"named: {{'host {there}': 0}}\n")
    limited = program.expect("policy", "run", "nightly", "-o", "json")
    assert [one["machine"] for one in limited.document()["results"]] == ["here"]
    assert f"host {there} has 0 of 0 runs" in limited.err
    limits.unlink()

    any_sshd.stop()
    try:
        silent = program.run("policy", "run", "nightly", "-o", "json")
        preview = program.expect("policy", "preview", "nightly", "-o", "json").document()
    finally:
        any_sshd.up()
    assert silent.status == 20, silent.err
    assert [one["machine"] for one in silent.document()["results"]] == ["here"], "others go on"
    assert there in silent.err
    assert [one["machine"] for one in preview["machines"]] == ["here"]
    assert [one["platform"] for one in preview["problems"]] == [there]


def test_jobs_on_another_host_are_seen_stopped_and_lost(
    served: Site, remote: Remote, guest: LabGuest, any_sshd: Sshd
) -> None:
    served.policy("nightly", both(remote, guest, SLOWLY))
    guest.write_random("/data/much", 5 * MIB)
    server = served.start()
    server.wait_ready()
    first = ask(served, remote, guest)
    served.job(id=first, state="running", phase="transfer")
    wait_for(lambda: "vda" in [disk["name"] for disk in served.job(id=first)["disks"]], served.describe)
    served.program.expect("job", "cancel", first)
    wait_for(lambda: "cancelled" in served.outcomes(), served.describe)
    assert eventually(lambda: leftovers(remote, guest) == [])

    second = ask(served, remote, guest)
    served.job(id=second, state="running", phase="transfer")
    any_sshd.drop_connections()
    lost = served.job(id=second, state="failed")
    assert lost["error_code"] == "platform-unavailable"
    assert uris(remote)[1] in lost["error"]
    assert eventually(lambda: leftovers(remote, guest) == [])
    assert served.points() == []

    third = ask(served, remote, guest)
    served.job(id=third, state="running", phase="transfer")
    server.signal(signal.SIGKILL)
    server.process.wait()
    served.start().wait_ready()
    done = served.job(id=third, state="ok")
    assert done["attempt"] == 2
    assert [one["id"] for one in served.points()] == [done["point"]]
    assert served.outcomes().count("failed") == 1
