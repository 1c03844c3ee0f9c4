"""Disk images made and described by the programs of the distribution."""

import json
import subprocess
from pathlib import Path
from typing import Any

from hotspare.block.device import BlockReader
from hotspare.block.file import RawFile
from hotspare.guest.volumes.find import FoundVolumes, find_volumes
from hotspare.guest.volumes.volume import Volume
from hotspare.units import MIB


def run(*command: str | Path, given: str | None = None, status: int = 0) -> str:
    done = subprocess.run(list(map(str, command)), input=given, capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def image(path: Path, size: int = 64 * MIB) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def write(path: Path, at: int, content: bytes) -> None:
    """Write into an image; from its end where ``at`` is negative."""
    with path.open("r+b") as file:
        file.seek(at, 2 if at < 0 else 0)
        file.write(content)


def read(path: Path, at: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at, 2 if at < 0 else 0)
        return file.read(length)


def put(source: Path, target: Path, at: int) -> None:
    """Copy an image into another, without its holes."""
    run("dd", f"if={source}", f"of={target}", "bs=1M", f"seek={at}B", "conv=notrunc,sparse", "status=none")


def found_on(**disks: Path) -> FoundVolumes:
    """Find what is on images, by the names of their disks."""
    readers: dict[str, BlockReader] = {name: RawFile.open(path) for name, path in disks.items()}
    try:
        return find_volumes(readers)
    finally:
        for reader in readers.values():
            reader.close()


def volume_of(path: Path) -> Volume:
    """Give the one volume of an image without a partition table."""
    (volume,) = found_on(vda=path).volumes
    return volume


def by_name(found: FoundVolumes) -> dict[str, Volume]:
    return {volume.name: volume for volume in found.volumes}


def blkid(path: Path, *, status: int = 0) -> dict[str, str]:
    """Give what blkid finds; status 8 is its way to say that it is ambiguous, 2 that there is nothing."""
    printed = run("blkid", "-p", "-o", "export", path, status=status)
    return dict(line.replace("\\", "").split("=", 1) for line in printed.splitlines())


def sfdisk(path: Path, script: str) -> None:
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never", path, given=script)


def partitions_by_sfdisk(path: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(run("sfdisk", "--json", path))["partitiontable"]
    return table


def bounds(volume: Volume) -> tuple[int, int]:
    """Give the first byte of a volume on its one disk, and the one after its last."""
    (place,) = volume.layout.places(0, volume.size)
    return place.offset, place.offset + place.length


def same_as_sfdisk(found: FoundVolumes, path: Path, sector: int = 512) -> None:
    table = partitions_by_sfdisk(path)
    expected = {}
    for one in table["partitions"]:
        if one.get("type") not in {"5", "f", "85"}:
            number = one["node"].removeprefix(str(path))
            start = one["start"] * sector
            expected[f"vda{number}"] = (start, start + one["size"] * sector)
    assert {volume.name: bounds(volume) for volume in found.volumes} == expected


def reasons(found: FoundVolumes) -> dict[str, str | None]:
    return {volume.name: volume.keep_because for volume in found.volumes}
