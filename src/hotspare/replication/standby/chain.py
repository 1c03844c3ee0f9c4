"""The images of one disk of a replica: a chain of qcow2 files, the newest on top.

Writes go to the top; making a point puts a new empty image there, so that the ones below never change again.
Images that no point needs any more are merged with what lies above, while writes go on.
"""

import uuid
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hotspare.block.file import failure_of, make_name_durable
from hotspare.block.qemu import image_info, run_tool
from hotspare.errors import HotspareError, UsageError
from hotspare.replication.standby.storage_daemon import StorageDaemon


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """Which files a disk is made of."""

    name: str
    """The disk's: ``vda``."""
    size: int
    """Bytes."""
    layers: tuple[str, ...]
    """File names, the base first. Each begins with the disk's name and is never used again."""

    @property
    def top(self) -> str:
        """The file that is written to."""
        return self.layers[-1]


def new_layer(folder: Path, name: str, size: int, below: str | None) -> str:
    """Make an empty image that shows what is ``below``, or zeroes; gives its file name.

    Raises:
        NoSpace, PermissionRefused, SourceLost: it cannot be made.
    """
    layer = f"{name}.{uuid.uuid4().hex[:12]}.qcow2"
    path = folder / layer
    # The name below is relative, so that the folder can be moved; it is not opened for this.
    onto = ["-u", "-b", below, "-F", "qcow2"] if below else []
    run_tool(["qemu-img", "create", "-q", "-f", "qcow2", *onto, str(path), str(size)], path)
    try:
        path.chmod(0o600)
        make_name_durable(path)
    except OSError as error:
        raise failure_of(path, "create", error) from error
    return layer


def take_layer(image: Path, folder: Path, name: str, size: int) -> str:
    """Take an image that was restored before, moving it, as what a disk begins with; gives its file name.

    Raises:
        UsageError: it is of another size, or no qcow2 image.
        PermissionRefused: it refers to other files.
        HotspareError: it lies on another file system.
    """
    info = image_info(image, "qcow2")
    if info.virtual_size != size:
        raise UsageError(
            f"{image} holds {info.virtual_size} bytes, and the disk {name} has {size}",
            meaning="It was left alone, and nothing is replicated yet",
            hint="Restore a point of this machine there, or move it away to begin without",
        )
    layer = f"{name}.{uuid.uuid4().hex[:12]}.qcow2"
    try:
        image.rename(folder / layer)
        make_name_durable(folder / layer)
    except OSError as error:
        raise HotspareError(
            f"{image} cannot be moved to {folder}: {error.strerror}",
            meaning="It was left alone, and nothing is replicated yet",
            hint="Restore it to the file system that the replica is on",
        ) from error
    return layer


def node_name(layer: str) -> str:
    """Give the name of an image's node in QEMU, which takes up to 31 characters."""
    return f"L{layer.split('.')[-2]}"


def open_layer(daemon: StorageDaemon, folder: Path, layer: str, below: str | None, *, top: bool) -> None:
    """Open one image in the daemon, whatever its header says of the one below."""
    try:
        _open_layer(daemon, folder, layer, below, top=top, aio="io_uring")
    except HotspareError as error:
        if "io_uring" not in error.what:
            raise
        # This kernel, or this build of QEMU, does not have it. Threads take longer for each small write.
        _open_layer(daemon, folder, layer, below, top=top, aio="threads")


def _open_layer(
    daemon: StorageDaemon, folder: Path, layer: str, below: str | None, *, top: bool, aio: str
) -> None:
    daemon.ask(
        "blockdev-add",
        driver="qcow2",
        node_name=node_name(layer),
        read_only=not top,
        discard="unmap",
        file={
            "driver": "file",
            "filename": str(folder / layer),
            "discard": "unmap",
            "aio": aio,
        },
        backing=node_name(below) if below else None,
    )


def open_chain(daemon: StorageDaemon, folder: Path, chain: Chain) -> None:
    """Open all images of a disk in a daemon that knows none of them."""
    below = None
    for layer in chain.layers:
        open_layer(daemon, folder, layer, below, top=layer == chain.top)
        below = layer


def put_on_top(daemon: StorageDaemon, folder: Path, tops: Sequence[tuple[str, str]]) -> None:
    """Put new images on top of others, for all disks in one instant; what is below is durable then.

    Args:
        daemon: that has the old ones open.
        folder: where the images are.
        tops: for each disk, its image on top and the new one.
    """
    for _, new in tops:
        open_layer(daemon, folder, new, None, top=True)
    try:
        daemon.ask(
            "transaction",
            actions=[
                {
                    "type": "blockdev-snapshot",
                    "data": {"node": node_name(old), "overlay": node_name(new)},
                }
                for old, new in tops
            ],
        )
    except BaseException:
        for _, new in tops:
            daemon.ask("blockdev-del", node_name=node_name(new))
        raise


def merge_job(layer: str) -> str:
    """Name the job that merges an image into the one below it."""
    return f"merge-{node_name(layer)}"


def begin_merge(daemon: StorageDaemon, chain: Chain, layer: str) -> str:
    """Begin to merge an image into the one below it, which then shows what the upper one did; gives the job.

    The one above, which must be there, shows the same as before, at each instant and after a crash.
    """
    job = merge_job(layer)
    below = chain.layers[chain.layers.index(layer) - 1]
    daemon.ask(
        "block-commit",
        job_id=job,
        device=node_name(chain.top),
        top_node=node_name(layer),
        base_node=node_name(below),
        backing_file=below,
        auto_dismiss=False,
    )
    return job
