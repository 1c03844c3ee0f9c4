"""Getting data out of restore points over HTTP: machines as actions, files and disks as they are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from hotspare.access.roles import Permission, Target
from hotspare.access.tokens import Caller
from hotspare.api.answers import answer
from hotspare.api.estate import Estate
from hotspare.api.guard import CallerHere, ServerHere
from hotspare.api.inside import PlanRequest, opening_of, refuse_foreign_path, refuse_target, restore_words
from hotspare.api.see import RepositoryKey, point_for
from hotspare.block.device import BlockReader
from hotspare.errors import PathNotFound, UsageError
from hotspare.mover.control import REPOSITORY_ON_HOST
from hotspare.units import MIB

_PIECE = 4 * MIB


class RestoreRequest(PlanRequest):
    """Where a machine is restored to."""

    start: bool = Field(default=False, description="Start it when it is through.")


@dataclass(frozen=True, slots=True)
class Content:
    """What is to be downloaded; it can be read while what gave it is open."""

    name: str
    """As the file is to be called."""
    size: int
    pieces: Iterator[bytes]


def begin_restore(
    point: str,
    body: RestoreRequest,
    request: Request,
    server: ServerHere,
    caller: CallerHere,
    repository: RepositoryKey = None,
) -> Response:
    """Have a restore point made into a new machine; what it would be, its plan says before."""
    opened, found = point_for(server.estate, caller, Permission.RESTORE, point, repository)
    uri = refuse_target(server.estate, caller, opened.backend.url, found, body.platform)
    request.state.detail = {"machine": found.machine_name, "name": body.name, "platform": uri}
    url = server.estate.url(repository)
    more = [f"--repository={url}", f"--platform={uri}", *(["--start"] if body.start else [])]
    action = server.actions.begin(
        "restore",
        ["restore"],
        restore_words(body, found, *more),
        caller.name,
        Target(repository=opened.backend.url, platform=uri),
        # It speaks of the repository that is set, and the command takes the one it is given for that.
        without=() if url == server.estate.settings.repository else (REPOSITORY_ON_HOST,),
    )
    return answer("action", http_status=202, action=action.fields())


@contextmanager
def opened_file(
    estate: Estate, caller: Caller, point: str, repository: str | None, path: str
) -> Iterator[Content]:
    """Open a file in a restore point.

    Raises:
        PointNotFound: there is no such point, or not for the caller.
        PathNotFound: there is no such file.
        UsageError: it is a folder or a device.
        FileSystemUnreadable: its file system cannot be read in process.
    """
    # Imported here: readers of file systems take long to import, and the server is to be there at once.
    from hotspare.restore.files.content import pieces  # noqa: PLC0415
    from hotspare.restore.files.opened import opened_files  # noqa: PLC0415

    refuse_foreign_path(path)
    opened, found = point_for(estate, caller, Permission.BROWSE, point, repository)
    with opened_files(opened, found, opening_of(estate)) as files:
        entry = files.entry(path)
        if entry.kind != "file":
            raise UsageError(f"{path} is a {entry.kind}", meaning="Nothing was read", hint="Choose a file")
        content = files.open(path)
        yield Content(entry.name, content.size, (piece for _, piece in pieces(content, 0, content.size)))


@contextmanager
def opened_disk(
    estate: Estate, caller: Caller, point: str, repository: str | None, name: str
) -> Iterator[Content]:
    """Open a disk of a restore point, raw.

    Raises:
        PointNotFound: there is no such point, or not for the caller.
        PathNotFound: it has no such disk.
    """
    from hotspare.restore.files.read_ahead import ReadAhead  # noqa: PLC0415 - as above

    opened, found = point_for(estate, caller, Permission.RESTORE, point, repository)
    disks = [disk for disk in found.disks if disk.name == name]
    if not disks:
        raise PathNotFound(f"{found.id} has no disk '{name}'", meaning="Nothing was read")
    reader = ReadAhead(opened.disk(disks[0]))
    try:
        yield Content(f"{found.machine_name}-{name}-{found.id}.raw", reader.size, _pieces_of(reader))
    finally:
        reader.close()


def _pieces_of(reader: BlockReader) -> Iterator[bytes]:
    for at in range(0, reader.size, _PIECE):
        piece = bytearray(min(_PIECE, reader.size - at))
        reader.read_into(at, memoryview(piece))
        yield bytes(piece)
