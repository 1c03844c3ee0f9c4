"""Giving a malware scanner the files of a restore point, those that changed since the last clean one.

The scanner is any program that takes a folder. Files are restored into a private one, under numbers, so that
no name of a guest's choosing is ever a path of this host; what the scanner says of them is told by their
paths in the machine. What is said of a restore point never goes beyond what the scanner was given.
"""

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import FileSystemUnreadable, HotspareError, PathNotFound, PlatformUnavailable, UsageError
from hotspare.guest.files.by_path import FilesByPath
from hotspare.guest.files.file_system import FileEntry
from hotspare.guest.files.listing import Damage, walk_in_order
from hotspare.repository.point import RestorePoint
from hotspare.repository.tested import ScanFinding, ScanRecord, Verdict
from hotspare.restore.files.content import stored_pieces
from hotspare.restore.point_diff import TreeDiff
from hotspare.units import MIB

_BATCH_BYTES = 256 * MIB
_BATCH_FILES = 2000
_FINDINGS_MAX = 200
_REMARKS_MAX = 20
_SAID_MAX = 300
"""Characters that are kept of a line."""
_FINE = re.compile(r": (OK|Empty file|Symbolic link)$")
"""How clamscan ends the lines of files that it has nothing to say of."""
_NO_FILES = frozenset({"", "swap", "lvm"})
_LOCKED = frozenset({"luks", "bitlocker", "mdraid"})
_LOOK_SECONDS = 0.1

Open = Callable[[RestorePoint], AbstractContextManager[FilesByPath]]


@dataclass(frozen=True, slots=True)
class Scanner:
    """A program that looks at all files in a folder.

    Attributes:
        command: its words; the folder is put at the end, or in place of ``{}``.
        finds_by_status: it ends with 1 when it has found something; else whatever it prints is a finding.
    """

    command: tuple[str, ...]
    finds_by_status: bool = True

    @classmethod
    def of_command(cls, text: str) -> "Scanner":
        """Read a command as people write it. Raises ``UsageError``."""
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise UsageError(f"The command of the scanner cannot be read: {error}") from error
        if not words:
            raise UsageError("The command of the scanner is empty", meaning="Nothing was scanned")
        return cls(words)

    @classmethod
    def of_yara(cls, rules: Path) -> "Scanner":
        """Look for YARA rules. Raises ``UsageError`` when there is no such file."""
        if not rules.is_file():
            raise UsageError(f"There are no YARA rules at {rules}", meaning="Nothing was scanned")
        return cls(("yara", "--recursive", "--no-warnings", str(rules.absolute())), finds_by_status=False)

    @property
    def name(self) -> str:
        """The command, for people, and to know a scan of the same kind by."""
        return shlex.join(self.command)

    def words(self, folder: Path) -> list[str]:
        """Give the command line for a folder."""
        if "{}" in self.command:
            return [str(folder) if word == "{}" else word for word in self.command]
        return [*self.command, str(folder)]


def scan_point(
    open_files: Open,
    point: RestorePoint,
    since: RestorePoint | None,
    scanner: Scanner,
    folder: Path,
    listener: events.Listener,
    cancellation: Cancellation,
) -> ScanRecord:
    """Scan a restore point.

    Args:
        open_files: gives the files of a restore point.
        point: which.
        since: an older one of the same machine which the same scanner has found clean: what did not change
            since then is not looked at again.
        scanner: what looks.
        folder: of this host, for the files; all of it is removed again.
        listener: told of the progress.
        cancellation: looked at between files, and while the scanner runs.

    Raises:
        PlatformUnavailable: there is no such program.
        HotspareError: the scanner failed.
        Interrupted: ``cancellation`` was requested.
    """
    listener(events.PhaseStarted(point.machine_name, "scan"))
    with _private_folder(folder) as private, open_files(point) as files:
        scan = _Scan(scanner, private, files, cancellation)
        if since is None:
            scan.look_at(_all_files(files, scan.damage, cancellation))
        else:
            with open_files(since) as before:
                scan.look_at(_changed_files(before, files, scan.damage, cancellation))
        return scan.record(since)


def _all_files(files: FilesByPath, damage: Damage, cancellation: Cancellation) -> Iterator[FileEntry]:
    for root in _roots(files):
        for entry in walk_in_order(files, root, damage):
            cancellation.check()
            if entry.kind == "file":
                yield entry


def _changed_files(
    before: FilesByPath, after: FilesByPath, damage: Damage, cancellation: Cancellation
) -> Iterator[FileEntry]:
    # What could not be read of the older point shows up as added, and is looked at.
    comparison = TreeDiff(before, after, cancellation, damage=damage)
    for root in _roots(after):
        for change in comparison.changes(root):
            now = change.after
            touched = change.change == "added" or {"content", "size", "modified", "kind"} & set(change.what)
            if now is not None and now.kind == "file" and touched:
                yield now


def _roots(files: FilesByPath) -> list[str]:
    """Give the folders below which all files are; not of volumes that have none."""
    none = _NO_FILES | _LOCKED
    without = {f"{volume.name}:/" for volume in files.volumes if volume.content in none}
    return [root for root in files.roots() if root not in without]


@dataclass(slots=True)
class _Scan:
    scanner: Scanner
    folder: Path
    files: FilesByPath
    cancellation: Cancellation
    damage: Damage = field(default_factory=list)
    count: int = 0
    bytes: int = 0
    findings: list[ScanFinding] = field(default_factory=list)
    _paths: dict[str, str] = field(default_factory=dict)
    """By number: the file in the machine. Of one batch."""
    _batch_bytes: int = 0

    def look_at(self, entries: Iterator[FileEntry]) -> None:
        """Restore and scan files, batch by batch."""
        for entry in entries:
            for stream in ("", *entry.streams):
                self._restore(entry, stream)
                if self._batch_bytes >= _BATCH_BYTES or len(self._paths) >= _BATCH_FILES:
                    self._scan_batch()
        self._scan_batch()

    def _restore(self, entry: FileEntry, stream: str) -> None:
        shown = entry.path + (f":{stream}" if stream else "")
        # Some scanners go by the end of the name.
        ending = re.sub(r"[^A-Za-z0-9.]", "", entry.name)[-16:]
        number = f"{len(self._paths):06d}"
        path = self.folder / f"{number}-{ending}"
        try:
            content = self.files.open(entry.path, stream)
            try:
                with path.open("wb") as written:
                    for offset, piece in stored_pieces(content):
                        self.cancellation.check()
                        written.seek(offset)
                        written.write(piece)
                    written.truncate(content.size)
                self._batch_bytes += content.size
                self.bytes += content.size
            finally:
                content.close()
        except (FileSystemUnreadable, PathNotFound) as error:
            path.unlink(missing_ok=True)
            self.damage.append(f"{shown}: {error.what}")
            return
        self._paths[number] = shown
        self.count += 1

    def _scan_batch(self) -> None:
        if not self._paths:
            return
        output, status = self._run()
        found = self._parse(output)
        bad = status not in {0, 1} if self.scanner.finds_by_status else status != 0
        if bad:
            last = output.strip().splitlines()[-1:] or ["it said nothing"]
            raise HotspareError(
                f"The scanner {self.scanner.name} failed with status {status}: {self._told(last[0])}",
                meaning="Nothing is said about the restore point",
                hint="Try the command by hand on a folder of files",
            )
        if self.scanner.finds_by_status:
            found = (found or [ScanFinding(path="", said="it found something")]) if status else []
        self.findings += found
        for path in self.folder.iterdir():
            path.unlink()
        self._paths.clear()
        self._batch_bytes = 0

    def _run(self) -> tuple[str, int]:
        words = self.scanner.words(self.folder)
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
                )
            except OSError as error:
                raise PlatformUnavailable(
                    f"The scanner {words[0]} cannot be run: {error.strerror}",
                    meaning="Nothing was scanned",
                    hint="Install it, or name another with --scan",
                ) from error
            try:
                while process.poll() is None:
                    self.cancellation.check()
                    time.sleep(_LOOK_SECONDS)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            said.seek(0)
            return said.read(16 * MIB).decode(errors="replace"), process.returncode

    def _parse(self, output: str) -> list[ScanFinding]:
        """Find the lines that speak of a file of ours."""
        mention = re.compile(re.escape(str(self.folder)) + r"/(\d{6})-[A-Za-z0-9.]*")
        found = []
        for line in output.splitlines():
            match = mention.search(line)
            if match and not _FINE.search(line) and match[1] in self._paths:
                path = self._paths[match[1]]
                said = (line[: match.start()] + line[match.end() :]).strip(" :")
                found.append(ScanFinding(path=path, said=said[:_SAID_MAX]))
        return found

    def _told(self, line: str) -> str:
        return line.replace(str(self.folder), "FOLDER")[:_SAID_MAX]

    def record(self, since: RestorePoint | None) -> ScanRecord:
        """Give what came of it."""
        locked = [volume for volume in self.files.volumes if volume.content in _LOCKED]
        missed = [
            *dict.fromkeys(self.damage),
            *(f"{volume.name} holds {volume.content} and was not looked into" for volume in locked),
            *(f"{volume.name} cannot be read: {volume.reason}" for volume in self.files.unreadable),
        ]
        if not missed and not _roots(self.files):
            missed = ["no file system was found"]
        unknown = [f"{one.name} holds nothing that is known" for one in self.files.volumes if not one.content]
        verdict: Verdict = "suspicious" if self.findings else "not-scanned" if missed else "clean"
        return ScanRecord(
            at=datetime.now(UTC),
            verdict=verdict,
            scanner=self.scanner.name,
            since=since.id if since else None,
            files=self.count,
            bytes=self.bytes,
            not_scanned=len(missed),
            findings=tuple(self.findings[:_FINDINGS_MAX]),
            remarks=tuple([*missed, *unknown, *dict.fromkeys(self.files.all_remarks)][:_REMARKS_MAX]),
        )


@contextmanager
def _private_folder(parent: Path) -> Iterator[Path]:
    """Make a folder for this scan, after removing those of scans that were killed."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # a new folder is not locked at once
            for old in parent.iterdir():
                with _locked(old) as ours:
                    if ours:
                        shutil.rmtree(old, ignore_errors=True)
            made = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent)))
            stack.enter_context(_locked(made))
        finally:
            os.close(descriptor)
        yield made


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the lock on a folder for as long as the block runs; tell whether it was free."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def last_clean(
    points: Sequence[RestorePoint], known: Callable[[str], ScanRecord | None], scanner: Scanner
) -> RestorePoint | None:
    """Give the newest of these points (oldest first) that the same scanner has found clean."""
    for point in reversed(points):
        record = known(point.id)
        if record is not None and record.verdict == "clean" and record.scanner == scanner.name:
            return point
    return None
