"""Restores to another host, asked for over HTTP and in the console of a server here."""

import time
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from hotspare.access.roles import Grant, Role
from hotspare.api.estate import repository_key
from lab import LabGuest, domain_name
from tests.api.world import PASSWORD, World, get, post, served
from tests.console.visitor import Visitor
from tests.mover.remote import Remote, eventually
from tests.storage.servers import Sshd

_SLOWLY = {"HOTSPARE_DOWNLOAD_LIMIT": "512KiB/s"}
_PATIENCE = 90


def restore_by_a_server(remote: Remote, guest: LabGuest, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the newest point of a guest to the other host: stopped, lost, and done at the third time."""
    program = remote.program
    there, name = program.environment["HOTSPARE_PLATFORM"], domain_name("by-http")
    for variable in ("HOTSPARE_SSH_COMMAND", "HOTSPARE_REMOTE_PROGRAM"):
        monkeypatch.setenv(variable, program.environment[variable])
    (program.folder / "passphrase").write_text(program.environment["HOTSPARE_PASSPHRASE"])
    (program.folder / "passphrase").chmod(0o600)
    (program.folder / "hotspare.toml").write_text(
        f'repository = "{program.repository}"\npassphrase_file = "{program.folder}/passphrase"\n'
        f'platform = "images://{program.folder}/images"\nstate_folder = "{program.folder}/state"\n'
    )
    point = program.expect("point", "list", "--machine", guest.name, "-o", "json").document()["points"][-1]
    path, body = f"/points/{point['id']}", {"name": name, "platform": there}
    usual = dict(program.environment)
    try:
        program.environment |= _SLOWLY
        with served(program, ["anna"]) as world:
            _only_who_may(world, path, body)
            _planned(world, path, body)
            _stopped(world, remote, path, body)
            _lost(world, sshd, path, body)
        program.environment = usual
        with served(program, []) as world:
            client = world.client()
            ended: list[dict[str, Any]] = []

            def is_made() -> bool:
                """Tell whether it went well; the one that was lost may still hold its disks for a while."""
                if ended and ended[-1]["state"] == "ok":
                    return True
                ended.append(_ended(client, post(client, f"{path}/restore", body, 202)["action"]))
                return bool(ended[-1]["state"] == "ok")

            assert eventually(is_made), ended[-1]
            made = ended[-1]
            assert made["result"]["machine"]["platform"] == there
            assert LabGuest.attach(name).domain.isActive() == 0
            runs = get(client, "/runs", kind="restore")["runs"]
            assert [one["outcome"] for one in runs[:1] + runs[-2:]] == ["ok", "failed", "interrupted"]
            assert {(one["platform"], one["machine"]) for one in runs} == {(there, name)}
            assert runs[0]["point"] == point["id"]
            assert post(client, f"{path}/restore-plan", body, 409)["code"] == "target-exists"
    finally:
        program.environment = usual
        LabGuest(name).remove()


def _only_who_may(world: World, path: str, body: dict[str, Any]) -> None:
    """Who may restore to this host only is neither offered the other nor let there; nor given its points."""
    world.access.users.add("clerk", PASSWORD, [Grant(role=Role.RESTORE_ONLY, platform="images:*")])
    client, clerk = world.client("clerk"), Visitor(world, "clerk")
    here = f"/points/{get(client, '/points', machine='here')['points'][-1]['id']}"
    for route in ("restore-plan", "restore"):
        assert post(client, f"{here}/{route}", body, 403)["code"] == "not-permitted"
        assert post(client, f"{path}/{route}", body, 404)["code"] == "no-point"
    asked = clerk.get(f"{here}/restore?repository={_key(world)}")
    assert world.estate.settings.platform in asked
    assert body["platform"] not in asked
    assert world.actions.all() == []


def _planned(world: World, path: str, body: dict[str, Any]) -> None:
    """The console shows what the host has, and what would be made there."""
    anna = Visitor(world, "anna")
    page = f"{path}/restore"
    form = {**body, "repository": _key(world), "do": "plan"}
    asked = anna.get(f"{page}?{urlencode({'repository': _key(world), 'platform': body['platform']})}")
    assert f"<option selected>{body['platform']}</option>" in asked
    assert 'role="alert"' not in asked
    planned = anna.post(page, form, 200).text
    assert f"A machine {body['name']}" in planned
    assert f"{body['name']}-vda" in planned, "where its disk would be"
    assert "no storage pool" in anna.post(page, {**form, "pool": "no-such-pool"}, 422).text
    entry = world.access.audit.newest(1)[0]
    assert (entry.action, entry.detail["platform"]) == (
        "post /points/{point}/restore",
        body["platform"],
    )


def _stopped(world: World, remote: Remote, path: str, body: dict[str, Any]) -> None:
    client = world.client()
    action = _begun(client, path, body)
    post(client, f"/actions/{action['id']}/cancel", {}, 202)
    stopped = _ended(client, action)
    assert stopped["state"] == "cancelled", stopped
    machines = remote.program.expect("machine", "list", "-o", "json").document()["machines"]
    assert body["name"] not in [one["name"] for one in machines]
    entry = next(one for one in world.access.audit.newest(5) if one.action == "post /points/{point}/restore")
    assert (entry.actor, entry.detail["platform"]) == ("anna", body["platform"])


def _lost(world: World, sshd: Sshd, path: str, body: dict[str, Any]) -> None:
    client = world.client()
    action = _begun(client, path, body)
    sshd.drop_connections()
    lost = _ended(client, action)
    assert (lost["state"], lost["error"]["code"]) == ("failed", "platform-unavailable"), lost
    assert body["platform"] in lost["error"]["what"]
    assert lost["error"]["meaning"].startswith(f"There is no machine {body['name']} of this restore")


def _key(world: World) -> str:
    return repository_key(world.estate.settings.repository or "")


def _begun(client: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Begin a restore, and give it once it was heard that a disk is being restored there."""
    action: dict[str, Any] = post(client, f"{path}/restore", body, 202)["action"]

    def is_writing() -> bool:
        action.update(get(client, f"/actions/{action['id']}")["action"])
        assert action["state"] in {"waiting", "running"}, action
        # A pack is read at once, slowly: with the first bytes that are through, most of them are.
        return any(one["disks"] for one in action["progress"])

    assert eventually(is_writing), action
    return action


def _ended(client: TestClient, action: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + _PATIENCE
    while action["state"] in {"waiting", "running"}:
        assert time.monotonic() < deadline, action
        time.sleep(0.1)
        action = get(client, f"/actions/{action['id']}")["action"]
    return action
