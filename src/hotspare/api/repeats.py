"""Requests that are sent twice because the first answer was lost: done once, answered alike.

A client that sends ``Idempotency-Key`` gets the first answer again for a day. Answers that hold a secret are
not kept: their routes do not take part.
"""

import hashlib
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from hotspare.access.database import AccessDatabase
from hotspare.api.problems import MEDIA_TYPE, answer_of
from hotspare.errors import Conflict, HotspareError

HEADER = "Idempotency-Key"
_KEPT_SECONDS = 86400.0


class Repeats:
    """The answers that were given, in the database of users."""

    def __init__(self, database: AccessDatabase) -> None:
        self._database = database
        # What was being done when the server was stopped: nobody knows whether it was.
        self._interrupted = time.time()

    async def answered(
        self, request: Request, caller: str, handle: Callable[[Request], Coroutine[Any, Any, Response]]
    ) -> Response:
        """Answer a request, or give the answer that there was.

        Raises:
            Conflict: the same key was used for something else, or is being worked on.
        """
        given = request.headers.get(HEADER)
        if not given or request.method not in {"POST", "DELETE"}:
            return await handle(request)
        key = _hash(caller.encode(), given.encode())
        body = await request.body()
        said = _hash(request.method.encode(), str(request.url.path).encode(), body)
        known = await run_in_threadpool(self._begin, key, said)
        if known is not None:
            return known
        try:
            answer = await handle(request)
        except HotspareError as error:
            answer = answer_of(error)
            if answer.status_code >= 500:
                await run_in_threadpool(self._drop, key)
                raise
        except BaseException:
            await run_in_threadpool(self._drop, key)
            raise
        await run_in_threadpool(self._keep, key, answer)
        return answer

    def _begin(self, key: str, said: str) -> Response | None:
        now = time.time()
        with self._database.transaction():
            self._database.change("DELETE FROM answers WHERE at < ?", now - _KEPT_SECONDS)
            rows = self._database.rows("SELECT * FROM answers WHERE key = ?", key)
            if not rows:
                self._database.change("INSERT INTO answers VALUES (?, ?, NULL, NULL, ?)", key, said, now)
                return None
        row = rows[0]
        if row["request"] != said:
            raise Conflict(
                f"This {HEADER} was used for another request",
                meaning="Nothing was done",
                hint="Take a new key for each request",
            )
        if row["status"] is None:
            broken_off = row["at"] < self._interrupted
            raise Conflict(
                "The server was stopped while it did this"
                if broken_off
                else "This request is being worked on",
                meaning="Whether it was done is not known" if broken_off else "It is not done twice",
                hint="Look whether it was; then use a new key" if broken_off else "Ask again in a moment",
            )
        media_type = "application/json" if row["status"] < 400 else MEDIA_TYPE
        return Response(row["body"], row["status"], media_type=media_type)

    def _keep(self, key: str, answer: Response) -> None:
        statement = "UPDATE answers SET status = ?, body = ? WHERE key = ?"
        self._database.change(statement, answer.status_code, bytes(answer.body), key)

    def _drop(self, key: str) -> None:
        self._database.change("DELETE FROM answers WHERE key = ?", key)


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(json.dumps([part.hex() for part in parts]).encode()).hexdigest()
