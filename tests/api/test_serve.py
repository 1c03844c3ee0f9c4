"""The server as users start it, and the program that asks it from elsewhere."""

import json
import os
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.api.world import PASSWORD, made_program
from tests.cli.images import make_image
from tests.cli.program import Finished, Program, interrupt


@dataclass
class Serving:
    """A running server, and an admin's API token."""

    program: Program
    process: subprocess.Popen[str]
    said: dict[str, Any]
    token: str

    @property
    def certificate(self) -> Path:
        return self.program.folder / "state/server/certificate.pem"

    def ask(self, *words: str, **variables: str | None) -> Finished:
        """Run a command with ``--server``, as on a host that has nothing else."""
        set_there: dict[str, str | None] = {
            "HOTSPARE_REPOSITORY": None,
            "HOTSPARE_PASSPHRASE": None,
            "HOTSPARE_PLATFORM": None,
            "HOTSPARE_CONFIG": None,
            "HOTSPARE_STATE_FOLDER": "/nonexistent",
            "HOTSPARE_TOKEN": self.token,
            "HOTSPARE_SERVER_CERTIFICATE": str(self.certificate),
        }
        command = ["--server", self.said["url"], *words]
        return self.program.run(*command, typed="", **(set_there | variables))


def posted(url: str, certificate: Path, body: dict[str, str], token: str = "") -> dict[str, Any]:
    context = ssl.create_default_context(cafile=str(certificate))
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request, context=context, timeout=60) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    program = made_program(tmp_path_factory.mktemp("serving"))
    make_image(program.folder / "images/web.raw")
    (program.folder / "policies").mkdir()
    (program.folder / "policies/nightly.yaml").write_text("")
    process = program.start("server", "--listen", "127.0.0.1:0", "-o", "json")
    assert process.stdout is not None
    said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    serving = Serving(program, process, said, "")
    code = {"code": said["setup_code"], "name": "anna", "password": PASSWORD}
    api = f"{said['url']}/api/v1"
    posted(f"{api}/setup", serving.certificate, code)
    login = posted(f"{api}/login", serving.certificate, {"name": "anna", "password": PASSWORD})["token"]
    serving.token = posted(f"{api}/tokens", serving.certificate, {"name": "script"}, login)["shown"]
    yield serving
    done = interrupt(process)
    said = [line for line in done.err.splitlines() if not line.startswith("INFO: ")]
    assert (done.status, len(said)) == (0, 1), done.err  # that it was ready


def test_a_backup_is_begun_from_elsewhere_and_seen(serving: Serving) -> None:
    done = serving.ask("backup", "web", "-o", "json")
    assert done.status == 0, done.err
    point = done.document()["results"][0]["point"]["id"]
    here = serving.program.expect
    for words in (
        ("machine", "show", "web"),
        ("point", "list"),
        ("point", "show", point),
        ("run", "list"),
        ("policy", "list"),
    ):
        there = serving.ask(*words, "-o", "json").document()
        there.pop("next", None)
        assert there == here(*words, "-o", "json").document(), words
    for words in (("machine", "list"), ("point", "list"), ("run", "list"), ("point", "show", point)):
        shown = serving.ask(*words)
        assert point in shown.out, shown.err


def test_a_restore_is_begun_from_elsewhere(serving: Serving) -> None:
    assert serving.ask("backup", "web").status == 0
    planned = serving.ask("restore", "web", "--to", "web-again", "--dry-run", "-o", "json")
    assert planned.document()["plan"]["name"] == "web-again", planned.err
    image = serving.program.folder / "images/web-again.raw"
    assert not image.exists()
    done = serving.ask("restore", "web", "--to", "web-again", "-o", "json")
    assert done.document()["machine"]["name"] == "web-again", done.err
    taken = serving.ask("restore", done.document()["point"], "--to", "web-again", "-o", "json")
    assert (taken.status, taken.error()["code"]) == (26, "target-exists")
    image.unlink()
    assert serving.ask("restore", "nobody", "--to", "x").status == 22
    for more in (["--in-place"], ["--to", "x", "--folder", "/srv"], ["--disk", "disk0=/x"]):
        assert serving.ask("restore", "web", *more).status == 2


def test_a_job_is_asked_for_from_elsewhere_and_seen(serving: Serving) -> None:
    asked = serving.ask("job", "add", "nightly", "web", "--priority", "5", "-o", "json").document()
    assert (asked["policy"], asked["machine"]) == ("nightly", "web")
    job = asked["id"]
    deadline = time.monotonic() + 60
    while (done := serving.ask("job", "show", job, "-o", "json").document())["state"] != "ok":
        assert time.monotonic() < deadline, done
    here = serving.program.expect
    assert done == here("job", "show", job, "-o", "json").document()
    there = serving.ask("job", "list", "-o", "json").document()
    assert there == here("job", "list", "-o", "json").document()
    assert done["point"] in serving.ask("job", "list").out
    assert serving.ask("job", "cancel", job).status == 1
    assert serving.ask("job", "priority", job, "7").status == 1
    again = serving.ask("job", "retry", job, "--priority", "-1", "-o", "json").document()
    assert (again["machine"], again["id"] == job) == ("web", False)
    assert serving.ask("job", "add", "nightly", "nobody").status == 21


def test_errors_are_those_of_commands(serving: Serving) -> None:
    assert serving.ask("machine", "show", "nobody").status == 21
    assert serving.ask("backup", "nobody").status == 21
    assert serving.ask("point", "show", "nothing").status == 22
    assert serving.ask("policy", "show", "nothing").status == 34
    assert serving.ask("repo", "info").status == 2
    assert serving.ask("backup", "web", "--full").status == 2
    assert serving.ask("run", "list", HOTSPARE_TOKEN="hotspare_0_x").status == 40
    assert serving.ask("run", "list", HOTSPARE_TOKEN=None).status == 2
    wrong = serving.ask("run", "list", HOTSPARE_SERVER_CERTIFICATE=None)
    assert (wrong.status, "CERTIFICATE_VERIFY_FAILED" in wrong.err) == (44, True)


def test_the_token_may_be_in_a_file(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{serving.token}\n")
    variables: dict[str, str | None] = {
        "HOTSPARE_TOKEN": None,
        "HOTSPARE_TOKEN_FILE": str(tmp_path / "token"),
    }
    assert serving.ask("run", "list", **variables).status == 0


def test_a_token_is_never_sent_in_the_clear_to_another_host(program: Program) -> None:
    done = program.run("--server", "http://192.0.2.1:1", "run", "list", HOTSPARE_TOKEN="x")
    assert (done.status, "the token was not sent" in done.err) == (2, True)


def test_the_key_is_for_its_owner_only_and_the_certificate_stays(serving: Serving) -> None:
    key = serving.certificate.with_name("key.pem")
    assert key.stat().st_mode & 0o777 == 0o600
    assert serving.said["fingerprint"].count(":") == 31
    shown = subprocess.run(
        ["openssl", "x509", "-in", serving.certificate, "-noout", "-fingerprint", "-sha256"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert serving.said["fingerprint"] in shown.stdout


def test_a_port_that_is_taken_is_said(serving: Serving) -> None:
    taken = serving.said["url"].rpartition(":")[2]
    done = serving.program.run("server", "--listen", f"127.0.0.1:{taken}")
    assert (done.status, "cannot be listened on" in done.err) == (44, True)


@pytest.mark.parametrize("words", [("--no-tls", "--listen", "0.0.0.0:0"), ("--listen", "everywhere")])
def test_what_would_not_be_safe_is_refused(serving: Serving, words: tuple[str, ...]) -> None:
    assert serving.program.run("server", *words).status == 2


def test_users_are_made_on_the_host(program: Program) -> None:
    assert os.environ.get("HOTSPARE_USER_PASSPHRASE") is None
    password = {"HOTSPARE_USER_PASSPHRASE": PASSWORD}
    program.expect("user", "add", "ben", "--role", "viewer:tag=prod", **password)
    program.expect("user", "add", "anna", "--role", "admin", **password)
    users = program.expect("user", "list", "-o", "json").document()["users"]
    assert [user["name"] for user in users] == ["anna", "ben"]
    assert users[1]["grants"][0]["tag"] == "prod"
    assert program.run("user", "add", "carl", "--role", "god", **password).status == 2
    assert program.run("user", "password", "carl", **password).status == 42
    program.expect("user", "password", "ben", **password)
    entries = program.expect("audit", "list", "-o", "json").document()["entries"]
    assert [entry["action"] for entry in entries] == ["user password", "user add", "user add"]
    assert "viewer:tag=prod" in program.expect("user", "list").out
