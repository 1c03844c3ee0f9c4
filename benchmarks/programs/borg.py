"""borg: one thread; content-defined or fixed chunks."""

from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from benchmarks.measure import Cost
from benchmarks.programs.program import PASSPHRASE, PEERS, Program, first_line

_BORG = PEERS / "borg"


class Borg(Program):
    """borg with its usual content-defined chunks."""

    label = "borg"
    restores = ("extract", "extract --sparse")
    chunker: tuple[str, ...] = ()

    @override
    def version(self) -> str:
        return first_line(_BORG, "--version")

    @override
    def environment(self) -> dict[str, str]:
        return {
            "BORG_REPO": str(self.repository),
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": str(self.folder / "cache"),
        }

    @override
    def initialise(self) -> None:
        self.run(_BORG, "init", "--encryption", "repokey-blake2")

    @override
    def back_up(self, image: Path) -> Cost:
        # --files-cache disabled: read everything, whatever its time stamp says.
        options = ["--compression", "zstd,1", "--files-cache", "disabled", *self.chunker]
        return self.run(_BORG, "create", *options, "::{now:%s.%f}", image)

    @override
    def restore(self, image: Path, target: Path, way: str) -> Cost:
        newest = self.output(_BORG, "list", "--short", "--last", "1").strip()
        cost = self.run(_BORG, *way.split(), f"::{newest}")
        (self.folder / image.relative_to("/")).replace(target)
        return cost

    @override
    def verify(self) -> Cost:
        return self.run(_BORG, "check", "--verify-data")

    @override
    def backups(self) -> list[str]:
        return self.output(_BORG, "list", "--short").split()

    @override
    def forget(self, backups: Sequence[str]) -> Cost:
        return self.run(_BORG, "delete", "::", *backups) + self.run(_BORG, "compact")


class BorgFixed(Borg):
    """borg with fixed chunks of 256 KiB, which suit a disk better."""

    label = "borg fixed"
    chunker = ("--chunker-params", "fixed,262144")
