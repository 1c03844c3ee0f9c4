"""When each pack was last verified: a text file in the state folder, one line for each time.

    2026-11-23T02:15:00+00:00 data/4f/4f0c...

Lines are only ever added, so a run that is cut short leaves what it did. A line that cannot be read is passed
over: its pack is verified once more.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from hotspare.errors import NoSpace, PermissionRefused

_NEVER = datetime.min.replace(tzinfo=UTC)


class VerifyLog:
    """A context manager; leaving it closes the file."""

    def __init__(self, folder: Path, repository_id: str) -> None:
        self._path = folder / f"verified-{repository_id}"
        self._times: dict[str, datetime] = {}
        self._lines = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._read()
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise PermissionRefused(
                f"What was verified cannot be noted in {self._path}: {error.strerror}",
                meaning="Nothing was verified",
                hint="Name another folder with HOTSPARE_STATE_FOLDER",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def verified_at(self, pack: str) -> datetime | None:
        """Give when the pack was last found whole, or None."""
        return self._times.get(pack)

    def by_need(self, packs: Iterable[str]) -> list[str]:
        """Give packs in the order they should be verified: never before, then longest ago."""
        return sorted(packs, key=lambda pack: (self._times.get(pack, _NEVER), pack))

    def note(self, pack: str, moment: datetime) -> None:
        """Note that a pack was found whole."""
        self._times[pack] = moment
        try:
            self._file.write(f"{moment.isoformat(timespec='seconds')} {pack}\n")
            self._file.flush()
        except OSError as error:
            raise NoSpace(f"{self._path} cannot be written: {error.strerror}") from error
        self._lines += 1

    def keep_only(self, packs: Iterable[str]) -> None:
        """Forget packs that are gone; rewrites the file when most of its lines are superfluous."""
        there = set(packs)
        self._times = {pack: moment for pack, moment in self._times.items() if pack in there}
        if self._lines <= 2 * len(self._times) + 1000:
            return
        self._file.close()
        fresh = self._path.with_suffix(".new")
        lines = (f"{moment.isoformat(timespec='seconds')} {pack}\n" for pack, moment in self._times.items())
        fresh.write_text("".join(lines), encoding="utf-8")
        fresh.replace(self._path)
        self._lines = len(self._times)
        self._file = self._path.open("a", encoding="utf-8")

    def _read(self) -> None:
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        for line in text.splitlines():
            self._lines += 1
            moment, _, pack = line.partition(" ")
            try:
                self._times[pack] = datetime.fromisoformat(moment).astimezone(UTC)
            except (ValueError, OverflowError):
                continue
        if text and not text.endswith("\n"):  # cut short within a line; the next one must not join it
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n")
