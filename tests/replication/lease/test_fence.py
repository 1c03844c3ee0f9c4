"""The fence as a process: it stops a machine in time, whoever is dead by then, and hits nobody else."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from pathlib import Path

import pytest

from hotspare.errors import PlatformUnavailable
from hotspare.replication.lease.fence import Process, boottime
from hotspare.replication.lease.fencing import Fencing

_SECONDS = 60.0


class Machine:
    """A process that looks like a QEMU of a machine, and says how far it has counted."""

    def __init__(self, folder: Path, machine: str, *, counts: bool = True) -> None:
        self._count = folder / f"count-{uuid.uuid4().hex}"
        program = (
            "import sys, time, pathlib\n"
            "path = pathlib.Path(sys.argv[1])\n"
            "for number in range(10**9):\n"
            "    path.write_text(str(number)); time.sleep(0.005)\n"
        )
        words = [sys.executable, "-c", program, str(self._count), "-uuid", machine]
        self.process = subprocess.Popen(words)
        while counts and not self._count.exists():
            time.sleep(0.01)

    @property
    def stopped(self) -> bool:
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def name() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def machine(tmp_path: Path, name: str) -> Iterator[Machine]:
    machine = Machine(tmp_path, name)
    yield machine
    machine.close()


@pytest.fixture
def fencing(tmp_path: Path, name: str) -> Iterator[Fencing]:
    fencing = Fencing(tmp_path, "one", name)
    yield fencing
    fencing.quit()


def _wait(machine: Machine, *, stopped: bool) -> float:
    end = time.monotonic() + _SECONDS
    while machine.stopped is not stopped:
        assert time.monotonic() < end
        time.sleep(0.001)
    return boottime()


def test_it_stops_at_the_deadline_and_lets_go_on(machine: Machine, fencing: Fencing) -> None:
    fencing.ensure(inf)
    deadline = boottime() + 0.4
    assert not fencing.allow(deadline, machine.process.pid).stopped
    assert deadline <= _wait(machine, stopped=True) < deadline + 5
    assert fencing.ask().stopped == (machine.process.pid,)
    fencing.allow(inf, machine.process.pid)
    _wait(machine, stopped=False)


def test_it_does_so_when_its_agent_is_killed(tmp_path: Path, machine: Machine, name: str) -> None:
    agent = (
        "import sys, time, pathlib\n"
        "from hotspare.replication.lease.fencing import Fencing\n"
        "from hotspare.replication.lease.fence import boottime\n"
        "fencing = Fencing(pathlib.Path(sys.argv[1]), 'one', sys.argv[2])\n"
        "fencing.ensure(-1.0)\n"
        "fencing.allow(boottime() + 1.0, int(sys.argv[3]))\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    words = [sys.executable, "-c", agent, str(tmp_path), name, str(machine.process.pid)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGKILL)
    _wait(machine, stopped=True)
    fencing = Fencing(tmp_path, "one", name)
    state = fencing.ensure(inf)
    assert state.deadline < inf  # the next agent finds the one that is there
    fencing.quit()
    _wait(machine, stopped=False)


def test_a_machine_that_is_started_past_the_deadline_is_stopped(
    tmp_path: Path, fencing: Fencing, name: str
) -> None:
    fencing.ensure(-1.0)
    machine = Machine(tmp_path, name, counts=False)
    try:
        _wait(machine, stopped=True)
        fencing.kill()
        assert machine.process.wait(_SECONDS) == -signal.SIGKILL
    finally:
        machine.close()


def test_nobody_else_is_hit(tmp_path: Path, machine: Machine, fencing: Fencing) -> None:
    other = Machine(tmp_path, str(uuid.uuid4()))
    try:
        fencing.ensure(inf)
        fencing.allow(boottime() - 1, other.process.pid)  # the number is that of another machine by now
        _wait(machine, stopped=True)
        time.sleep(0.1)
        assert not other.stopped
    finally:
        other.close()


def test_a_number_that_is_used_again_is_not_hit(machine: Machine, name: str) -> None:
    held = Process.of_machine(machine.process.pid, name)
    assert held is not None
    machine.close()
    assert not held.send(signal.SIGSTOP)
    held.close()


def test_a_second_one_gives_way(tmp_path: Path, fencing: Fencing, name: str) -> None:
    fencing.ensure(1e9)
    words = [
        sys.executable,
        "-m",
        "hotspare.replication.lease.fence",
        str(tmp_path / "one.fence"),
        name,
        "-1",
    ]
    assert subprocess.run(words, check=False).returncode == 1
    assert fencing.ask().deadline == 1e9


def test_it_survives_the_signals_that_end_an_agent(tmp_path: Path, fencing: Fencing) -> None:
    fencing.ensure(inf)
    pids = [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and str(tmp_path / "one.fence").encode() in _cmdline(path)
    ]
    assert len(pids) == 1
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pids[0], number)
    assert fencing.ask().deadline == inf
    os.kill(pids[0], signal.SIGKILL)
    with suppress(PlatformUnavailable):
        while True:
            fencing.ask()
    fencing.ensure(inf)  # an agent that misses it starts another


def _cmdline(path: Path) -> bytes:
    try:
        return (path / "cmdline").read_bytes()
    except OSError:
        return b""


def test_it_holds_for_a_moment_and_says_whether_it_did_all_the_time(
    machine: Machine, fencing: Fencing
) -> None:
    fencing.ensure(inf)
    assert fencing.hold(machine.process.pid, 5.0)
    assert machine.stopped
    assert fencing.release(machine.process.pid)
    _wait(machine, stopped=False)
    # Nobody released it in time.
    assert fencing.hold(machine.process.pid, 0.1)
    _wait(machine, stopped=False)
    assert not fencing.release(machine.process.pid)


def test_a_hold_never_lets_a_machine_go_on_past_its_lease(machine: Machine, fencing: Fencing) -> None:
    pid = machine.process.pid
    fencing.ensure(inf)
    fencing.allow(boottime() + 1.5, pid)
    assert fencing.hold(pid, 2.0)
    while not fencing.ask().stopped:
        time.sleep(0.02)
    time.sleep(1.0)  # the hold is over, the lease too
    assert machine.stopped
    assert not fencing.release(pid)
    assert machine.stopped
    assert not fencing.hold(pid, 0.1)
    fencing.allow(inf, pid)
    _wait(machine, stopped=False)


def test_a_lease_that_is_renewed_while_a_machine_is_held_does_not_end_the_hold(
    machine: Machine, fencing: Fencing
) -> None:
    pid = machine.process.pid
    fencing.ensure(inf)
    fencing.allow(boottime() + 10, pid)
    assert fencing.hold(pid, 5.0)
    _wait(machine, stopped=True)
    fencing.allow(boottime() + 20, pid)
    time.sleep(0.05)
    assert machine.stopped
    assert fencing.release(pid)
    # But one that had run out, and is renewed then, does: that must be told.
    assert fencing.hold(pid, 5.0)
    fencing.allow(boottime() - 1, pid)
    while not fencing.ask().stopped:
        time.sleep(0.02)
    fencing.allow(boottime() + 20, pid)
    _wait(machine, stopped=False)
    assert not fencing.release(pid)


def test_the_next_fence_lets_go_what_a_dead_one_held(tmp_path: Path, machine: Machine, name: str) -> None:
    pid = machine.process.pid
    first = Fencing(tmp_path, "one", name)
    first.ensure(inf)
    assert first.hold(pid, 60.0)
    _kill_fence(tmp_path)
    first.close()
    second = Fencing(tmp_path, "one", name)
    second.ensure(inf)
    assert machine.stopped
    assert not second.release(pid)
    _wait(machine, stopped=False)
    second.quit()


def _kill_fence(folder: Path) -> None:
    marker = str(folder / "one.fence").encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if marker in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
                while Path(path.parent).exists():
                    time.sleep(0.01)
