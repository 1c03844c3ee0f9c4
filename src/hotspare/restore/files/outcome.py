"""What became of a restore of files."""

from dataclasses import dataclass, field

from hotspare.errors import FileSystemUnreadable

_PROBLEMS_MAX = 1000


@dataclass(slots=True)
class Restored:
    """How much was restored, and what was not."""

    entries: int = 0
    """Files, folders, links, devices that are there now."""
    bytes: int = 0
    """Of content that was written."""
    skipped: int = 0
    """Of the entries: files that were there already, with the same size and time."""
    failed: int = 0
    problems: list[str] = field(default_factory=list)
    """What was not restored, a sentence for each, the first thousand of them."""
    warnings: list[str] = field(default_factory=list)
    """What could not be kept."""

    def fail(self, path: str, why: str) -> None:
        """Note down that something was not restored."""
        self.failed += 1
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(f"{path}: {why}")

    def refuse_failures(self) -> None:
        """Raise ``FileSystemUnreadable`` when something was not restored."""
        if self.failed:
            raise FileSystemUnreadable(
                f"{self.failed} of what was asked for could not be restored: {self.problems[0]}",
                meaning=f"{self.entries} other files and folders were restored",
                hint="The warnings above name them; an older restore point may have them whole",
            )
