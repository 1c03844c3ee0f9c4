"""A folder of cold disk images."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Self
from urllib.parse import quote

from hotspare.cancellation import Cancellation
from hotspare.errors import MachineNotFound, SourceLost, UsageError
from hotspare.platforms.choice import with_chosen_disks
from hotspare.platforms.images.inventory import describe_image, images_in, measure_image
from hotspare.platforms.images.snapshot import ImageSnapshot
from hotspare.platforms.images.target import ImageTarget, plan_images
from hotspare.platforms.placement import TargetPlan
from hotspare.platforms.platform import (
    Finding,
    Machine,
    MachineMarks,
    Remnant,
    Snapshot,
    SnapshotRequest,
    SweepRequest,
    TargetRequest,
)


class ImagesPlatform:
    """A ``Platform``: each raw, qcow2, vmdk, vhd, vhdx or vdi file of a folder is a machine that is off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.uri = f"images://{quote(str(self.folder))}"
        self._single: tuple[str, Path] | None = None

    @classmethod
    def for_image(cls, path: Path, name: str) -> Self:
        """Give a platform with one machine, ``name``: the image or block device at ``path``.

        The machine is the same as before whenever the name is, wherever the image lies.

        Raises:
            SourceLost: there is nothing at ``path``.
            UsageError: it is no image of a known format.
            PermissionRefused: it may not be read.
        """
        if not path.exists():
            raise SourceLost(f"There is no image {path}", meaning="Nothing was done", hint="Check the path")
        measure_image(path)
        platform = cls(path.absolute().parent)
        platform._single = (name, path.absolute())
        # Not the folder's: its list of machines must not know this one, which is found by its name alone.
        platform.uri = f"image://{quote(str(path.absolute()))}"
        return platform

    def probe(self) -> list[Finding]:
        """Look at the folder and at the programs that formats other than raw need."""
        readable = self.folder.is_dir() and os.access(self.folder, os.R_OK | os.X_OK)
        findings = [
            Finding("folder", True, str(self.folder))
            if readable
            else Finding(
                "folder", False, f"{self.folder} cannot be read", "Check the path and its permissions"
            )
        ]
        for name in ("qemu-img", "qemu-nbd"):
            path = shutil.which(name)
            hint = "For images other than raw: apt install qemu-utils"
            findings.append(
                Finding(name, True, path) if path else Finding(name, False, "not installed", hint)
            )
        return findings

    def machines(self) -> list[Machine]:
        """List all images, by name."""
        return [self._describe(name, path) for name, path in sorted(self._images().items())]

    def inspect(self, name: str) -> Machine:
        """Describe one image, by the name of its machine or its file, or by id."""
        images = self._images()
        if name in images:
            return self._describe(name, images[name])
        for machine_name, path in images.items():
            machine = self._describe(machine_name, path)
            if name in (path.name, machine.id):
                return machine
        raise MachineNotFound(
            f"There is no image {name!r} in {self.folder}",
            meaning="Nothing was done",
            hint=f"There are: {', '.join(sorted(images)) or 'none'}",
        )

    def _images(self) -> dict[str, Path]:
        return dict([self._single]) if self._single else images_in(self.folder)

    def _describe(self, name: str, path: Path) -> Machine:
        return describe_image(path, name, self.uri, f"image:{name}" if self._single else str(path))

    def mark(self, name: str, marks: MachineMarks) -> Machine:
        """Refuse: an image is a file like any other, with no place for marks."""
        del marks
        machine = self.inspect(name)
        raise UsageError(
            f"{machine.name} is a disk image, which cannot keep tags or exclusions",
            meaning="Nothing was changed",
            hint="Choose images by patterns of their names: hotspare backup --include 'web*'",
        )

    def use(self, at: datetime) -> None:
        """Nothing runs here."""
        del at

    @contextmanager
    def open_snapshot(
        self, machine: Machine, request: SnapshotRequest, cancellation: Cancellation
    ) -> Iterator[Snapshot]:
        """Open the image for reading, in full.

        Raises:
            UsageError: it cannot be read as an image.
            PermissionRefused: a machine uses it, or it may not be read.
            SourceLost: it changed while it was read.
        """
        cancellation.check()
        current = with_chosen_disks(self.inspect(machine.id), request.disks)
        if not current.disks:
            raise UsageError(
                f"The image of {machine.name} cannot be backed up: {'; '.join(current.left_out)}",
                meaning="Nothing was done",
            )
        snapshot = ImageSnapshot(current)
        try:
            yield snapshot
        finally:
            snapshot.release()

    def plan_target(self, machine: Machine, request: TargetRequest) -> TargetPlan:
        """Say which images ``create_target`` would make."""
        return plan_images((request.folder or self.folder).absolute(), machine, request)

    def sweep(self, request: SweepRequest) -> list[Remnant]:
        """Find nothing: a backup only reads images, so a crash leaves nothing with them."""
        del request
        return []

    def create_target(self, machine: Machine, request: TargetRequest) -> ImageTarget:
        """Start to make images like the disks of ``machine``."""
        folder = (request.folder or self.folder).absolute()
        return ImageTarget(self.uri, folder, plan_images(folder, machine, request))

    def start(self, name: str) -> None:
        """Refuse: an image is no running thing."""
        raise UsageError(
            f"{name} is a disk image in a folder, which cannot be started",
            hint="Restore it to a platform that runs machines, such as qemu:///system",
        )

    def close(self) -> None:
        """Do nothing: nothing is held open."""
