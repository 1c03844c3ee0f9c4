"""The plan of a recovery of several machines: a TOML file that lists them in the order of their start.

[[machine]]
point = "db01"             # as for "recover"
to = "db01"                # its name here; else the one that it had
wait = "agent"             # what the next machine waits for: its agent, or only its "start"
timeout = "3m"             # so long at most
delay = "20s"              # and then this
stay = false               # keep running from the backup
pool = "fast"              # where it goes, as the options of "recover"
folder = "/srv/disks"
places = { vdb = "slow" }
networks = { lab = "default" }
bridges = { br0 = "br1" }
machine_types = { pc-q35-9.2 = "q35" }
keep_uuid = true
keep_macs = true
"""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from hotspare.errors import ConfigError, PermissionRefused
from hotspare.platforms.placement import Placement
from hotspare.platforms.platform import TargetRequest


class PlannedMachine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One machine of a plan."""

    point: str
    to: str | None = None
    wait: Literal["agent", "start"] = "agent"
    timeout: str = "3m"
    delay: str = "0"
    stay: bool = False
    pool: str = ""
    folder: str | None = None
    places: dict[str, str] = {}
    networks: dict[str, str] = {}
    bridges: dict[str, str] = {}
    machine_types: dict[str, str] = {}
    keep_uuid: bool = False
    keep_macs: bool = False

    def request(self, name: str) -> TargetRequest:
        """Give what is asked of the platform for a machine of that name."""
        placement = Placement(
            pool=self.pool,
            places=self.places,
            networks=self.networks,
            bridges=self.bridges,
            machine_types=self.machine_types,
            keep_id=self.keep_uuid,
            keep_macs=self.keep_macs,
        )
        return TargetRequest(
            name=name, folder=Path(self.folder) if self.folder else None, placement=placement
        )


class RecoveryPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All machines of a plan, in order."""

    machine: tuple[PlannedMachine, ...]


def read_plan(path: Path) -> RecoveryPlan:
    """Read a plan.

    Raises:
        ConfigError: there is none, or it is not of this form.
        PermissionRefused: it may not be read.
    """
    try:
        plan = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), RecoveryPlan)
    except PermissionError as error:
        raise PermissionRefused(f"The plan {path} may not be read", meaning="Nothing was done") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"The plan {path} cannot be used: {reason}",
            meaning="Nothing was done",
            hint="docs/instant-recovery.md shows one",
        ) from error
    if not plan.machine:
        raise ConfigError(f"The plan {path} lists no machine", meaning="Nothing was done")
    return plan
