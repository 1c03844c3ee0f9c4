"""A host with a thousand machines that have been backed up for years, and the real server on it."""

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from hotspare.catalog.catalog import Catalog
from hotspare.cli.history import point_row
from hotspare.platforms.images.platform import ImagesPlatform
from hotspare.repository.keys.slot import Passphrase
from hotspare.repository.point import RestorePoint, point_name, seal_point
from hotspare.repository.repository import Repository
from hotspare.storage.registry import open_backend

HOTSPARE = Path(sys.executable).with_name("hotspare")
PASSWORD = "correct horse battery"
POLICIES = 20
IMAGE = 64 * 1024
"""Bytes of each machine's disk."""
_EVERY = timedelta(seconds=30)
_PATIENCE = 120.0


@dataclass
class Estate:
    """The folder of all that there is, and what the program finds it by."""

    folder: Path
    machines: int
    runs: int
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HOTSPARE_")}
        self.environment = {
            **kept,
            "HOTSPARE_REPOSITORY": str(self.folder / "repository"),
            "HOTSPARE_PASSPHRASE": PASSWORD,
            "HOTSPARE_PLATFORM": self.platform,
            "HOTSPARE_STATE_FOLDER": str(self.folder / "state"),
            "HOTSPARE_POLICY_FOLDER": str(self.folder / "policies"),
            "HOTSPARE_USER_PASSPHRASE": PASSWORD,
            "HOTSPARE_LISTEN": "127.0.0.1:0",
        }

    @property
    def platform(self) -> str:
        """URI of the machines' platform."""
        return f"images://{self.folder}/images"

    @property
    def repository(self) -> str:
        """URL of the repository."""
        return f"file://{self.folder}/repository"

    def run(self, *words: str) -> None:
        """Run a command of the program to its end."""
        command = [str(HOTSPARE), *words]
        subprocess.run(command, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def make(self) -> None:
        """Make machines with a restore point each, policies that are not due now, and a long history."""
        (self.folder / "images").mkdir()
        for number in range(self.machines):
            content = f"machine {number}\n".encode() * (IMAGE // 16)
            (self.folder / f"images/machine-{number:04}.raw").write_bytes(content[:IMAGE])
        (self.folder / "policies").mkdir()
        due = datetime.now(UTC) - timedelta(hours=12)
        for number in range(POLICIES):
            names = json.dumps([f"machine-*{tens}{number % 10}" for tens in range(number // 10, 10, 2)])
            text = f"select:\n  names: {names}\nschedule:\n  when: ['{due:%H:00}']\n  rpo: 26h\n"
            (self.folder / f"policies/policy-{number}.yaml").write_text(text)
        self.run("repo", "create")
        self.run("backup", "machine-0000", "--no-progress")
        self.run("user", "add", "anna", "--role", "admin")
        points = self._copy_point()
        fill(self.folder / "state", self.platform, self.repository, self.machines, self.runs)
        catalog = Catalog.open(self.folder / "state", print)
        catalog.replace_points(self.repository, [point_row(self.repository, point, None) for point in points])
        catalog.close()

    def _copy_point(self) -> list[RestorePoint]:
        """Give every machine a restore point: the one that was made, under another name."""
        backend = open_backend(self.repository)
        with closing(Repository.open(backend, Passphrase(PASSWORD))) as repository:
            (made,) = repository.points()
            found = [made]
            platform = ImagesPlatform(self.folder / "images")
            for number, machine in enumerate(platform.machines()[1:]):
                point = msgspec.structs.replace(
                    made,
                    id=f"{made.id[:-5]}{number:05}",
                    machine_id=machine.id,
                    machine_name=machine.name,
                )
                backend.put(point_name(repository.keyring, point), [seal_point(repository.keyring, point)])
                found.append(point)
        backend.close()
        return found


def fill(folder: Path, platform: str, repository: str, machines: int, runs: int) -> None:
    """Write the rows into the catalog that so many backups by policies would have left."""
    began = datetime.now(UTC) - runs * _EVERY
    catalog = Catalog.open(folder, print)
    connection = catalog._connection
    rows = (
        (
            "backup",
            f"machine-{number % machines:04}",
            platform,
            repository,
            "",
            (began + number * _EVERY).isoformat(timespec="microseconds"),
            (began + number * _EVERY + timedelta(seconds=20)).isoformat(timespec="microseconds"),
            "ok" if number % 50 else "failed",
            number * 1000,
            f"policy-{number % POLICIES}",
        )
        for number in range(runs)
    )
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO runs (kind, machine, platform, repository, process, started_at, finished_at, outcome,"
        " bytes_read, policy) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    connection.execute("COMMIT")
    catalog.close()


@dataclass
class Server:
    """A server that is ready."""

    process: subprocess.Popen[str]
    ready_seconds: float
    """From the start of its process to what it tells systemd."""
    ready_cpu: float
    said: dict[str, Any]
    certificate: Path

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, _, port = str(self.said["url"]).removeprefix("https://").rpartition(":")
        return host, int(port)

    @property
    def trust(self) -> ssl.SSLContext:
        """What its clients trust."""
        return ssl.create_default_context(cafile=str(self.certificate))

    @property
    def cpu(self) -> float:
        """Seconds of processor time that all of its threads took so far."""
        return cpu_of(self.process.pid)

    def memory(self) -> tuple[int, int]:
        """Give its resident bytes, and those of them that are its own."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = {line.split()[0]: int(line.split()[1]) * 1024 for line in status.splitlines() if "kB" in line}
        return found["VmRSS:"], found["RssAnon:"]

    def connect(self) -> http.client.HTTPSConnection:
        """Open a connection that is kept."""
        return http.client.HTTPSConnection(*self.address, context=self.trust, timeout=60)

    def login(self) -> str:
        """Give what shows that an admin is logged in."""
        with closing(self.connect()) as connection:
            body = json.dumps({"name": "anna", "password": PASSWORD})
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/api/v1/login", body, headers)
            return str(json.load(connection.getresponse())["token"])


def cpu_of(process: int) -> float:
    """Give the seconds of processor time that all threads of a process took that live."""
    spent = 0
    for task in Path(f"/proc/{process}/task").iterdir():
        spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


@contextmanager
def started(estate: Estate, *words: str, **variables: str) -> Iterator[Server]:
    """Start ``hotspare server``, and give it when it has told systemd that it is ready."""
    path = estate.folder / f"notify-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(path))
        told.settimeout(_PATIENCE)
        began = time.monotonic()
        process = subprocess.Popen(
            [str(HOTSPARE), "server", *words, "-o", "json"],
            env=estate.environment | variables | {"NOTIFY_SOCKET": str(path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            while told.recv(1000) != b"READY=1":
                pass
            ready, cpu = time.monotonic() - began, cpu_of(process.pid)
            assert process.stdout is not None
            said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
            certificate = estate.folder / "state/server/certificate.pem"
            yield Server(process, ready, cpu, said, certificate)
        finally:
            process.terminate()
            process.wait(_PATIENCE)
