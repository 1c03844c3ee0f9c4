"""How images are opened where the kernel refuses QEMU's fastest way."""

from pathlib import Path
from typing import Any, cast

import pytest

from hotspare.errors import HotspareError
from hotspare.replication.standby.chain import open_layer
from hotspare.replication.standby.storage_daemon import StorageDaemon


class Daemon:
    """Stands for a storage daemon: refuses what it is told to, in QEMU's words, and notes what it opened."""

    def __init__(self, refusals: dict[str, str]) -> None:
        self.refusals = refusals
        self.opened: list[str] = []

    def ask(self, _command: str, **arguments: Any) -> None:
        aio = arguments["file"]["aio"]
        if aio in self.refusals:
            raise HotspareError(self.refusals[aio])
        self.opened.append(aio)


def _open(daemon: Daemon) -> None:
    open_layer(cast("StorageDaemon", daemon), Path("/replica"), "vda.0123456789ab.qcow2", None, top=True)


@pytest.mark.parametrize(
    "words",
    [
        "Unable to use linux io_uring: failed to init linux io_uring ring: Operation not permitted",
        "Parameter 'aio' does not accept value 'io_uring'",
    ],
)
def test_where_there_is_no_io_uring_threads_do(words: str) -> None:
    daemon = Daemon({"io_uring": words})
    _open(daemon)
    assert daemon.opened == ["threads"]


def test_any_other_refusal_is_told() -> None:
    daemon = Daemon({"io_uring": "Could not open '/replica': No such file or directory"})
    with pytest.raises(HotspareError, match="No such file"):
        _open(daemon)
    assert daemon.opened == []
