"""The real server on SQLite: what is due runs by itself, and survives what servers meet."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.units import MIB
from tests.cli.program import Program
from tests.cli.test_json_output import differences, examples, shape
from tests.jobs.daemon import Site, site, wait_for

SLOW_READS = "backup:\n  read_limit: 256KiB/s\n"
SLOW_WRITES = {"HOTSPARE_UPLOAD_LIMIT": "256KiB/s"}
DISK = random.Random(1).randbytes(16 * MIB)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "images").mkdir()
    with site(Program(tmp_path)) as served:
        yield served


def test_what_was_missed_runs_once_and_retention_follows(served: Site) -> None:
    served.image("web", b"a" * MIB)
    served.policy("nightly", "schedule:\n  when: ['00:00']\nretention:\n  last: 1\n")
    served.program.expect("backup", "web")
    long_ago = time.time() - 3.5 * 86400
    os.utime(served.folder / "policies" / "nightly.yaml", (long_ago, long_ago))
    server = served.start()
    server.wait_ready()
    done = served.job(machine="web", state="ok")
    assert (done["policy"], done["attempt"]) == ("nightly", 1)
    wait_for(lambda: [one["id"] for one in served.points()] == [done["point"]], served.describe)
    assert served.outcomes() == ["ok", "missed", "ok"]
    assert server.stop() == 0


def test_cancelled_asked_for_again_killed_and_finished_after_a_restart(served: Site) -> None:
    served.image("web", DISK)
    served.policy("nightly", SLOW_READS)
    server = served.start(apart=False, **SLOW_WRITES)
    server.wait_ready()
    first = served.ask("nightly", "web")
    served.job(id=first, state="running", phase="transfer")
    served.policy("nightly", "")
    served.program.expect("job", "cancel", first)
    wait_for(lambda: "cancelled" in served.outcomes(), served.describe)
    assert served.job(id=first)["state"] == "cancelled"
    for command in (["list"], ["show", first]):
        printed = served.program.expect("job", *command, "-o", "json").document()
        assert differences(shape(examples()[printed["type"]]), shape(printed), printed["type"]) == []
    again = served.program.run("job", "cancel", first)
    assert again.status == 1
    assert "has ended" in again.err

    second = served.program.expect("job", "retry", first, "-o", "json").document()["id"]
    # All is read, and waits to be sent. Earlier, the history may not have it yet, and never learn of it.
    served.job(id=second, state="running", attempt=1, phase="commit")
    server.signal(signal.SIGKILL)
    server.process.wait()
    assert served.points() == []

    served.start().wait_ready()
    done = served.job(id=second, state="ok")
    assert done["attempt"] == 2
    assert [one["id"] for one in served.points()] == [done["point"]]
    wait_for(lambda: served.outcomes() == ["interrupted", "cancelled", "lost", "ok"], served.describe)


def test_without_a_credential_it_does_not_start(served: Site) -> None:
    done = served.program.run("server", HOTSPARE_PASSPHRASE=None)
    assert done.status == 2
    assert "cannot ask for a passphrase" in done.err


def test_without_a_server_there_are_no_jobs(served: Site) -> None:
    done = served.program.run("job", "list")
    assert done.status == 1
    assert "hotspare server" in done.err


def test_a_password_in_the_url_is_refused(served: Site) -> None:
    done = served.program.run("job", "list", HOTSPARE_JOB_DATABASE="postgresql://a:secret@db/x")
    assert done.status == 2
    assert "secret" not in done.err
