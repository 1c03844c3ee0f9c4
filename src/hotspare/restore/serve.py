"""Serving the disks of a restore point over NBD, read-only, without restoring them first."""

from hotspare.block.nbd.connection import Address
from hotspare.block.nbd.server import Export, NbdServer
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository


def serve_point(repository: Repository, point: RestorePoint, address: Address) -> NbdServer:
    """Begin to serve each disk as the export of its name, until the server is closed.

    Args:
        repository: where the point is.
        point: whose disks.
        address: path of the unix socket to create, or a loopback address and a port (0 for any).

    Raises:
        TargetExists: the path or the port is taken.
        UsageError: the address is not a loopback address.
        RepositoryDamaged: the map of a disk cannot be read.
    """
    exports = {disk.name: Export(reader=repository.disk(disk)) for disk in point.disks}
    return NbdServer.start(address, exports)
