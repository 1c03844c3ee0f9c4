"""Real receivers of notices: an HTTP server that takes JSON, and one that never answers."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hotspare.policy.occurrence import Kind, Occurrence


def seen(subject: str = "web", state: str = "broken", kind: Kind = "run-failed", **more: Any) -> Occurrence:
    return Occurrence(
        kind=kind,
        state=state,  # type: ignore[arg-type]
        subject=subject,
        title=f"The backup of {subject} failed",
        at=datetime(2026, 11, 23, 2, 15, tzinfo=UTC),
        machine=subject,
        **more,
    )


@dataclass
class HttpReceiver:
    """What it got, and what it answers."""

    port: int
    status: int = 200
    got: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"json://user:hush-hush@127.0.0.1:{self.port}/hook/s3cr3t-token"

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.got]


@contextmanager
def http_receiver() -> Iterator[HttpReceiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            message = json.loads(self.rfile.read(length))
            if receiver.status == 200:
                receiver.got.append(message)
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = HttpReceiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def silent_receiver() -> Iterator[str]:
    """Give the URL of one that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"json://127.0.0.1:{listening.getsockname()[1]}/?rto=30&cto=30"
