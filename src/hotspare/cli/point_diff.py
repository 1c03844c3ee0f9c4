"""``hotspare point diff``: what changed between two restore points."""

from typing import Any

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.files_options import AS_KNOWN, Reading
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.session import Session
from hotspare.documents.file import entry_fields, plain
from hotspare.guest.files.by_path import FilesByPath
from hotspare.repository.select import find_point
from hotspare.restore.point_diff import Change, DiskDiff, TreeDiff, compare_disks
from hotspare.units import format_bytes

_SIGNS = {"added": "+", "removed": "-", "changed": "M"}


def diff(
    before: str,
    after: str,
    path: str | None = None,
    /,
    *,
    content: Switch = False,
    disks: Switch = False,
    reading: Reading = AS_KNOWN,
    options: Options = DEFAULTS,
) -> None:
    """Show what changed between two restore points: files added, removed and changed, and bytes of disks.

    A file of the same size and time counts as the same; if its inode is another, its content decides.

    Args:
        before: Id of the earlier restore point, or the beginning of one.
        after: Id of the later one; or a machine's name, for its newest.
        path: Compare only this folder or file.
        content: Compare the content of all files of the same size, which reads them.
        disks: Compare only disks, which needs no file system and is done at once.
        reading: See below.
        options: See below.
    """
    with Session(options) as session, cancelled_by_signals() as cancellation:
        repository = session.repository(cached=True)
        old, new = find_point(repository, before), find_point(repository, after)
        told = _Told(session)
        for one in compare_disks(repository, old, new):
            told.disk(one)
        if not disks:
            opener = reading.opener(session, repository)
            with opener(old) as files_before, opener(new) as files_after:
                comparison = TreeDiff(files_before, files_after, cancellation, content)
                for root in [path] if path is not None else _roots(files_before, files_after):
                    for change in comparison.changes(root):
                        told.change(change)
                told.problems = [*comparison.damage, *files_before.all_remarks, *files_after.all_remarks]
        told.end(old.id, new.id)


def _roots(before: FilesByPath, after: FilesByPath) -> list[str]:
    return list(dict.fromkeys((*before.roots(), *after.roots())))


class _Told:
    """Says each change at once, or keeps them for one document."""

    def __init__(self, session: Session) -> None:
        self.problems: list[str] = []
        self._as_json = session.as_json
        self._disks: list[dict[str, Any]] = []
        self._changes: list[dict[str, Any]] = []
        self._counts = dict.fromkeys(_SIGNS, 0)
        self._bytes = dict.fromkeys(_SIGNS, 0)

    def disk(self, one: DiskDiff) -> None:
        """Tell of one disk."""
        self._disks.append(
            {
                "disk": one.name,
                "size_before": one.size_before,
                "size_after": one.size_after,
                "bytes_changed": one.bytes_changed,
                "bytes_cleared": one.bytes_cleared,
            }
        )
        if not self._as_json:
            cleared = f", of them {format_bytes(one.bytes_cleared)} to zeroes" if one.bytes_cleared else ""
            output.print_text(f"Disk {one.name}: {format_bytes(one.bytes_changed)} changed{cleared}")

    def change(self, change: Change) -> None:
        """Tell of one file."""
        self._counts[change.change] += 1
        self._bytes[change.change] += change.bytes
        if self._as_json:
            before = entry_fields(change.before) if change.before else None
            after = entry_fields(change.after) if change.after else None
            self._changes.append(
                {
                    "change": change.change,
                    "path": plain(change.path),
                    "what": list(change.what),
                    "before": before,
                    "after": after,
                }
            )
            return
        what = f"  ({', '.join(change.what)})" if change.what else ""
        output.print_text(f"{_SIGNS[change.change]} {plain(change.path)}{what}")

    def end(self, before: str, after: str) -> None:
        """Tell the sums."""
        for sentence in dict.fromkeys(self.problems):
            output.warn(sentence)
        if self._as_json:
            summary = {kind: {"files": self._counts[kind], "bytes": self._bytes[kind]} for kind in _SIGNS}
            output.print_document(
                output.document(
                    "point-diff",
                    before=before,
                    after=after,
                    disks=self._disks,
                    summary=summary,
                    changes=self._changes,
                    problems=[plain(one) for one in dict.fromkeys(self.problems)],
                )
            )
            return
        sums = [f"{self._counts[kind]} {kind} ({format_bytes(self._bytes[kind])})" for kind in _SIGNS]
        output.print_text(f"Files: {', '.join(sums)}")
