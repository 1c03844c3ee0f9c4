"""Backups of running machines get the processors that guests leave."""

import os
import subprocess
import sys
import threading
from pathlib import Path

from hotspare.backup.priority import NICE, Session, below_the_guests

_AUTOGROUP = Path("/proc/self/autogroup")
_TELLS = f"""
import os
from pathlib import Path
from hotspare.backup.priority import below_the_guests

def tell():
    session = Path("{_AUTOGROUP}").read_text().split()[-1] if Path("{_AUTOGROUP}").exists() else "-"
    print(os.getpriority(os.PRIO_PROCESS, 0), session)

tell()
with below_the_guests(), below_the_guests():
    tell()
tell()
"""


def _nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_thread_and_those_it_starts_are_lowered_for_the_time() -> None:
    found = []
    with below_the_guests():
        found.append(_nice())
        thread = threading.Thread(target=lambda: found.append(_nice()))
        thread.start()
        thread.join()
    assert found == [NICE, NICE]
    assert _nice() < NICE


def test_a_session_of_its_own_is_lowered_for_the_time() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TELLS], start_new_session=True, capture_output=True, text=True, check=True
    )
    before, during = ("0", str(NICE)) if _AUTOGROUP.exists() else ("-", "-")
    assert done.stdout.splitlines() == [f"0 {before}", f"{NICE} {during}", f"0 {before}"]


def _session(path: Path, nice: int, *, ours: bool = True) -> tuple[Session, Path]:
    path.write_text(f"/autogroup-17 nice {nice}\n")
    return Session(path, ours=ours), path


def test_the_last_of_several_backups_raises_it_again(tmp_path: Path) -> None:
    session, told = _session(tmp_path / "autogroup", -3)
    session.lower()
    session.lower()
    assert told.read_text() == str(NICE)
    session.raise_again()
    assert told.read_text() == str(NICE)
    session.raise_again()
    assert told.read_text() == "-3"


def test_what_another_process_has_lowered_is_left_to_it(tmp_path: Path) -> None:
    session, told = _session(tmp_path / "autogroup", NICE)
    session.lower()
    session.raise_again()
    assert told.read_text() == f"/autogroup-17 nice {NICE}\n"


def test_a_session_of_others_stays_as_it_is(tmp_path: Path) -> None:
    session, told = _session(tmp_path / "autogroup", 0, ours=False)
    session.lower()
    session.raise_again()
    assert told.read_text() == "/autogroup-17 nice 0\n"


def test_a_kernel_that_does_not_group_by_session_is_no_error(tmp_path: Path) -> None:
    session = Session(tmp_path / "missing", ours=True)
    session.lower()
    session.raise_again()
    assert not (tmp_path / "missing").exists()
