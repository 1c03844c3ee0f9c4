"""restic: content-defined chunks, several threads."""

import json
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from benchmarks.measure import Cost
from benchmarks.programs.program import PASSPHRASE, PEERS, Program, first_line

_RESTIC = PEERS / "restic"


class Restic(Program):
    """restic with repository format 2."""

    label = "restic"
    restores = ("restore", "dump")
    speaks_s3 = True

    @override
    def version(self) -> str:
        return first_line(_RESTIC, "version")

    @override
    def environment(self) -> dict[str, str]:
        there = {"RESTIC_PASSWORD": PASSPHRASE, "RESTIC_CACHE_DIR": str(self.folder / "cache")}
        if self.bucket is None:
            return {**there, "RESTIC_REPOSITORY": str(self.repository)}
        return {
            **there,
            "RESTIC_REPOSITORY": f"s3:http://{self.bucket.server}/{self.bucket.name}/restic",
            "AWS_ACCESS_KEY_ID": self.bucket.key,
            "AWS_SECRET_ACCESS_KEY": self.bucket.secret,
        }

    @override
    def initialise(self) -> None:
        self.run(_RESTIC, "init", "--repository-version", "2")

    @override
    def back_up(self, image: Path) -> Cost:
        # --force: read everything, whatever its time stamp says.
        return self.run(_RESTIC, "backup", "--quiet", "--force", "--compression", "auto", image)

    @override
    def restore(self, image: Path, target: Path, way: str) -> Cost:
        if way == "dump":
            command = f'exec "{_RESTIC}" --quiet dump latest "{image}" > "{target}"'
            return self.run("sh", "-c", command)
        cost = self.run(_RESTIC, "--quiet", "restore", "latest", "--target", self.folder / "restored")
        (self.folder / "restored" / image.relative_to("/")).replace(target)
        return cost

    @override
    def verify(self) -> Cost:
        return self.run(_RESTIC, "check", "--read-data")

    @override
    def backups(self) -> list[str]:
        return [one["id"] for one in json.loads(self.output(_RESTIC, "snapshots", "--json"))]

    @override
    def forget(self, backups: Sequence[str]) -> Cost:
        return self.run(_RESTIC, "forget", "--prune", *backups)
