"""This program, from this source tree."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from benchmarks.measure import Cost
from benchmarks.programs.program import PASSPHRASE, Program, first_line

_HOTSPARE = Path(sys.executable).parent / "hotspare"


class Hotspare(Program):
    """This program, as a user runs it."""

    label = "hotspare"
    speaks_s3 = True

    @override
    def version(self) -> str:
        return first_line(_HOTSPARE, "--version", prefix="hotspare ")

    @override
    def environment(self) -> dict[str, str]:
        there = {"HOTSPARE_PASSPHRASE": PASSPHRASE, "HOTSPARE_STATE_FOLDER": str(self.folder / "state")}
        if self.bucket is None:
            return {**there, "HOTSPARE_REPOSITORY": str(self.repository)}
        return {
            **there,
            "HOTSPARE_REPOSITORY": f"s3:http://{self.bucket.server}/{self.bucket.name}/hotspare",
            "AWS_ACCESS_KEY_ID": self.bucket.key,
            "AWS_SECRET_ACCESS_KEY": self.bucket.secret,
        }

    @override
    def initialise(self) -> None:
        self.run(_HOTSPARE, "repo", "create")

    @override
    def back_up(self, image: Path) -> Cost:
        # --full: read everything, as the others do; what is known already is still not stored again.
        # --no-skip-unused: the others store free blocks too.
        cost = self.run(
            _HOTSPARE,
            *("backup", "--image", image, "--name", "bench", "--full", "--no-skip-unused", "-o", "json"),
        )
        point = json.loads(self.log.read_text())["results"][0]["point"]
        assert point["disks"], "the backup has no disk"
        return cost

    @override
    def restore(self, image: Path, target: Path, way: str) -> Cost:
        return self.run(_HOTSPARE, "restore", "bench", "--disk", f"disk0={target}")

    @override
    def verify(self) -> Cost:
        return self.run(_HOTSPARE, "verify")

    @override
    def backups(self) -> list[str]:
        points = json.loads(self.output(_HOTSPARE, "point", "list", "-o", "json"))["points"]
        return sorted(point["id"] for point in points)

    @override
    def forget(self, backups: Sequence[str]) -> Cost:
        forgotten = self.run(_HOTSPARE, "point", "forget", *backups, "--yes")
        return forgotten + self.run(_HOTSPARE, "repo", "prune")
