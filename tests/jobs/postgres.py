"""A PostgreSQL of its own for tests: on a socket in a folder, as its own user, gone at the end."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_USER = "postgres"


class Postgres:
    """One cluster."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self._programs = programs

    @property
    def url(self) -> str:
        """Of its database, for anybody of this host who may enter the folder."""
        return f"postgresql://{_USER}@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start it; returns when it answers."""
        settings = f"-c listen_addresses= -k {self.folder} -c fsync=off -c max_connections=60"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-o", settings, "-l", str(self.folder / "log"))

    def stop(self) -> None:
        """Stop it as if its host went away: whoever is connected is not waited for."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", self._data)

    def make(self) -> None:
        """Make its files."""
        self._run("initdb", "--auth=trust", "--no-sync", "-D", self._data)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *words: str) -> None:
        user = pwd.getpwnam(_USER)
        command = [str(self._programs / program), *words]
        as_root = os.geteuid() == 0
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            user=user.pw_uid if as_root else None,
            group=user.pw_gid if as_root else None,
        )


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Give a cluster that runs while the block does."""
    versions = sorted(Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name))
    # Not in pytest's folder, which nobody but root may enter, and whose path is too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="hotspare-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, _USER)
    cluster = Postgres(folder, versions[-1] / "bin")
    try:
        cluster.make()
        cluster.start()
        yield cluster
    finally:
        with suppress(subprocess.CalledProcessError):
            cluster.stop()
        shutil.rmtree(folder)
