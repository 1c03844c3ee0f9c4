"""The options that say where a restored machine goes, and the plan that is shown of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from hotspare.cli import output
from hotspare.errors import UsageError
from hotspare.platforms.placement import Placement, TargetPlan
from hotspare.repository.point import RestorePoint
from hotspare.units import format_bytes

_GROUP = Group("A new machine", sort_key=-1)
_FLAG = Parameter(negative="", show_default=False)
_LIST = Parameter(negative="", consume_multiple=False)


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, kw_only=True)
class PlacementOptions:
    """Where a new machine goes, and what it keeps."""

    folder: Path | None = None
    """Where its disks go; else the platform's usual place."""
    pool: str | None = None
    """The libvirt storage pool that its disks go to."""
    place: Annotated[list[str] | None, _LIST] = None
    """Where one disk goes, as DISK=POOL or DISK=/FOLDER; may be given again."""
    map_network: Annotated[list[str] | None, _LIST] = None
    """A network in place of another, as OLD=NEW; may be given again."""
    map_bridge: Annotated[list[str] | None, _LIST] = None
    """A bridge in place of another, as OLD=NEW; may be given again."""
    map_machine: Annotated[list[str] | None, _LIST] = None
    """A type of virtual hardware in place of one that is not here, as pc-q35-9.2=q35; may be given again."""
    keep_uuid: Annotated[bool, _FLAG] = False
    """Keep the UUID; refused while another machine has it."""
    keep_macs: Annotated[bool, _FLAG] = False
    """Keep the MAC addresses; refused while another machine has one of them."""

    def placement(self) -> Placement:
        """Give what was chosen. Raises ``UsageError``."""
        return Placement(
            pool=self.pool or "",
            places=assignments("--place", "DISK=POOL or DISK=/FOLDER", self.place or []),
            networks=assignments("--map-network", "OLD=NEW", self.map_network or []),
            bridges=assignments("--map-bridge", "OLD=NEW", self.map_bridge or []),
            machine_types=assignments("--map-machine", "OLD=NEW", self.map_machine or []),
            keep_id=self.keep_uuid,
            keep_macs=self.keep_macs,
        )

    def words(self) -> list[str]:
        """Give the options that say the same on a command line."""
        one_each = {"--folder": self.folder, "--pool": self.pool}
        many = {
            "--place": self.place,
            "--map-network": self.map_network,
            "--map-bridge": self.map_bridge,
            "--map-machine": self.map_machine,
        }
        flags = {"--keep-uuid": self.keep_uuid, "--keep-macs": self.keep_macs}
        return [
            *(f"{name}={value}" for name, value in one_each.items() if value),
            *(f"{name}={value}" for name, values in many.items() for value in values or ()),
            *(name for name, wanted in flags.items() if wanted),
        ]


AS_USUAL = PlacementOptions()


def assignments(option: str, form: str, given: Sequence[str]) -> dict[str, str]:
    """Take ``NAME=VALUE`` apart. Raises ``UsageError`` for another form, and a name given twice."""
    found: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals and value):
            raise UsageError(
                f'{option} "{one}" is not of the form {form}',
                meaning="Nothing was restored",
                hint='See "hotspare restore --help"',
            )
        if name in found:
            raise UsageError(f'{option} names "{name}" a second time', meaning="Nothing was restored")
        found[name] = value
    return found


def print_plan(plan: TargetPlan, point: RestorePoint, *, in_place: bool) -> None:
    """Say what would be restored."""
    how = "over itself" if in_place else "as a new machine"
    output.print_text(f"Would restore {point.machine_name} of {output.local_time(point.finished_at)} {how}:")
    output.print_text(f"  Name: {plan.name}")
    output.print_text(f"  UUID: {plan.id or 'a new one'}")
    for card in plan.cards:
        output.print_text(f"  Network card: {card.mac or 'a new MAC address'}, {card.network}")
    rows = [
        (
            disk.name,
            format_bytes(disk.size),
            format_bytes(disk.data or 0),
            format_bytes(disk.free),
            disk.format,
            disk.pool or "-",
            disk.path,
        )
        for disk in plan.disks
    ]
    header = ("DISK", "SIZE", "DATA", "FREE", "FORMAT", "POOL", "PATH")
    output.print_table(header, rows, right=("SIZE", "DATA", "FREE"), indent="  ")
    for warning in plan.warnings:
        output.print_text(f"Warning: {warning}")
