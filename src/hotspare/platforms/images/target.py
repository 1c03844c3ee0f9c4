"""A machine being restored as images in a folder."""

import shutil
from pathlib import Path

from hotspare.block.file import RawFile
from hotspare.block.nbd.client import NbdClient
from hotspare.block.new_images import NewImages, format_to_write, partial_bytes
from hotspare.errors import PermissionRefused, TargetExists, UsageError
from hotspare.platforms.images.inventory import describe_image, measure_image
from hotspare.platforms.placement import Placement, PlannedDisk, TargetPlan
from hotspare.platforms.platform import Machine, MachineDisk, StateFile, TargetRequest


def plan_images(folder: Path, machine: Machine, request: TargetRequest) -> TargetPlan:
    """Say which images would be made: ``NAME.raw`` or ``NAME.qcow2``, or ``NAME-DISK.…`` of several disks.

    Raises:
        TargetExists: one of the files is there.
        UsageError: the name cannot be a file's, or something is asked for that images do not have.
    """
    if not request.name or "/" in request.name or request.name.startswith("."):
        raise UsageError(f"{request.name!r} cannot be the name of an image", meaning="Nothing was done")
    if request.placement != Placement():
        raise UsageError(
            "Images in a folder have no pools, networks or identities",
            meaning="Nothing was done",
            hint="Leave these options out, or restore to a platform that runs machines",
        )
    alone = len(machine.disks) == 1
    disks = tuple(
        _planned(disk, folder / _file_name(request.name, disk, alone=alone)) for disk in machine.disks
    )
    taken = [one for disk in disks for one in folder.glob(f"{Path(disk.path).stem}.*")]
    if taken:
        raise TargetExists(
            f"{taken[0]} exists already",
            meaning="Nothing was written, and it was left alone",
            hint="Choose another name with --to",
        )
    return TargetPlan(name=request.name, id="", disks=disks)


class ImageTarget:
    """A ``Target``: the images of a plan.

    Raises:
        NoSpace, PermissionRefused: the files cannot be made.
    """

    def __init__(self, uri: str, folder: Path, plan: TargetPlan) -> None:
        self._uri = uri
        self._name = plan.name
        self._images = NewImages()
        self._paths = {disk.name: Path(disk.path) for disk in plan.disks}
        try:
            self._create(folder, plan)
        except BaseException:
            self.discard()
            raise

    def _create(self, folder: Path, plan: TargetPlan) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PermissionRefused(f"The folder {folder} cannot be made: {error.strerror}") from error
        for disk in plan.disks:
            self._images.create(self._paths[disk.name], disk.format, disk.size)

    def writer(self, disk: str) -> RawFile | NbdClient:
        """Open one of the new images."""
        return self._images.writer(self._paths[disk])

    def is_blank(self, disk: str) -> bool:
        """Whether nothing was written to it yet."""
        return self._images.is_blank(self._paths[disk])

    def add_state(self, state: StateFile) -> str | None:
        """Refuse: a folder of images holds disks only."""
        return f"{state.name} has no place in a folder of disk images"

    def finalize(self) -> Machine:
        """Close the images and describe what was made.

        Raises:
            SourceLost: an image was not written to the end.
            TargetExists: somebody made a file of that name meanwhile.
        """
        self._images.publish()
        self._images.keep()
        first = next(iter(self._paths.values()))
        described = describe_image(first, self._name, self._uri, str(first))
        disks = tuple(
            MachineDisk(name=name, size=image.size, format=image.format, source=image.source)
            for name, path in self._paths.items()
            for image in [measure_image(path)]
        )
        return Machine(
            id=described.id, name=self._name, platform=self._uri, state=described.state, disks=disks
        )

    def discard(self, *, keep_partial: bool = False) -> None:
        """Remove the files that were made, or keep them hidden."""
        self._images.discard(keep_partial=keep_partial)


def _planned(disk: MachineDisk, path: Path) -> PlannedDisk:
    parent = next(one for one in path.parents if one.exists())
    return PlannedDisk(
        name=disk.name,
        size=disk.size,
        format=format_to_write(disk.format),
        path=str(path),
        free=shutil.disk_usage(parent).free + partial_bytes(path),
        file_system=parent.stat().st_dev,
    )


def _file_name(name: str, disk: MachineDisk, *, alone: bool) -> str:
    suffix = format_to_write(disk.format)
    return f"{name}.{suffix}" if alone else f"{name}-{disk.name}.{suffix}"
