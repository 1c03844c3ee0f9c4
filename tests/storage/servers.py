"""Real servers for tests: SeaweedFS and rclone for S3, OpenSSH's for SFTP. All listen on loopback alone."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

KEY = "test-access-key"
SECRET = "test-secret-key"
BINARIES = Path(sys.executable).parent
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
SERVE = (str(BINARIES / "hotspare"), "repo", "serve")
SOURCES = Path(__file__).resolve().parents[2] / "src"


def free_ports(count: int) -> list[int]:
    """Give ports that nobody listens on, below the range from which outgoing connections take theirs."""
    ports: list[int] = []
    with ExitStack() as stack:
        candidates = iter(range(20_000 + os.getpid() % 2_000 * 5, 32_000))
        while len(ports) < count:
            port = next(candidates)
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    return ports


class Server:
    """A child process; what it says goes to a log in its folder."""

    def __init__(self, folder: Path, command: Sequence[str | Path]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, is_up: Callable[[], bool]) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while not is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"{self.command[0]} did not start:\n{self.log()[-4000:]}")
            time.sleep(0.05)

    def send(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def make_certificate(folder: Path) -> None:
    """Make ``ca.pem``, and ``certificate.pem`` with ``key.pem`` for 127.0.0.1 that it vouches for."""
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    authority = ["-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"]
    host = ["-subj", "/CN=host", "-keyout", "key.pem", "-out", "certificate.pem", "-CA", "ca.pem"]
    host += [
        "-CAkey",
        "ca.key",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=CA:FALSE",
    ]
    for names in (authority, host):
        subprocess.run([*new, *names], cwd=folder, check=True, capture_output=True)


class S3Server(Server):
    """A server that speaks S3, with a bucket ``plain`` and a bucket ``locked`` that has object lock."""

    port: int
    scheme = "http"

    @property
    def environment(self) -> Mapping[str, str]:
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def url(self, place: str) -> str:
        return f"s3:{self.scheme}://127.0.0.1:{self.port}/{place}"

    def up(self) -> None:
        self.start(self._answers)

    def _answers(self) -> bool:
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
        )
        try:
            there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
            if "plain" not in there:
                client.create_bucket(Bucket="plain")
            if "locked" not in there:
                client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
            client.put_object(Bucket="plain", Key="up", Body=b"up")
            client.delete_object(Bucket="plain", Key="up")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True


class Seaweed(S3Server):
    def __init__(self, folder: Path) -> None:
        names = ("master", "volume", "filer", "s3")
        *ports, self.https_port = free_ports(len(names) * 2 + 1)
        self.port = ports[6]
        credentials = {"accessKey": KEY, "secretKey": SECRET}
        identity = {"name": "test", "credentials": [credentials], "actions": ["Admin"]}
        folder.mkdir(parents=True)
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        self.ca_bundle = folder / "ca.pem"
        make_certificate(folder)
        addresses = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port.https={self.https_port}"]
        files = ["-dir=data", "-s3.config=s3.json", "-s3.cert.file=certificate.pem", "-s3.key.file=key.pem"]
        off = ["-master.telemetry=false", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        # Else a restarted master waits ten seconds for others that it might have.
        quick = ["-master.electionTimeout=200ms", "-master.heartbeatInterval=50ms"]
        quick.append("-volume.preStopSeconds=0")
        sizes = ["-master.volumeSizeLimitMB=256", "-volume.max=60"]
        options = ["-filer", "-s3", *addresses, *files, *off, *quick, *sizes]
        for number, name in enumerate(names):
            options += [f"-{name}.port={ports[2 * number]}", f"-{name}.port.grpc={ports[2 * number + 1]}"]
        super().__init__(folder, [BINARIES / "weed", "-logtostderr=true", "server", *options])


class Rclone(S3Server):
    """Answers 200 to conditional PUTs and object locks, and does neither."""

    def __init__(self, folder: Path) -> None:
        self.port = free_ports(1)[0]
        data = folder / "data"
        data.mkdir(parents=True)
        address = f"127.0.0.1:{self.port}"
        super().__init__(
            folder, [BINARIES / "rclone", "serve", "s3", "--addr", address, "--auth-key", f"{KEY},{SECRET}",
                     "--config", "/dev/null", "--vfs-cache-mode", "off", data],
        )  # fmt: skip


class Sshd(Server):
    """OpenSSH's server with keys of its own, and a home folder whose SSH configuration can log in there."""

    def __init__(self, folder: Path, *, denied: str = "") -> None:
        self.port = free_ports(1)[0]
        self.home = folder / "home"
        keys = self.home / ".ssh"
        keys.mkdir(parents=True, mode=0o700)
        for path in (keys / "id_ed25519", folder / "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        (keys / "authorized_keys").write_text((keys / "id_ed25519.pub").read_text())
        host_key = (folder / "host_key.pub").read_text()
        (keys / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}")
        (keys / "config").write_text(
            f"Host backup\n  Hostname 127.0.0.1\n  Port {self.port}\n"
            f"Host *\n  IdentityFile {keys}/id_ed25519\n  UserKnownHostsFile {keys}/known_hosts\n"
        )
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {keys}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
            f"Subsystem sftp {SFTP_SERVER}{' -P ' + denied if denied else ''}\n"
        )
        # The program as one that is installed there: sshd passes none of our environment on.
        self.program = folder / "hotspare"
        self.program.write_text(
            f'#!/bin/sh\nPYTHONPATH={SOURCES} exec {BINARIES / "hotspare"} "$@"\n', encoding="utf-8"
        )
        self.program.chmod(0o755)
        Path("/run/sshd").mkdir(exist_ok=True)
        super().__init__(folder, ["/usr/sbin/sshd", "-D", "-e", "-f", folder / "config"])

    def up(self) -> None:
        self.start(lambda: accepts(self.port))

    def kill_sessions(self) -> None:
        """End all connections, and not the server."""
        for pid in _descendants(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def drop_connections(self) -> None:
        """End all connections; what was run over them lives, and finds out."""
        for pid in _descendants(self.pid):
            with suppress(ProcessLookupError, FileNotFoundError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)

    def url(self, folder: Path) -> str:
        return f"sftp://root@127.0.0.1:{self.port}{folder}"

    def served_url(self, folder: Path) -> str:
        return f"ssh://root@127.0.0.1:{self.port}{folder}"

    def served_environment(self, forced: str | None = None) -> dict[str, str]:
        """Give what a client needs that logs in with a key of its own.

        ``forced`` is what that key may run, after the program's name; without it the key may do everything.
        """
        key = self.folder / f"key-{secrets.token_hex(4)}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        public = key.with_suffix(".pub").read_text()
        line = f'command="{self.program} {forced}",restrict {public}' if forced else public
        with (self.home / ".ssh/authorized_keys").open("a") as keys:
            keys.write(line)
        # ssh takes the home folder from the system's users, so the test's configuration is named.
        config = key.with_suffix(".config")
        config.write_text(
            f"IdentityFile {key}\nIdentitiesOnly yes\nUserKnownHostsFile {self.home}/.ssh/known_hosts\n"
        )
        return {
            "HOTSPARE_SSH_COMMAND": f"ssh -F {config}",
            "HOTSPARE_REMOTE_PROGRAM": str(self.program),
        }


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [each for child in map(int, children) for each in (*_descendants(child), child)]
