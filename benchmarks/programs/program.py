"""What the benchmark asks of a backup program."""

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Cost, run, stored_bytes

PASSPHRASE = "correct horse battery staple"
PEERS = Path(__file__).resolve().parents[2] / ".bench" / "bin"
"""Where ``scripts/install-bench-peers`` puts programs that the distribution does not have, or not as new."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of an S3 server on loopback, reached without TLS.

    Attributes:
        server: host and port.
        name: of the bucket.
        key: access key.
        secret: secret key.
    """

    server: str
    name: str
    key: str
    secret: str


class Program(ABC):
    """One program with a repository and a cache of its own below ``folder``.

    Attributes:
        label: for the tables.
        restores: the ways to get the image back, of which the quickest counts.
        speaks_s3: whether it can store to a bucket.
    """

    label: str
    restores: tuple[str, ...] = ("restore",)
    speaks_s3 = False

    def __init__(self, folder: Path, bucket: Bucket | None = None) -> None:
        self.folder = folder / self.label.replace(" ", "-")
        self.repository = self.folder / "repository"
        self.bucket = bucket
        self.log = self.folder / "log"

    def start_over(self) -> None:
        """Make an empty repository, with nothing left of an earlier one."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.initialise()

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def stored(self) -> int:
        """Give the bytes that the repository takes; it is no bucket."""
        return stored_bytes(self.repository)

    def run(self, *command: str | Path) -> Cost:
        """Run the program."""
        return run(command, self.environment(), self.log, self.folder)

    def output(self, *command: str | Path) -> str:
        """Run the program, outside of what is measured, and give what it prints."""
        environment = {**os.environ, **self.environment()}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

    @abstractmethod
    def version(self) -> str:
        """Give name and version."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Give the environment variables that it needs."""

    @abstractmethod
    def initialise(self) -> None:
        """Make the repository."""

    @abstractmethod
    def back_up(self, image: Path) -> Cost:
        """Back the image up once more."""

    @abstractmethod
    def restore(self, image: Path, target: Path, way: str) -> Cost:
        """Restore the newest backup of ``image`` to the file ``target``."""

    @abstractmethod
    def verify(self) -> Cost:
        """Read everything that is stored, and check it."""

    @abstractmethod
    def backups(self) -> list[str]:
        """Give the names of all backups, oldest first."""

    @abstractmethod
    def forget(self, backups: Sequence[str]) -> Cost:
        """Remove backups and give the space back that nothing else needs."""


def first_line(*command: str | Path, prefix: str = "") -> str:
    """Give the first line of what a program prints, behind ``prefix``."""
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return prefix + printed.splitlines()[0].removeprefix(prefix)
