"""The route of what happens: Server-Sent Events (https://html.spec.whatwg.org/#server-sent-events)."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from hotspare.access.tokens import Caller
from hotspare.api.guard import CallerHere, ServerHere, by_bearer
from hotspare.api.watching import Watcher, Watching, audience_of
from hotspare.errors import HotspareError

_HEARTBEAT_SECONDS = 15.0
_IDENTIFIED_SECONDS = 60.0
"""Who was sent away, or may less now, watches for no longer than this."""
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Seconds = Annotated[
    float | None, Query(ge=0, le=86400, description="End after so many; without it, when the server ends.")
]


async def watch_events(
    request: Request, server: ServerHere, caller: CallerHere, seconds: Seconds = None
) -> Response:
    """Tell what happens as Server-Sent Events: first how things stand, then what changes.

    `job` and `action` are the documents of these; those that ended in the last five minutes are told as
    well. `waiting` says how many jobs wait. Who reads too slowly is cut off, and may come again.
    """
    return event_stream(server.watching, caller, lambda: by_bearer(server, request), seconds)


def event_stream(
    watching: Watching, caller: Caller, identified: Callable[[], Caller], seconds: float | None = None
) -> Response:
    """Make the answer that tells somebody what happens.

    Args:
        watching: all who watch.
        caller: who it is told to.
        identified: tells who that is now; raises when nobody any more.
        seconds: for how long; None for ever.
    """
    chunks = _chunks(watching, caller, identified, seconds)
    return StreamingResponse(chunks, media_type="text/event-stream", headers=_HEADERS)


async def _chunks(
    watching: Watching, caller: Caller, identified: Callable[[], Caller], seconds: float | None
) -> AsyncIterator[bytes]:
    watcher = Watcher()
    began = looked = time.monotonic()
    try:
        yield await run_in_threadpool(watching.join, watcher, caller)
        while seconds is None or time.monotonic() - began < seconds:
            left = _HEARTBEAT_SECONDS if seconds is None else began + seconds - time.monotonic()
            try:
                async with asyncio.timeout(min(left, _HEARTBEAT_SECONDS)):
                    chunk = await watcher.next()
            except TimeoutError:
                chunk = b": nothing new\n\n"
            if chunk is None:
                return
            yield chunk
            if time.monotonic() - looked > _IDENTIFIED_SECONDS:
                if not await run_in_threadpool(_is_the_same, caller, identified):
                    return
                looked = time.monotonic()
    finally:
        watching.leave(watcher)


def _is_the_same(caller: Caller, identified: Callable[[], Caller]) -> bool:
    try:
        return audience_of(identified()) == audience_of(caller)
    except HotspareError:
        return False
