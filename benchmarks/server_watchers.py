"""Many who watch what happens on a server, each over a connection of its own, in one process."""

import asyncio
import time
from dataclasses import dataclass, field

from benchmarks.server_estate import Server


@dataclass
class Crowd:
    """What watchers were told."""

    events: list[int] = field(default_factory=list)
    """Of each watcher, in the time that was measured."""
    server_cpu: float = 0.0
    """Share of a core that the server took meanwhile."""


async def watch_together(server: Server, token: str, count: int, seconds: float) -> Crowd:
    """Have many watch, and say what that cost the server from when all of them were there."""
    told = [0] * count
    tasks = []
    for number in range(count):
        reader, writer = await asyncio.open_connection(*server.address, ssl=server.trust)
        head = f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        writer.write(head.encode())
        tasks.append(asyncio.create_task(_read(reader, writer, told, number)))
    await asyncio.sleep(5)  # all have their beginning
    before, began, cpu = list(told), time.monotonic(), server.cpu
    await asyncio.sleep(seconds)
    crowd = Crowd([now - then for now, then in zip(told, before, strict=True)])
    crowd.server_cpu = (server.cpu - cpu) / (time.monotonic() - began)
    assert not any(task.done() for task in tasks), "a watcher was cut off"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return crowd


async def _read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: list[int], number: int
) -> None:
    try:
        while line := await reader.readline():
            told[number] += line.startswith(b"event:")
    finally:
        writer.close()
