"""Codecs, and how hard a run compresses, on a clock of its own."""

import contextlib
import random
from dataclasses import dataclass
from unittest.mock import patch

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.repository import codec
from hotspare.repository.compression import STEPS, AdaptiveLevel

SIZE = 1 << 18
TEXT = memoryview((b"the quick brown fox jumps over the lazy dog " * 7000)[:SIZE])
NOISE = memoryview(random.Random(1).randbytes(SIZE))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=5000), st.integers(1, 9))
def test_what_is_encoded_decodes(data: bytes, level: int) -> None:
    number, payload = codec.encode(memoryview(data), level)
    assert codec.decode(number, payload, len(data)) == data


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 255), st.binary(max_size=200))
def test_junk_is_refused_or_small(number: int, payload: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert len(memoryview(codec.decode(number, payload, 1000))) <= 1000


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))
    with pytest.raises(ValueError, match="declared"):
        codec.decode(codec.ZSTD, bomb, SIZE)


def compressed_bytes(chunks: list[memoryview]) -> list[int]:
    """Encode chunks, and give what zstd was given to compress."""
    seen: list[int] = []
    real = codec._contexts.compressor

    class Watched:
        def __init__(self, level: int) -> None:
            self.level = level

        def compress(self, data: memoryview) -> bytes:
            seen.append(len(data))
            return real(self.level).compress(data)

    with patch.object(codec._contexts, "compressor", Watched):
        for chunk in chunks:
            codec.encode(chunk)
    return seen


def test_in_a_stretch_that_does_not_compress_only_samples_are_tried() -> None:
    codec.encode(TEXT)
    assert compressed_bytes([TEXT, NOISE, NOISE, NOISE, TEXT, TEXT]) == [
        SIZE,
        SIZE,
        1 << 14,
        1 << 14,
        1 << 14,
        SIZE,
        SIZE,
    ]


@dataclass
class Pipeline:
    """Workers that read, compress and store, on a simulated clock: the slowest stage sets the pace.

    Rates are bytes a second; ``compress`` is that of one processor at level 1.
    """

    source: float
    compress: float
    store: float
    processors: int = 2
    stolen: float = 0.0
    """Share of the processors that others on the host use."""
    latency_bound: bool = False
    """Each of the workers waits for its own read, and reads one thing at a time."""
    now: float = 0.0
    cpu: float = 0.0
    moved: int = 0

    def run(self, seconds: float) -> "AdaptiveLevel":
        level = AdaptiveLevel(self.processors, self.processors, lambda: self.now, lambda: self.cpu)
        self.levels: list[int] = []
        size = 1 << 22
        end = self.now + seconds
        while self.now < end:
            cost = dict(STEPS)[level.level]
            work = size / self.compress * cost
            free = self.processors * (1 - self.stolen)
            if self.latency_bound:
                step = (size / self.source * self.processors + work) / self.processors
            else:
                step = max(size / self.source, size / self.store, work / free)
            bound_by_cpu = not self.latency_bound and step == work / free
            self.now += step
            self.cpu += work
            busy = step * self.processors if bound_by_cpu else work / (1 - self.stolen)
            waits_for_source = self.latency_bound or step == size / self.source
            level.note(size, step * self.processors - busy if waits_for_source else 0, busy)
            self.levels.append(level.level)
            self.moved += size
        return level


FAST = 1e12


def fixed(pipeline: Pipeline, seconds: float) -> float:
    """Give what level 1 moves in that time."""
    cost = 1 / (pipeline.compress * pipeline.processors * (1 - pipeline.stolen))
    if pipeline.latency_bound:
        return seconds / (1 / pipeline.source + 1 / (pipeline.compress * pipeline.processors))
    return seconds / max(1 / pipeline.source, 1 / pipeline.store, cost)


@pytest.mark.parametrize(
    "pipeline",
    [
        Pipeline(source=FAST, compress=4e8, store=FAST),
        Pipeline(source=FAST, compress=4e8, store=3e7),
        Pipeline(source=5e7, compress=4e8, store=FAST),
        Pipeline(source=3e8, compress=4e8, store=FAST),
        Pipeline(source=FAST, compress=4e8, store=FAST, stolen=0.7),
        Pipeline(source=6e8, compress=4e8, store=FAST, latency_bound=True),
        Pipeline(source=2e9, compress=4e8, store=FAST, latency_bound=True, processors=8),
    ],
    ids=["processor", "store", "source", "nearly", "busy-host", "latency", "latency-8"],
)
def test_a_run_is_never_slower_than_level_1(pipeline: Pipeline) -> None:
    pipeline.run(300)
    assert pipeline.moved > 0.98 * fixed(pipeline, 300)


@pytest.mark.parametrize(("source", "store"), [(3e7, FAST), (FAST, 3e7)], ids=["source", "store"])
def test_what_waits_compresses_harder(source: float, store: float) -> None:
    assert Pipeline(source=source, compress=4e8, store=store).run(60).level == STEPS[-1][0]


def test_a_busy_host_gets_no_more_work() -> None:
    pipeline = Pipeline(source=FAST, compress=4e8, store=2e8, stolen=0.7)
    assert pipeline.run(60).level == 1


def test_when_the_store_gets_fast_the_level_falls() -> None:
    pipeline = Pipeline(source=FAST, compress=4e8, store=3e7)
    level = pipeline.run(60)
    assert level.level > 1
    window = 1.0
    for _ in range(6):
        pipeline.now += window
        pipeline.cpu += 2 * window
        level.note(1 << 30, 0, 2 * window)
    assert level.level == 1
