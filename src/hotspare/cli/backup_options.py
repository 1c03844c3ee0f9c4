"""The options of ``hotspare backup``: which machines, and how each of them is backed up.

An option is added here, as a field with its help below it; what the engine is to know of it goes into
``hotspare.backup.machine.BackupOptions`` and is handed over by ``Manner.for_engine``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from hotspare.backup.options import BackupOptions
from hotspare.backup.pacing import DEFAULT_FACTOR
from hotspare.backup.select import MachineChoice
from hotspare.cli.directed import known_as
from hotspare.cli.options import Repeatable, Switch
from hotspare.cli.quantities import parse_bytes
from hotspare.platforms.hooks.hook import parse_hook
from hotspare.platforms.platform import Consistency, DiskChoice

_WHICH = Group.create_ordered("Which machines")
_HOW = Group.create_ordered("How they are backed up")


@Parameter(name="*", group=_WHICH)
@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is backed up, beside the machines that are named."""

    platform: Annotated[str | None, Parameter(name="--platform")] = None
    """URI of the platform; else HOTSPARE_PLATFORM, else qemu:///system."""
    host: str | None = None
    """URI of a platform, all of whose machines are meant: the same as --all --platform URI."""
    every: Annotated[bool, Parameter(name="--all", negative="", show_default=False)] = False
    """All machines of the platform, as far as the next three let them in."""
    include: Repeatable = ()
    """Machines whose name fits this pattern (as 'web*'); may be given again."""
    exclude: Repeatable = ()
    """But none whose name fits this one; may be given again."""
    tag: Repeatable = ()
    """Machines with this tag (see "machine tag"); given again, those with one of the tags."""
    image: Path | None = None
    """A disk image that no machine uses (raw, qcow2, vmdk, vhd, vhdx, vdi), instead of machines."""
    name: str | None = None
    """What the image's machine is called in the repository."""

    @property
    def whole_host(self) -> bool:
        """Whether machines are chosen among all that the platform has."""
        return bool(self.host or self.every or self.include or self.exclude or self.tag)

    @property
    def choice(self) -> MachineChoice:
        """Which of them."""
        return MachineChoice(include=self.include, exclude=self.exclude, tags=self.tag)


@Parameter(name="*", group=_HOW)
@dataclass(frozen=True, kw_only=True)
class Manner:
    """How each machine is backed up."""

    full: Switch = False
    """Read every disk in full. What the repository has is still not stored again."""
    consistency: Literal["crash", "filesystem", "application"] | None = None
    """How clean the copy is: as after a power cut, with file systems frozen for an instant, or with the
    applications inside quiesced by hooks as well. Without it: application where there are hooks, else
    filesystem. What was reached is told, and kept in the restore point."""
    require_consistency: Switch = False
    """Fail where that level cannot be reached, instead of going on with less."""
    hook: Repeatable = ()
    """postgresql, mariadb, guest:NAME or host:NAME (in /etc/hotspare/hooks.d there), if need be with
    ,timeout=60s and ,on-failure=fail, warn or ignore; instead of those of "machine hook"."""
    disk: Repeatable = ()
    """Back up only disks whose name, serial or alias fits this pattern, even if excluded for good."""
    exclude_disk: Repeatable = ()
    """Leave such disks out of this run. A restored machine comes without them."""
    latency_factor: Annotated[float, Parameter(validator=Number(gt=1))] = DEFAULT_FACTOR
    """Read more slowly when the guest's disk I/O takes more than so many times its usual time."""
    no_latency_control: Switch = False
    """Read as fast as can be, whatever the guest feels of it."""
    read_limit: str | None = None
    """Read at most so much from each machine: 100MiB/s."""
    check_tracking: Annotated[float, Parameter(validator=Number(gte=0, lte=100), show_default=False)] = 0.0
    """Percentage of what the platform calls unchanged that is read and compared, chosen at random. What is
    found wrong is read in full at once, and the command fails."""
    no_skip_unused: Switch = False
    """Store also what no file system in the machine needs: free blocks, swap space, page files."""
    index_files: Switch = False
    """Keep an index of file names, sizes and times with the restore point, so that "files find" answers at
    once."""
    dry_run: Switch = False
    """Only say what would be backed up."""

    def for_engine(self) -> BackupOptions:
        """Give what the engine is to know of it."""
        return BackupOptions(
            full=self.full,
            consistency=Consistency(self.consistency) if self.consistency else None,
            require_consistency=self.require_consistency,
            hooks=[parse_hook(each) for each in self.hook] or None,
            disks=self.disks,
            latency_factor=None if self.no_latency_control else self.latency_factor,
            read_limit=parse_bytes(self.read_limit) if self.read_limit else None,
            check_tracking=self.check_tracking,
            skip_unused=not self.no_skip_unused,
            index_files=self.index_files,
            known_as=known_as(),
        )

    @property
    def disks(self) -> DiskChoice:
        """Which disks of each machine."""
        return DiskChoice(only=self.disk, exclude=self.exclude_disk)


ANY = Selection()
USUAL = Manner()
