"""How a replica's disks are offered to the holder: NBD exports of its storage daemon."""

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hotspare.errors import HotspareError
from hotspare.replication.standby.chain import node_name
from hotspare.replication.standby.storage_daemon import StorageDaemon

if TYPE_CHECKING:
    from hotspare.replication.standby.state import ReplicaState

_CREDENTIALS = "tls"
_CLOSE_SECONDS = 10.0


class Exports(msgspec.Struct, frozen=True, kw_only=True):
    """Where the disks are to be had, over NBD with TLS; the server's name is the standby's id."""

    port: int
    names: dict[str, str]
    """For each disk the name of its export. Names are never used again for another content: who was
    connected to a storage daemon that died cannot go on as if nothing had happened."""
    durable: bool = False
    session: str = ""
    """Names this opening of the disks; requests that belong to an earlier one are refused."""


def open_server(daemon: StorageDaemon, credentials: Path, port: int) -> None:
    """Let a daemon listen; nothing is exported yet."""
    daemon.ask(
        "object-add",
        qom_type="tls-creds-x509",
        id=_CREDENTIALS,
        dir=str(credentials),
        endpoint="server",
        verify_peer=True,
    )
    daemon.ask(
        "nbd-server-start",
        addr={"type": "inet", "data": {"host": "0.0.0.0", "port": str(port)}},  # noqa: S104 - TLS guards it
        tls_creds=_CREDENTIALS,
        max_connections=0,
    )


def open_exports(daemon: StorageDaemon, state: "ReplicaState", *, durable: bool) -> Exports:
    """Export what is on top of each disk, for writing."""
    prefix = f"{state.tenure.epoch}-{state.generation}-{time.monotonic_ns():x}"
    names = {chain.name: f"{prefix}-{chain.name}" for chain in state.chains}
    for chain in state.chains:
        daemon.ask(
            "block-export-add",
            type="nbd",
            id=f"disk-{chain.name}",
            node_name=node_name(chain.top),
            name=names[chain.name],
            writable=True,
            writethrough=durable,
        )
    return Exports(port=state.port, names=names, durable=durable, session=prefix)


def close_exports(daemon: StorageDaemon) -> None:
    """Cut whoever is connected, and wait until nothing is written any more. Raises ``HotspareError``."""
    for export in daemon.ask("query-block-exports"):
        if not export["shutting-down"]:
            with suppress(HotspareError):  # it has just ended
                daemon.ask("block-export-del", id=export["id"], mode="hard")
    deadline = time.monotonic() + _CLOSE_SECONDS
    while daemon.ask("query-block-exports"):
        if time.monotonic() > deadline:
            raise HotspareError(
                "The storage daemon does not close the replica's disks",
                meaning="Somebody may still write to them",
            )
        time.sleep(0.005)
