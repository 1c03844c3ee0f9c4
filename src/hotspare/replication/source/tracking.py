"""What has changed on a machine's disks since the replica had everything: QEMU's dirty bitmaps.

Bitmaps of all disks that began in one instant share a serial. The standby notes the serial of which holds:
what it has, with all that these bitmaps mark, is the machine as it is now.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from hotspare.replication.source.monitor import Monitor

_GRANULARITY = 64 * 1024
"""Bytes, as is usual: libvirt's checkpoints have the same."""


def bitmap_name(protection: str, serial: str) -> str:
    """Give the name of the bitmaps of one serial; it is the same on all disks."""
    return f"{_prefix(protection)}{serial}"


def _prefix(protection: str) -> str:
    return f"hotspare-replica-{protection}-"


class Tracking:
    """The bitmaps of one machine.

    Args:
        monitor: of its QEMU.
        protection: id.
        nodes: for each disk the node that has its bitmaps.
    """

    def __init__(self, monitor: Monitor, protection: str, nodes: Mapping[str, str]) -> None:
        self._monitor = monitor
        self._protection = protection
        self._nodes = nodes

    def begin(self, instead_of: str | None = None) -> str:
        """Begin to note changes of all disks in one instant, and give the serial.

        QEMU waits until all writes under way are done: never while mirrors run.

        Args:
            instead_of: a serial that notes nothing more from the same instant on.
        """
        serial = uuid.uuid4().hex[:12]
        actions: list[dict[str, object]] = [
            {"type": "block-dirty-bitmap-add", "data": addition} for addition in self._additions(serial)
        ]
        if instead_of is not None:
            for node in self._nodes.values():
                old = {"node": node, "name": bitmap_name(self._protection, instead_of)}
                actions.append({"type": "block-dirty-bitmap-disable", "data": old})
        self._monitor.ask("transaction", actions=actions)
        return serial

    def begin_beside(self) -> str:
        """Begin to note changes, of each disk in an instant of its own, and give the serial.

        Unlike ``begin`` it never waits for writes that are under way, of which some may not be noted: it is
        safe while mirrors run, whose standby may just have gone silent.
        """
        serial = uuid.uuid4().hex[:12]
        for addition in self._additions(serial):
            self._monitor.ask("block-dirty-bitmap-add", **addition)
        return serial

    def _additions(self, serial: str) -> list[dict[str, object]]:
        nodes = self._monitor.nodes()
        return [
            {
                "node": node,
                "name": bitmap_name(self._protection, serial),
                "granularity": _GRANULARITY,
                # Raw images cannot keep it; then a stop of the machine costs a comparison.
                "persistent": nodes[node]["drv"] == "qcow2",
            }
            for node in self._nodes.values()
        ]

    def usable(self) -> set[str]:
        """Give the serials whose bitmaps are there on all disks and sound, noting or not."""
        serials: set[str] | None = None
        for bitmaps in self._bitmaps().values():
            sound = {serial for serial, bitmap in bitmaps.items() if not bitmap.get("inconsistent")}
            serials = sound if serials is None else serials & sound
        return serials or set()

    def marked(self, serial: str) -> dict[str, int]:
        """Give for each disk how many bytes are marked; none for a disk whose bitmap is gone."""
        return {
            disk: bitmaps[serial]["count"]
            for disk, bitmaps in self._bitmaps().items()
            if serial in bitmaps and "count" in bitmaps[serial]
        }

    def add(self, serial: str, *, to: str) -> None:
        """Mark in the bitmaps of one serial also what those of another mark."""
        source, target = (bitmap_name(self._protection, one) for one in (serial, to))
        for node in self._nodes.values():
            self._monitor.ask("block-dirty-bitmap-merge", node=node, target=target, bitmaps=[source])

    def drop_all_but(self, kept: set[str]) -> None:
        """Remove all bitmaps of this protection but those of some serials."""
        for disk, bitmaps in self._bitmaps().items():
            for serial in set(bitmaps) - kept:
                name = bitmap_name(self._protection, serial)
                self._monitor.ask("block-dirty-bitmap-remove", node=self._nodes[disk], name=name)

    def is_noting(self, serial: str) -> bool:
        """Whether all bitmaps of a serial are still at work."""
        bitmaps = self._bitmaps().values()
        return all(one.get(serial, {}).get("recording", False) for one in bitmaps)

    def _bitmaps(self) -> dict[str, dict[str, dict[str, Any]]]:
        prefix = _prefix(self._protection)
        nodes = self._monitor.nodes()
        return {
            disk: {
                bitmap["name"].removeprefix(prefix): bitmap
                for bitmap in nodes.get(node, {}).get("dirty-bitmaps", ())
                if bitmap.get("name", "").startswith(prefix)
            }
            for disk, node in self._nodes.items()
        }
