"""A replica in this process, with a real storage daemon, but without a link or an agent."""

import socket
from pathlib import Path
from typing import Self

from hotspare.replication.interval.local import LocalStandby
from hotspare.replication.link.tls import Identity
from hotspare.replication.model import Tenure
from hotspare.replication.standby.replica import Replica

MACHINE_ID = "uuid of web01"


class HereStandby(LocalStandby):
    """A standby whose storage daemon ends with the ``with`` block; its folder stays."""

    def __init__(
        self, folder: Path, machine: str = "web01", machine_id: str = MACHINE_ID, seed: Path | None = None
    ) -> None:
        identity = self.identity = Identity.open(folder.parent / "identity", "here")
        tenure = Tenure(epoch=1, holder=identity.id)
        self.folder = folder
        self.replica = Replica.create(
            folder,
            identity,
            protection="0123456789abcdef",
            machine_id=machine_id,
            machine_name=machine,
            tenure=tenure,
            port=_free_port(),
        )
        super().__init__(self.replica, identity, tenure, seed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def kill(self) -> None:
        """Kill the storage daemon (SIGKILL)."""
        self.close()
        self.replica.daemon().kill()

    def stop(self) -> None:
        self.close()
        self.replica.stop_daemon()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
