"""kopia: content-defined chunks, several threads."""

import json
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from benchmarks.measure import Cost
from benchmarks.programs.program import PASSPHRASE, PEERS, Program, first_line

_KOPIA = PEERS / "kopia"


class Kopia(Program):
    """kopia with zstd's quickest level."""

    label = "kopia"
    speaks_s3 = True

    @override
    def version(self) -> str:
        return first_line(_KOPIA, "--version", prefix="kopia ").partition(" build")[0]

    @override
    def environment(self) -> dict[str, str]:
        return {
            "KOPIA_PASSWORD": PASSPHRASE,
            "KOPIA_CONFIG_PATH": str(self.folder / "config"),
            "KOPIA_CACHE_DIRECTORY": str(self.folder / "cache"),
            "KOPIA_LOG_DIR": str(self.folder / "logs"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
            "KOPIA_PERSIST_CREDENTIALS_ON_CONNECT": "true",
            "AWS_ACCESS_KEY_ID": self.bucket.key if self.bucket else "",
            "AWS_SECRET_ACCESS_KEY": self.bucket.secret if self.bucket else "",
        }

    @override
    def initialise(self) -> None:
        self.run(_KOPIA, "repository", "create", *self._place())
        self.run(_KOPIA, "policy", "set", "--global", "--compression", "zstd-fastest")
        keep = [
            f"--keep-{each}=1000" for each in ("latest", "hourly", "daily", "weekly", "monthly", "annual")
        ]
        self.run(_KOPIA, "policy", "set", "--global", *keep)

    def _place(self) -> list[str | Path]:
        if self.bucket is None:
            return ["filesystem", "--path", self.repository]
        server = ["--endpoint", self.bucket.server, "--disable-tls", "--region", "us-east-1"]
        return ["s3", "--bucket", self.bucket.name, "--prefix", "kopia/", *server]

    @override
    def back_up(self, image: Path) -> Cost:
        # --force-hash: read everything, whatever its time stamp says.
        return self.run(_KOPIA, "snapshot", "create", "--no-progress", "--force-hash", "100", image)

    @override
    def restore(self, image: Path, target: Path, way: str) -> Cost:
        return self.run(_KOPIA, "restore", "--no-progress", self.backups()[-1], target)

    @override
    def verify(self) -> Cost:
        return self.run(_KOPIA, "snapshot", "verify", "--no-progress", "--verify-files-percent", "100")

    @override
    def backups(self) -> list[str]:
        found = json.loads(
            self.output(_KOPIA, "snapshot", "list", "--json", "--all", "--max-results", "1000")
        )
        return [one["id"] for one in sorted(found, key=lambda one: one["startTime"])]

    @override
    def forget(self, backups: Sequence[str]) -> Cost:
        deleted = self.run(_KOPIA, "snapshot", "delete", "--delete", *backups)
        # No margin of a day for others: no other program does anything here.
        return deleted + self.run(_KOPIA, "maintenance", "run", "--full", "--safety", "none")
