"""Where a restored machine goes, what of its identity it keeps, and the plan that comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What the user chose of it. The mappings go from the name in the restore point to the one here."""

    pool: str = ""
    """The platform's store for all disks that ``places`` does not name; empty for its usual one."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Per disk: a pool, or a folder (with a slash in it)."""
    networks: Mapping[str, str] = field(default_factory=dict)
    bridges: Mapping[str, str] = field(default_factory=dict)
    machine_types: Mapping[str, str] = field(default_factory=dict)
    """Types of virtual hardware: ``pc-q35-9.2`` to ``q35``."""
    keep_id: bool = False
    """Keep the machine's identity on its platform (libvirt: the UUID)."""
    keep_macs: bool = False
    """Keep the hardware addresses of its network cards."""
    macs: Mapping[str, str] = field(default_factory=dict)
    """With ``keep_macs``: those that a card gets another one in place of; small letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDisk:
    """Where one disk would go."""

    name: str
    size: int
    """Bytes."""
    format: str
    path: str
    pool: str = ""
    """The platform's store that it would be known to; empty for a plain folder."""
    free: int
    """Bytes free there."""
    file_system: int
    """Equal for disks that share this free space."""
    data: int | None = None
    """Bytes that would at most be written; None until somebody has counted them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCard:
    """One network card."""

    mac: str
    """Empty where the platform chooses a new one."""
    network: str
    """What it is plugged into, in words: ``network default``, ``bridge br0``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPlan:
    """The machine that would be made."""

    name: str
    id: str
    """Empty where the platform chooses a new one."""
    disks: tuple[PlannedDisk, ...]
    cards: tuple[PlannedCard, ...] = ()
    warnings: tuple[str, ...] = ()
    """What would be different here, or not work."""
