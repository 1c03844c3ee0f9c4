"""What must be true of every answer, whatever the disks say."""

import time

from hotspare.block.device import BlockReader
from hotspare.block.ranges import NOTHING, Ranges
from hotspare.guest.volumes.find import FoundVolumes, find_volumes
from hotspare.units import MIB

SIZE = 4 * MIB


def checked(disks: dict[str, BlockReader]) -> FoundVolumes:
    """Find volumes, and hold the result against what must be true whatever the disks say."""
    begun = time.process_time()
    found = find_volumes(disks)
    assert time.process_time() - begun < 10
    names = [volume.name for volume in found.volumes] + [one.name for one in found.unreadable]
    assert len(names) == len(set(names))
    claimed: dict[tuple[str, str], Ranges] = {}
    for volume in found.volumes:
        assert volume.size > 0
        on_disks = volume.layout.on_disks(Ranges.whole(volume.size))
        assert sum(ranges.total for ranges in on_disks.values()) == volume.size, "a byte is there twice"
        for disk, ranges in on_disks.items():
            assert not len(ranges - Ranges.whole(disks[disk].size)), "beyond the disk"
            group = volume.name.partition("/")[0] if "/" in volume.name else ""
            if volume.keep_because is None or group:
                before = claimed.get((group, disk), NOTHING)
                assert not len(ranges & before), (
                    "two volumes of a group, or two that are believed, share bytes"
                )
                claimed[group, disk] = before | ranges
    for disk, ranges in found.unused.items():
        assert not len(ranges - Ranges.whole(disks[disk].size))
        taken = Ranges.union(there for (_, on), there in claimed.items() if on == disk)
        assert not len(ranges & taken), "unused, and in a volume"
    return found
