"""Routes that look into restore points: their files, and what a restore would make of them."""

from typing import TYPE_CHECKING, Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from hotspare.access.roles import Permission, Target
from hotspare.access.tokens import Caller
from hotspare.api.answers import answer
from hotspare.api.estate import Estate, target_of_point
from hotspare.api.guard import CallerHere, ServerHere
from hotspare.api.see import RepositoryKey, point_for
from hotspare.documents.plan import plan_fields
from hotspare.errors import NotPermitted, UsageError
from hotspare.platforms.placement import Placement
from hotspare.platforms.platform import TargetRequest
from hotspare.repository.point import RestorePoint

if TYPE_CHECKING:
    from hotspare.restore.files.opened import Opening


_PLAIN = r"^[^\x00-\x1f]*$"
Mapped = dict[
    Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f=]*$")],
    Annotated[str, Field(min_length=1, max_length=255, pattern=_PLAIN)],
]
"""Names, by those that they replace."""


class Strict(BaseModel):
    """The body of a request; what is not known in it is refused, for it is most likely misspelt."""

    model_config = ConfigDict(extra="forbid")


class PlanRequest(Strict):
    """Where a machine would be restored to."""

    name: str = Field(min_length=1, max_length=255, pattern=_PLAIN, description="Name of the machine to be.")
    platform: str | None = Field(
        default=None, description="URI, also of another host that policies name; else the one that is set."
    )
    pool: str = Field(
        default="", max_length=255, pattern=_PLAIN, description="The platform's store for its disks."
    )
    networks: Mapped = Field(
        default={},
        max_length=100,
        description="Networks there, by the name in the point of those they replace.",
    )
    bridges: Mapped = Field(default={}, max_length=100, description="The same of bridges.")
    keep_id: bool = False
    keep_macs: bool = False


def list_files(
    point: str,
    server: ServerHere,
    caller: CallerHere,
    path: Annotated[
        str | None,
        Query(description="/etc, C:/Users or vda1:/etc; without it, volumes.", max_length=4096),
    ] = None,
    repository: RepositoryKey = None,
) -> Response:
    """List a folder in a restore point; without ``path``, its volumes."""
    # Imported here: readers of file systems take long to import, and the server is to be there at once.
    from hotspare.documents.file import entry_fields, plain, volume_fields  # noqa: PLC0415
    from hotspare.guest.files.listing import Damage, listing  # noqa: PLC0415
    from hotspare.restore.files.opened import opened_files  # noqa: PLC0415

    if path is not None:
        refuse_foreign_path(path)
    opened, found = point_for(server.estate, caller, Permission.BROWSE, point, repository)
    with opened_files(opened, found, opening_of(server.estate)) as files:
        if path is None:
            remarks = list(files.all_remarks)
            return answer("volumes", point=found.id, volumes=volume_fields(files), remarks=remarks)
        entry = files.entry(path)
        damage: Damage = []
        entries = listing(files, entry.path, damage) if entry.kind == "folder" else [entry]
        fields = [entry_fields(one) for one in entries]
        return answer("files", point=found.id, path=plain(path), entries=fields, problems=damage)


def plan_restore(
    point: str, body: PlanRequest, server: ServerHere, caller: CallerHere, repository: RepositoryKey = None
) -> Response:
    """Say what a restore as a new machine would make, without making anything."""
    from hotspare.restore.machine import machine_of, plan_with_data, refuse_no_space  # noqa: PLC0415 - as above

    estate = server.estate
    opened, found = point_for(estate, caller, Permission.RESTORE, point, repository)
    uri = refuse_target(estate, caller, opened.backend.url, found, body.platform)
    url, words = estate.url(repository), restore_words(body, found)
    there = estate.on_other_host(uri, lambda host: host.plan_restore(url, words))
    if there is not None:
        return answer("restore-plan", point=found.id, in_place=False, plan=there)
    placement = Placement(
        pool=body.pool,
        networks=body.networks,
        bridges=body.bridges,
        keep_id=body.keep_id,
        keep_macs=body.keep_macs,
    )
    request = TargetRequest(name=body.name, folder=None, placement=placement)
    plan = estate.on_platform(uri, lambda platform: platform.plan_target(machine_of(found), request))
    plan = plan_with_data(opened, found, plan)
    refuse_no_space(plan)
    return answer("restore-plan", point=found.id, in_place=False, plan=plan_fields(plan))


def restore_words(body: PlanRequest, point: RestorePoint, *more: str) -> list[str]:
    """Say what is asked for in words of ``hotspare restore``; ``more`` are options of it."""
    words = [f"--to={body.name}"]
    if body.pool:
        words.append(f"--pool={body.pool}")
    words += [f"--map-network={old}={new}" for old, new in body.networks.items()]
    words += [f"--map-bridge={old}={new}" for old, new in body.bridges.items()]
    chosen = {"--keep-uuid": body.keep_id, "--keep-macs": body.keep_macs}
    return [*words, *(flag for flag, wanted in chosen.items() if wanted), *more, "--", point.id]


def refuse_target(estate: Estate, caller: Caller, url: str, point: RestorePoint, platform: str | None) -> str:
    """Give the URI of the platform that a point is restored to, if the caller may restore to it.

    Raises:
        UsageError: the server does not know it.
        NotPermitted: the caller may not.
    """
    uri = platform or estate.settings.platform
    if uri not in estate.platforms():
        raise UsageError(
            f"The server does not know the platform {uri}",
            meaning="Nothing was restored",
            hint=f"It knows {', '.join(estate.platforms())}",
        )
    if not _may_restore_to(caller, url, point, uri):
        raise NotPermitted(f"{caller.name} may not restore to {uri}", meaning="Nothing was restored")
    return uri


def restore_targets(estate: Estate, caller: Caller, url: str, point: RestorePoint) -> list[str]:
    """Give the URIs of the platforms that the caller may restore a point to: of this host and of others."""
    return [uri for uri in estate.platforms() if _may_restore_to(caller, url, point, uri)]


def _may_restore_to(caller: Caller, url: str, point: RestorePoint, uri: str) -> bool:
    tags = target_of_point(url, point).tags
    return caller.may(Permission.RESTORE, Target(repository=url, platform=uri, tags=tags))


def refuse_foreign_path(path: str) -> None:
    """Raise ``UsageError`` for what no path can be."""
    if "\0" in path or not path:
        raise UsageError("This is no path", meaning="Nothing was looked at")


def opening_of(estate: Estate) -> "Opening":
    """Say how files are read: in process only, for requests must not begin virtual machines by the dozen."""
    from hotspare.restore.files.opened import Opening  # noqa: PLC0415 - as above

    return Opening(estate.settings.state_folder / "appliance", "never")
