"""Machines with tiny disks whose blocks come from a small pool, so that chunks die, return and are shared."""

import random

import msgspec

from hotspare.platforms.platform import Machine
from tests.backup.scripted_platform import BLOCK, ScriptedPlatform

BLOCKS_IN_CHUNK = 4
CHUNK = BLOCKS_IN_CHUNK * BLOCK
_POOL = [random.Random(number).randbytes(BLOCK) for number in range(6)]


class SimulatedMachine(ScriptedPlatform):
    """One machine with one disk, and what its guest does."""

    def __init__(self, name: str, random_source: random.Random, chunks: int | None = None) -> None:
        """``chunks``: how large the disk is; None leaves that to the random source."""
        self.name = name
        self._random = random_source
        self._earlier: list[bytes] = []
        odd = random_source.randint(9, 16) * CHUNK + 512 * random_source.randrange(3)
        super().__init__(odd if chunks is None else chunks * CHUNK)
        self.guest_works(20)

    @property
    def content(self) -> bytes:
        return bytes(self.disks["vda"].data)

    def inspect(self, name: str) -> Machine:
        return msgspec.structs.replace(super().inspect("web01"), id=f"id of {name}", name=name)

    def overwrite(self, first: int, last: int, seed: int) -> None:
        """Fill chunks ``first`` to ``last - 1`` with what nobody else has."""
        data = random.Random(seed).randbytes((last - first) * CHUNK)
        self.disks["vda"].guest_writes(first * CHUNK, data)

    def guest_works(self, writes: int) -> None:
        """Write chunks, mostly whole ones that other machines may have as well."""
        disk = self.disks["vda"]
        if self._earlier and self._random.random() < 0.4:
            # What only forgotten points had comes back.
            disk.guest_writes(0, self._random.choice(self._earlier))
        self._earlier.append(bytes(disk.data))
        for _ in range(writes):
            offset = self._random.randrange(-(-disk.size // CHUNK)) * CHUNK
            block = self._random.choice(_POOL)
            data = block * BLOCKS_IN_CHUNK
            kind = self._random.random()
            if kind < 0.4:  # so little that a delta will do
                offset += self._random.randrange(BLOCKS_IN_CHUNK) * BLOCK
                data = block
            elif kind < 0.5:
                data = self._random.randbytes(8) + data[8:]
            elif kind < 0.6:
                data = bytes(CHUNK)
            disk.guest_writes(offset, data[: max(0, disk.size - offset)])
