"""Restoring files into a machine that runs.

Contents are written under hidden names beside their places; scripts in the guest then give them owner,
mode, time and their names, many of them at once.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from hotspare.cancellation import Cancellation
from hotspare.errors import FileSystemUnreadable, PathNotFound, TargetExists, UsageError
from hotspare.guest.files.file_system import FileEntry, FileSystem
from hotspare.platforms.guest_files import GuestFiles
from hotspare.restore.files.content import stored_pieces
from hotspare.restore.files.outcome import Restored
from hotspare.restore.files.selection import Chosen, Selection

_BATCH_COUNT = 64
_BATCH_BYTES = 20_000
"""Of arguments: one request to the guest's agent must stay below 64 KiB."""
_EXISTING = 'for p; do if [ -e "$p" ] || [ -L "$p" ]; then printf "%s\\n" "$p"; fi; done'
_MAKE_PARENT = 'mkdir -p -- "$1"'
_STEPS = r"""
over=$1; shift; n=0
note() { [ "$3" = - ] || chown -h "$3:$4" "$1" || return 1
  [ "$2" = - ] || chmod "$2" "$1" || return 1
  touch -d "@$5.$6" "$1" 2>/dev/null || touch -d "@$5" "$1"; }
free() { if [ -d "$1" ] && [ ! -L "$1" ]; then echo "a folder is in its place"; return 1; fi
  if [ -e "$1" ] || [ -L "$1" ]; then
    [ "$over" = 1 ] || { echo "it is there already"; return 1; }
    [ ! -L "$1" ] || rm -f "$1"; fi; }
step() { case $1 in
  d) if [ -L "$2" ] || { [ -e "$2" ] && [ ! -d "$2" ]; }; then free "$2" && rm -f "$2" || return 1; fi
     [ -d "$2" ] || mkdir -m 700 "$2" ;;
  f) note "$3" "$4" "$5" "$6" "$7" "$8" && free "$2" && mv -f "$3" "$2" || { rm -f "$3"; return 1; } ;;
  m) note "$2" "$4" "$5" "$6" "$7" "$8" ;;
  l) free "$2" && rm -f "$2" && ln -s "$3" "$2" && { [ "$5" = - ] || chown -h "$5:$6" "$2"; } ;;
  h) free "$2" && rm -f "$2" && ln "$3" "$2" ;;
  p) free "$2" && rm -f "$2" && mkfifo "$2" && note "$2" "$4" "$5" "$6" "$7" "$8" ;;
  b|c) free "$2" && rm -f "$2" && mknod "$2" "$1" ${3%:*} ${3#*:} && note "$2" "$4" "$5" "$6" "$7" "$8" ;;
esac; }
while [ $# -ge 8 ]; do
  said=$(step "$@" 2>&1) || printf '%s %s\n' "$n" "$(printf %s "$said" | tail -n 1)"
  n=$((n + 1)); shift 8
done
"""
"""Steps of eight arguments each: what, place, its source, mode, uid, gid, seconds, nanoseconds. Tells
those that failed."""


@dataclass(frozen=True, slots=True)
class GuestOptions:
    """What the user may choose."""

    folder: str | None = None
    """In the guest; None puts everything back to where it was."""
    overwrite: bool = False


def restore_into_guest(
    selection: Selection,
    guest: GuestFiles,
    options: GuestOptions,
    report: Callable[[int], None],
    cancellation: Cancellation,
) -> Restored:
    """Write what was chosen into a running guest; give what became of it.

    Extended attributes and access control lists are not restored in this way, which is said.

    Raises:
        PathNotFound, UsageError: as ``Selection.roots``, or a place in the guest is not known.
        TargetExists: something is in the way, and is not to be overwritten; nothing was written.
        PlatformUnavailable: the guest does not answer any more.
        RepositoryDamaged, StorageError: the repository cannot be read.
        Interrupted: ``cancellation`` was requested. What was restored stays.
    """
    roots = selection.roots()
    if options.folder is None:
        _require_places(selection.files)
    places = [_place_of_root(root, options) for root in roots]
    _refuse_overwriting(guest, [place for place in places if place], options)
    writing = _Writing(selection.files, guest, options, report, cancellation)
    current = dict(zip((root.parts for root in roots), places, strict=True))
    if guest.has_shell and options.folder is not None:
        writing.make_parent(options.folder)
    for chosen in selection.walk(cancellation):
        root = next(root for root in roots if chosen.parts[: len(root.parts)] == root.parts)
        below = chosen.parts[len(root.parts) :]
        writing.add(chosen.entry, _join(current[root.parts], below))
    writing.finish()
    for sentence in selection.damage:
        writing.restored.fail(*sentence.split(": ", 1))
    return writing.restored


def _require_places(files: FileSystem) -> None:
    """Raise ``UsageError`` unless the machine's own table of mounts says where its volumes are."""
    try:
        files.entry("/etc/fstab")
    except (PathNotFound, FileSystemUnreadable) as error:
        raise UsageError(
            "It is not known where the files are in the guest: it has no /etc/fstab that can be read",
            meaning="Nothing was restored",
            hint="Name a folder of the guest with --to",
        ) from error


def _place_of_root(root: Chosen, options: GuestOptions) -> str:
    if options.folder is not None:
        return _join(options.folder.rstrip("/") or "/", root.parts)
    if not root.entry.path.startswith("/"):
        raise UsageError(
            f"It is not known where {root.entry.path} is in the guest",
            meaning="Nothing was restored",
            hint="Name a folder of the guest with --to",
        )
    return root.entry.path


def _join(place: str, below: Sequence[str]) -> str:
    return "/".join((place.rstrip("/"), *below)) if below else place


def _refuse_overwriting(guest: GuestFiles, places: Sequence[str], options: GuestOptions) -> None:
    if options.overwrite:
        return
    if guest.has_shell:
        there = guest.shell(_EXISTING, places).output.splitlines()
    else:
        there = [place for place in places if guest.exists(place)]
    if there:
        raise TargetExists(
            f"{there[0]} exists already in the guest",
            meaning="It was left alone and nothing was restored",
            hint="Restore to another folder of the guest with --to, or give --overwrite",
        )


@dataclass(slots=True)
class _Writing:
    files: FileSystem
    guest: GuestFiles
    options: GuestOptions
    report: Callable[[int], None]
    cancellation: Cancellation
    restored: Restored = field(default_factory=Restored)
    handled: int = 0
    _steps: list[tuple[FileEntry, list[str]]] = field(default_factory=list)
    _last: list[tuple[FileEntry, list[str]]] = field(default_factory=list)
    _made: dict[tuple[str, int], str] = field(default_factory=dict)
    _size: int = 0
    _warned: set[str] = field(default_factory=set)

    def make_parent(self, folder: str) -> None:
        """Make the folder that everything goes to. Raises ``TargetExists`` when that cannot be."""
        ended = self.guest.shell(_MAKE_PARENT, [folder])
        if ended.status:
            raise TargetExists(
                f"{folder} cannot be made in the guest: {ended.output.strip()}",
                meaning="Nothing was restored",
            )

    def add(self, entry: FileEntry, place: str) -> None:
        """Restore one thing; it has its name after some more, or ``finish``."""
        try:
            place.encode()
            self._warn_of_attributes(entry)
            if self.guest.has_shell:
                self._add(entry, place)
            else:
                self._add_plainly(entry, place)
        except UnicodeEncodeError:
            self.restored.fail(entry.path, "its name is no UTF-8, which the guest's agent cannot take")
        except (FileSystemUnreadable, PathNotFound) as error:
            self.restored.fail(entry.path, error.what)
        except OSError as error:
            self.restored.fail(entry.path, error.strerror or str(error))

    def finish(self) -> None:
        """Do what is left: folders get their times when nothing comes into them any more."""
        self._flush()
        for entry, step in reversed(self._last):
            self._put(entry, step)
        self._flush()

    def _add(self, entry: FileEntry, place: str) -> None:
        noted = _noted(entry)
        match entry.kind:
            case "folder":
                self._put(entry, ["d", place, "", *noted])
                self._last.append((entry, ["m", place, "", *noted]))
            case "link":
                self._put(entry, ["l", place, entry.target, *noted])
            case "file":
                self._add_file(entry, place, noted)
            case "fifo":
                self._put(entry, ["p", place, "", *noted])
            case "block-device" | "character-device" if entry.device:
                self._put(entry, [entry.kind[0], place, f"{entry.device[0]}:{entry.device[1]}", *noted])
            case _:
                self._warn(f"{entry.path} is a {entry.kind}, which is not restored into a guest")

    def _add_file(self, entry: FileEntry, place: str, noted: Sequence[str]) -> None:
        first = self._made.get((entry.volume, entry.inode)) if entry.links > 1 else None
        if first is not None:
            self._put(entry, ["h", place, first, *noted])
            return
        if any(step[0] == "d" for _, step in self._steps):
            self._flush()  # its folder has to be there
        hidden = f"{os.path.dirname(place)}/.hotspare-{secrets.token_hex(6)}"  # noqa: PTH120 - a guest's path
        try:
            self.guest.write(hidden, self._pieces(entry), entry.size)
        except FileSystemUnreadable:
            self.guest.shell('rm -f -- "$1"', [hidden])
            raise
        self._put(entry, ["f", place, hidden, *noted])
        if entry.links > 1:
            self._made[entry.volume, entry.inode] = place

    def _add_plainly(self, entry: FileEntry, place: str) -> None:
        if entry.kind == "folder":
            return
        if entry.kind != "file":
            self._warn(f"{entry.path} is a {entry.kind}, which the guest's agent cannot make here")
            return
        self._warn(
            "The guest's agent runs no programs here: folders are not made, owners, modes and times not kept"
        )
        self.guest.write(place, self._pieces(entry), entry.size)
        self.restored.entries += 1

    def _pieces(self, entry: FileEntry) -> Iterator[tuple[int, bytes]]:
        content = self.files.open(entry.path)
        try:
            for offset, piece in stored_pieces(content):
                self.cancellation.check()
                yield offset, piece
                self.restored.bytes += len(piece)
                self.handled += len(piece)
                self.report(self.handled)
        finally:
            content.close()

    def _put(self, entry: FileEntry, step: list[str]) -> None:
        size = sum(len(part.encode()) for part in step)
        if len(self._steps) >= _BATCH_COUNT or self._size + size > _BATCH_BYTES:
            self._flush()
        self._steps.append((entry, step))
        self._size += size

    def _flush(self) -> None:
        if not self._steps:
            return
        self.cancellation.check()
        steps, self._steps, self._size = self._steps, [], 0
        arguments = [part for _, step in steps for part in step]
        try:
            said = self.guest.shell(_STEPS, ["1" if self.options.overwrite else "0", *arguments]).output
        except OSError as error:
            for entry, _ in steps:
                self.restored.fail(entry.path, error.strerror or str(error))
            return
        failed: set[int] = set()
        for line in said.splitlines():
            number, _, why = line.partition(" ")
            if number.isdigit() and int(number) < len(steps):
                failed.add(int(number))
                self.restored.fail(steps[int(number)][0].path, why or "the guest refused it")
        done = sum(step[0] != "m" for number, (_, step) in enumerate(steps) if number not in failed)
        self.restored.entries += done

    def _warn_of_attributes(self, entry: FileEntry) -> None:
        if self.files.attributes(entry.path):
            self._warn("Extended attributes and ACLs are not restored into a guest; --tar has them")
        if entry.streams:
            self._warn("Alternate data streams are not restored into a guest")

    def _warn(self, sentence: str) -> None:
        if sentence not in self._warned:
            self._warned.add(sentence)
            self.restored.warnings.append(sentence)


def _noted(entry: FileEntry) -> list[str]:
    seconds, nanoseconds = divmod(entry.modified, 10**9)
    mode = "-" if entry.mode is None else f"{entry.mode & 0o7777:o}"
    uid, gid = ("-", "-") if entry.uid is None else (str(entry.uid), str(entry.gid))
    return [mode, uid, gid, str(seconds), f"{nanoseconds:09d}"]
