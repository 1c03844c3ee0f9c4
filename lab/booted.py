"""A host that systemd boots: this one's files under an overlay, in a container of systemd-nspawn.

Nothing that happens in it reaches this host's files, network or services. It has systemd, journal and libvirt
of its own; what is enabled on this host is not started there.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import hotspare
from lab.errors import LabError

_PACKAGING = Path(__file__).resolve().parent.parent / "packaging"
_PATIENCE = 100.0
_EMPTY = ("/etc/hotspare", "/etc/libvirt/qemu", "/srv", "/var/lib/hotspare", "/var/lib/libvirt")
"""Folders with nothing of this host's in them: above all, no machine that starts by itself."""
_LAUNCHER = """\
#!/bin/sh
export LD_LIBRARY_PATH=/opt/hotspare/python/lib PYTHONPATH=/opt/hotspare/source:/opt/hotspare/packages
exec /opt/hotspare/python/bin/{python} \
-c 'import sys; from hotspare.cli.main import main; sys.exit(main())' "$@"
"""
"""A program where a package would have it: units do not see the folders of users, where ours may be."""


@dataclass
class Booted:
    """A host that is up."""

    leader: int
    """Process id, on this host, of its systemd."""

    def run(self, command: str, *, check: bool = True) -> str:
        """Run a shell command there as root; gives what it printed.

        Raises:
            LabError: it failed, and ``check`` says that it must not.
        """
        inside = ["nsenter", f"--target={self.leader}", "-m", "-u", "-i", "-n", "-p", "-C", "--wdns=/"]
        words = [*inside, "sh", "-c", command]
        try:
            done = subprocess.run(
                words, check=False, capture_output=True, text=True, timeout=_PATIENCE, env=_environment()
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{command!r} did not end: {error.stdout!r}{error.stderr!r}") from error
        if check and done.returncode:
            raise LabError(f"{command!r} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def wait(self, command: str) -> None:
        """Return once a command succeeds. Raises ``LabError``."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.run(command)
            except LabError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
            else:
                return

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file there."""
        arguments = f"install -D -m {mode:o} /dev/stdin {shlex.quote(path)}"
        self.run(f"{arguments} <<'THE END'\n{text}\nTHE END")


@contextmanager
def booted_host(scratch: Path) -> Iterator[Booted]:
    """Boot one with our units in place and none of them started; it is gone at the end.

    Raises:
        LabError: it does not come up; says what its systemd printed.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="booted-", dir=scratch)))
        root = stack.enter_context(_overlay(folder))
        group = stack.enter_context(_control_group(f"hotspare-lab-{folder.name}"))
        log = folder / "console"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh", *_command(root)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # Also where this host's own systemd, if any, still uses the first version of control groups.
                env=_environment() | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        stack.callback(_end, process, group)
        leader = _wait_for(lambda: _leader_of(process.pid), process, log)
        host = Booted(leader)
        up = "systemctl is-active --quiet basic.target && echo up"
        _wait_for(lambda: len(host.run(up, check=False)), process, log)
        yield host


def _command(root: Path) -> list[str]:
    python = Path(os.path.realpath(sys.executable))
    launcher = root.parent / "hotspare"
    launcher.write_text(_LAUNCHER.format(python=python.name))
    launcher.chmod(0o755)
    bound = {
        Path(sys.base_prefix): "/opt/hotspare/python",
        Path(sysconfig.get_path("purelib")): "/opt/hotspare/packages",
        Path(hotspare.__file__).parent.parent: "/opt/hotspare/source",
        launcher: "/usr/bin/hotspare",
        **{unit: f"/etc/systemd/system/{unit.name}" for unit in _PACKAGING.glob("hotspare*.*")},
    }
    return [
        "systemd-nspawn",
        "--quiet",
        f"--directory={root}",
        f"--machine=hotspare-{os.getpid()}",
        "--private-network",
        "--register=no",
        "--keep-unit",
        "--link-journal=no",
        "--console=pipe",
        *(f"--bind-ro={source}:{place}" for source, place in bound.items()),
        *(f"--tmpfs={place}:mode=755" for place in _EMPTY),
        "--boot",
        "systemd.unit=basic.target",
        "systemd.log_color=no",
    ]


@contextmanager
def _overlay(folder: Path) -> Iterator[Path]:
    """Show this host's files at a place where whatever is changed stays in memory, and is forgotten."""
    memory, root = folder / "memory", folder / "root"
    for path in (memory, root):
        path.mkdir()
    with _mounted(memory, "-t", "tmpfs", "-o", "size=1g,mode=755", "tmpfs"):
        for name in ("upper", "work"):
            (memory / name).mkdir()
        options = f"lowerdir=/,upperdir={memory}/upper,workdir={memory}/work"
        with _mounted(root, "-t", "overlay", "-o", options, "overlay"):
            yield root


@contextmanager
def _mounted(place: Path, *words: str) -> Iterator[None]:
    done = subprocess.run(["mount", *words, place], check=False, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"Nothing can be mounted at {place}: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


def _wait_for(look: Callable[[], int], process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + _PATIENCE
    while not (found := look()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"systemd does not come up: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)
    return found


def _leader_of(process: int) -> int:
    """Give the systemd that systemd-nspawn has begun, after helpers that soon end; 0 for none yet."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        names = {int(child): Path(f"/proc/{child}/comm").read_text().strip() for child in children}
    except FileNotFoundError:
        return 0
    return next((child for child, name in names.items() if name == "systemd"), 0)


def _end(process: subprocess.Popen[bytes], group: Path) -> None:
    (group / "cgroup.kill").write_text("1")
    process.wait(_PATIENCE)


@contextmanager
def _control_group(name: str) -> Iterator[Path]:
    """Make a control group below this process's own, for the host alone; nothing in it outlives the block."""
    mounts = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    mounted = next((Path(words[4]) for words in mounts if words[words.index("-") + 1] == "cgroup2"), None)
    if mounted is None:
        raise LabError("There are no control groups of the second version")
    own = Path("/proc/self/cgroup").read_text().splitlines()[-1].removeprefix("0::/")
    group = mounted / own / name
    group.mkdir()
    try:
        yield group
    finally:
        deadline = time.monotonic() + _PATIENCE
        while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()


def _environment() -> dict[str, str]:
    """Give what a login there has, and nothing of the test's."""
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
