"""``hotspare files``: look at the files inside restore points."""

import base64
import stat
import sys

from hotspare.cli import output
from hotspare.cli.files_options import (
    AS_KNOWN,
    INSIDE,
    Reading,
    shown_time,
)
from hotspare.cli.files_restore import restore
from hotspare.cli.files_search import find, versions
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.session import Session
from hotspare.documents.file import entry_fields, plain, volume_fields
from hotspare.errors import (
    MachineNotFound,
    NoSpace,
    PlatformUnavailable,
    PointNotFound,
    TargetExists,
)
from hotspare.guest.files.by_path import FilesByPath
from hotspare.guest.files.file_system import TYPES, FileEntry
from hotspare.guest.files.listing import Damage, listing
from hotspare.repository.select import find_point
from hotspare.restore.files.content import pieces
from hotspare.units import format_bytes

app = noun("files", "Look for files inside restore points, and get them back.")

app.command(
    find,
    help_epilogue=closing(
        [
            "hotspare files find '*.conf' --machine web",
            "hotspare files find 'nginx/*.conf' web --in /etc",
            "hotspare files find '*' --machine web --type f --larger 1GiB --newer 2d",
        ],
        PointNotFound,
        *INSIDE,
        *OPENING,
        interruptible=True,
    ),
)
app.command(
    versions,
    help_epilogue=closing(
        [
            "hotspare files versions /etc/hosts --machine web",
            "hotspare files versions /etc/hosts --machine web --hash",
        ],
        PointNotFound,
        *INSIDE,
        *OPENING,
        interruptible=True,
    ),
)
app.command(
    restore,
    help_epilogue=closing(
        [
            "hotspare files restore web /etc/nginx --to /tmp/web",
            "hotspare files restore 20261123-0215 /srv/www /etc --to /tmp/web --full-paths",
            "hotspare files restore web /srv/www --tar - | ssh other tar -x -C /srv",
            "hotspare files restore web /etc/hosts --into-guest --overwrite",
        ],
        PointNotFound,
        TargetExists,
        NoSpace,
        MachineNotFound,
        PlatformUnavailable,
        *INSIDE,
        *OPENING,
        interruptible=True,
    ),
)


@app.command(
    name="ls",
    help_epilogue=closing(
        [
            "hotspare files ls web",
            "hotspare files ls web /etc",
            "hotspare files ls 20261123-0215 vdb1:/ -o json",
        ],
        PointNotFound,
        *INSIDE,
        *OPENING,
    ),
)
def list_files(
    point: str, path: str | None = None, /, *, reading: Reading = AS_KNOWN, options: Options = DEFAULTS
) -> None:
    """List a folder in a restore point; without PATH, the volumes that it has.

    Args:
        point: Id of a restore point or the beginning of one; or a machine's name, for its newest.
        path: As the machine knows it (/etc, C:/Users), or in a volume (vda1:/etc).
        reading: See below.
        options: See below.
    """
    with Session(options) as session:
        repository = session.repository(cached=True)
        found = find_point(repository, point)
        with reading.opener(session, repository)(found) as files:
            if path is None:
                _print_volumes(session, found.id, files)
                return
            entry = files.entry(path)
            damage: Damage = []
            # As with ls, a link to a folder with a slash behind it is what it leads to.
            inside = entry.kind == "folder" or (entry.kind == "link" and path.endswith("/"))
            entries = (
                listing(files, path if entry.kind == "link" else entry.path, damage) if inside else [entry]
            )
            _print_entries(session, found.id, path, entries, damage)


@app.command(
    help_epilogue=closing(
        ["hotspare files cat web /etc/fstab", "hotspare files cat web vda1:/boot/grub/grub.cfg | less"],
        PointNotFound,
        *INSIDE,
        *OPENING,
    )
)
def cat(
    point: str,
    path: str,
    /,
    *,
    stream: str = "",
    reading: Reading = AS_KNOWN,
    options: Options = DEFAULTS,
) -> None:
    """Write the content of a file to standard output; with -o json, as base64.

    Args:
        point: Id of a restore point or the beginning of one; or a machine's name, for its newest.
        path: As the machine knows it (/etc/hosts, C:/Windows/win.ini), or in a volume (vda1:/etc/hosts).
        stream: Name of an alternate data stream of the file, instead of its content.
        reading: See below.
        options: See below.
    """
    with Session(options) as session:
        repository = session.repository(cached=True)
        found = find_point(repository, point)
        with reading.opener(session, repository)(found) as files:
            content = files.open(path, stream)
            try:
                if session.as_json:
                    data = b"".join(piece for _, piece in pieces(content, 0, content.size))
                    fields = {"path": path, "size": content.size, "base64": base64.b64encode(data).decode()}
                    output.print_document(output.document("file-content", point=found.id, **fields))
                    return
                for _, piece in pieces(content, 0, content.size):
                    sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            finally:
                content.close()


def _print_volumes(session: Session, point: str, files: FilesByPath) -> None:
    places = files.places()
    if session.as_json:
        fields = {"volumes": volume_fields(files), "remarks": list(files.all_remarks)}
        output.print_document(output.document("volumes", point=point, **fields))
        return
    rows = [
        (
            volume.name,
            format_bytes(volume.size),
            volume.content or "unknown",
            volume.label,
            " ".join(places.get(volume.name, ())),
        )
        for volume in files.volumes
    ]
    rows += [
        (one.name, format_bytes(one.size), f"unreadable: {one.reason}", "", "") for one in files.unreadable
    ]
    output.print_table(("VOLUME", "SIZE", "CONTENT", "LABEL", "MOUNTED AT"), rows, right=("SIZE",))
    for remark in files.all_remarks:
        output.note(f"Note: {remark}")


def _print_entries(session: Session, point: str, path: str, entries: list[FileEntry], damage: Damage) -> None:
    if session.as_json:
        fields = {"point": point, "path": plain(path), "entries": [entry_fields(entry) for entry in entries]}
        output.print_document(output.document("files", **fields, problems=damage))
    else:
        header = ("MODE", "OWNER", "SIZE", "MODIFIED", "NAME")
        output.print_table(header, [_cells(entry) for entry in entries], right=("SIZE",))
    for sentence in damage:
        output.warn(sentence)


def _cells(entry: FileEntry) -> tuple[str, ...]:
    mode = stat.filemode(TYPES[entry.kind] | (entry.mode or 0))
    name = plain(entry.name or entry.path)
    if entry.kind == "link":
        name = f"{name} -> {plain(entry.target)}"
    streams = "".join(f" +{plain(stream)}" for stream in entry.streams)
    return (
        mode if entry.mode is not None else mode[0],
        "" if entry.uid is None else f"{entry.uid}:{entry.gid}",
        format_bytes(entry.size) if entry.kind == "file" else "",
        shown_time(entry.modified),
        name + streams,
    )
