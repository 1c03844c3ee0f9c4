"""The disks of the replica that tests here share."""

from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.tls import Tls
from hotspare.replication.link.tls import Identity
from hotspare.replication.model import Tenure
from hotspare.replication.standby.replica import Replica

MIB = 1024 * 1024
SIZES = {"vda": 8 * MIB, "vdb": 4 * MIB}


def opened(replica: Replica, tenure: Tenure, identity: Identity, server: Identity, disk: str) -> NbdClient:
    exports = replica.serve(tenure)
    tls = Tls(identity.client_context(server.id), server.id)
    return NbdClient.connect(("127.0.0.1", exports.port), exports.names[disk], tls=tls, timeout=30)
