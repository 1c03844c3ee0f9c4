"""A session whose process is gone is given up at once, where that can be known."""

import subprocess
import sys
from pathlib import Path

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.repository.gc.collect import prune
from hotspare.repository.liveness import is_known_dead, own_life
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from tests.repository.conftest import PASSPHRASE, store
from tests.repository.gc.workers import ROOT

_BEGIN_AND_WAIT = """
import sys
from tests.repository.gc.process import PASSPHRASE, Repository, open_backend
with Repository.open(open_backend(sys.argv[1]), PASSPHRASE).writer():
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_a_backup_that_was_killed_on_this_host_is_not_waited_for(
    repository: Repository, backend: LocalBackend, tmp_path: Path
) -> None:
    repository.forget(store(repository, "web", b"x" * 100_000))
    command = [sys.executable, "-c", _BEGIN_AND_WAIT, str(tmp_path / "repository")]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.kill()
    # Thirty minutes are what it would take else; no test may last so long.
    report = prune(Repository.open(backend, PASSPHRASE), events.ignore, Cancellation())
    assert report.sessions_expelled == 1
    assert report.packs_deleted > 0


def test_only_what_is_surely_dead_counts_as_dead() -> None:
    life = own_life()
    boot, number, start, space = life.split("/")
    assert not is_known_dead(life)
    with subprocess.Popen(["true"]) as ended:
        pass
    assert is_known_dead(f"{boot}/{ended.pid}/{start}/{space}")
    assert is_known_dead(f"{boot}/{number}/{int(start) - 1}/{space}"), "the number was given again"
    assert not is_known_dead(f"another-boot/{ended.pid}/{start}/{space}")
    assert not is_known_dead(f"{boot}/{ended.pid}/{start}/pid:[1]")
    assert not is_known_dead("")
