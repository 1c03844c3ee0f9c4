"""The page with the results of ``python -m benchmarks.replication``."""

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.replication_flushes import Felt

TARGET = 1.5
"""So many times as long may a flush take, and a large file, as without replication."""


def write_page(
    page: Path,
    command: str,
    felt: Mapping[str, Sequence[Felt]],
    without: str,
    paused: Sequence[float],
) -> None:
    """Write it."""
    rows = [_row(name, felt[name], felt[without], is_base=name == without) for name in felt]
    content = f"""# Replication, measured

Made by `{command}` on a host with {os.cpu_count()} cores, under software emulation (no KVM).
Both "hosts" are on that one host: the network is a pair of virtual cards, and source and standby share
processor and disk. So a mirror's second write competes with the first, which between two real hosts it does
not; what a real network adds is missing instead.

In each round all manners have their turn, one right after the other. A ratio is that of a manner to
"{without}" in the same round; given is the median of {len(felt[without])} rounds, with the lowest and the
highest in brackets.

## What the guest feels of synchronous replication

A program in the guest overwrites blocks of 4 KiB, each followed by `fdatasync`; then a file of 64 MiB is
written over and flushed.

| | flush, median | ratio | flush, p99 | large file | ratio of times |
| --- | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

Target: at most {TARGET} times, with TLS, for both. {_verdict(felt, without)}

When mirroring began, the guest stood still for {_milliseconds(paused)}
(median of {len(paused)} times{f", at most {max(paused) * 1000:.0f} ms" if paused else ""}).
"""
    page.write_text(content, encoding="utf-8")


def _row(name: str, felt: Sequence[Felt], base: Sequence[Felt], *, is_base: bool) -> str:
    flush = f"{statistics.median(one.median for one in felt) * 1000:.2f} ms"
    p99 = f"{statistics.median(one.p99 for one in felt) * 1000:.1f} ms"
    large = f"{statistics.median(one.throughput for one in felt) / (1 << 20):.0f} MiB/s"
    if is_base:
        return f"| {name} | {flush} | 1 | {p99} | {large} | 1 |"
    ratios = (
        _ratios(felt, base, lambda one: one.median),
        _ratios(felt, base, lambda one: 1 / one.throughput),
    )
    return f"| {name} | {flush} | {_spread(ratios[0])} | {p99} | {large} | {_spread(ratios[1])} |"


def _ratios(felt: Sequence[Felt], base: Sequence[Felt], value: Callable[[Felt], float]) -> list[float]:
    return [value(one) / value(before) for one, before in zip(felt, base, strict=True)]


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _verdict(felt: Mapping[str, Sequence[Felt]], without: str) -> str:
    (tls,) = (felt[name] for name in felt if name.endswith("with TLS"))
    flush = statistics.median(_ratios(tls, felt[without], lambda one: one.median))
    large = statistics.median(_ratios(tls, felt[without], lambda one: 1 / one.throughput))
    said = [
        f"{'Met' if ratio <= TARGET else 'Missed'} for {what} ({ratio:.2f})"
        for what, ratio in (("flushes", flush), ("the large file", large))
    ]
    return "; ".join(said) + "."


def _milliseconds(paused: Sequence[float]) -> str:
    return f"{statistics.median(paused) * 1000:.0f} ms" if paused else "no time"
