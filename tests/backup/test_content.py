"""What is stored from memory is compared with what it was before, also where it has grown since."""

import random
from pathlib import Path

import pytest

from hotspare.backup.content import store_content
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend

CHUNK = 65_536


@pytest.mark.parametrize("grown", [0, 3 * CHUNK])
def test_a_little_change_in_each_chunk_costs_little(tmp_path: Path, grown: int) -> None:
    repository = Repository.create(LocalBackend(tmp_path), "a passphrase", chunk_size=CHUNK)
    source = random.Random(1)
    before = bytearray(source.randbytes(10 * CHUNK))
    with repository.writer() as writer:
        first = store_content(repository, writer, "file", bytes(before), None)
        writer.flush()
    for chunk in range(10):
        before[chunk * CHUNK + 100 : chunk * CHUNK + 110] = source.randbytes(10)
    after = bytes(before) + source.randbytes(grown)
    with repository.writer() as writer:
        second = store_content(repository, writer, "file", after, first)
        writer.flush()
    assert second.bytes_stored < grown + 10 * CHUNK // 8
    read = bytearray(second.size)
    repository.disk(second).read_into(0, memoryview(read))
    assert read == after
