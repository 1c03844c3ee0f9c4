"""How the index does with many chunks: ``python -m benchmarks.index_scale [rows [rows a segment]]``.

Makes segments of random rows, maps them as a repository on this host would, and measures memory and
lookups; then tells what that comes to at 10^9 chunks.
"""

import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hotspare.repository.codec import ZSTD
from hotspare.repository.index import ChunkIndex, PackRecord, Segment
from hotspare.repository.index.cache import SegmentSource
from hotspare.repository.index.segment import CODEC_BITS, ROW
from hotspare.repository.keys import Keyring, new_secrets
from hotspare.storage.local import LocalBackend

REPOSITORY = "00" * 16
ROWS_PER_PACK = 400
BATCH = 2048
ASKED = 100_000


def random_segment(source: np.random.Generator, rows: int) -> Segment:
    """Give a segment of rows that nobody has."""
    table = np.zeros(rows, dtype=ROW)
    words = np.sort(source.integers(0, 1 << 64, rows, dtype=np.uint64))
    ids = np.empty((rows, 2), dtype=">u8")
    ids[:, 0], ids[:, 1] = words, source.integers(0, 1 << 64, rows, dtype=np.uint64)
    table["id"] = ids.view("V16").reshape(-1)
    table["pack"] = source.integers(0, rows // ROWS_PER_PACK + 1, rows)
    table["offset"] = source.integers(0, 1 << 25, rows)
    table["place"] = 80_000 << CODEC_BITS | ZSTD
    packs = tuple(
        PackRecord("data", secrets.token_bytes(32), 1 << 25, 1, secrets.token_bytes(32))
        for _ in range(rows // ROWS_PER_PACK + 1)
    )
    return Segment(packs, table)


def private_memory() -> float:
    """MiB of this process that are no mapped file."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


def stored_ids(source: np.random.Generator, index: ChunkIndex) -> bytes:
    """Give some ids that the index has, as whole ids."""
    ids = np.zeros((ASKED, 4), dtype=">u8")
    parts = [part.table for part in index._parts]
    for at in range(ASKED):
        table = parts[at % len(parts)]
        row = int(source.integers(0, len(table)))
        ids[at, 0], ids[at, 1] = table.high[row], table.low[row]
    return ids.tobytes()


def rates(index: ChunkIndex, ids: bytes) -> tuple[float, float]:
    """Give lookups a second, one by one and in batches."""
    began = time.perf_counter()
    single = ASKED // 5
    for at in range(0, single * 32, 32):
        index.find(ids[at : at + 32])
    one_by_one = single / (time.perf_counter() - began)
    began = time.perf_counter()
    for at in range(0, len(ids), BATCH * 32):
        index.positions(ids[at : at + BATCH * 32])
    return one_by_one, ASKED / (time.perf_counter() - began)


def measure(folder: Path, rows: int) -> None:
    """Open the index from its files in a fresh process, and print what it takes and does."""
    keyring = Keyring(REPOSITORY, new_secrets())
    before = private_memory()
    began = time.perf_counter()
    index = ChunkIndex()
    tables = SegmentSource(LocalBackend(folder / "store"), keyring, folder / "cache").tables()
    index.load_tables(list(tables.values()))
    again = time.perf_counter() - began
    memory = private_memory() - before
    stored, mapped = (
        sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file())
        for name in ("store", "cache")
    )
    print(f"{rows:,} chunks in {len(tables)} segments, {len(index.packs):,} packs")
    print(f"stored: {stored / rows:.1f} bytes a chunk; files on this host: {mapped / rows:.1f}")
    print(f"opened from files in {again:.2f} s; private memory: {memory:.0f} MiB")
    source = np.random.default_rng(2)
    kinds = (("stored", stored_ids(source, index)), ("new", secrets.token_bytes(ASKED * 32)))
    for kind, ids in kinds:
        single, batch = rates(index, ids)
        print(f"{kind} chunks: {single:,.0f} lookups/s one by one, {batch:,.0f} in batches of {BATCH}")
    many = 1e9 / rows
    print(
        f"at 10^9: {stored * many / 1e9:.0f} GB stored, {mapped * many / 1e9:.0f} GB in files,"
        f" {memory * many / 1024:.1f} GiB of private memory, {len(tables) * many:.0f} segments of this size"
    )


def main() -> None:
    """Make the segments, and have them measured."""
    rows = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10_000_000
    segment_rows = int(float(sys.argv[2])) if len(sys.argv) > 2 else 1 << 21
    if len(sys.argv) > 3:
        measure(Path(sys.argv[3]), rows)
        return
    source = np.random.default_rng(1)
    keyring = Keyring(REPOSITORY, new_secrets())
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        backend = LocalBackend(folder / "store")
        for start in range(0, rows, segment_rows):
            segment_name, data = random_segment(source, min(segment_rows, rows - start)).seal(keyring)
            backend.put(segment_name, [data])
        began = time.perf_counter()
        SegmentSource(backend, keyring, folder / "cache").tables()
        print(f"read from the store, opened and written to files in {time.perf_counter() - began:.1f} s")
        arguments = [str(rows), str(segment_rows), name]
        subprocess.run([sys.executable, "-m", "benchmarks.index_scale", *arguments], check=True)


if __name__ == "__main__":
    main()
