"""Routes for those who watch the server: the record of what was done, health, and metrics for Prometheus."""

from collections.abc import Callable

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from hotspare import __version__
from hotspare.api.answers import answer
from hotspare.api.guard import ServerHere
from hotspare.api.metrics import ServerCollector
from hotspare.api.paging import After, Limit, cursor_of, key_of
from hotspare.errors import HotspareError, UsageError


def list_audit(server: ServerHere, limit: Limit = 100, after: After = None) -> Response:
    """List what was done, and what was refused, the newest first."""
    before = None
    if after is not None:
        (text,) = key_of(after, 1)
        if not text.isdigit() or len(text) > 18:
            raise UsageError("What 'after' says is no place in this list", meaning="Nothing was done")
        before = int(text)
    entries = server.access.audit.newest(limit, before)
    following = cursor_of((str(entries[-1].number),)) if entries and entries[-1].number > 1 else None
    return answer("audit", entries=[msgspec.to_builtins(one) for one in entries], next=following)


def verify_audit(server: ServerHere) -> Response:
    """Follow the chain of hashes from the first entry to the last; give the last, to be noted elsewhere."""
    number, last = server.access.audit.verify()
    return answer("audit-verified", number=number, hash=last)


def show_health() -> Response:
    """Say that the server answers."""
    return answer("health", status="ok")


def show_readiness(server: ServerHere) -> Response:
    """Say whether the server can do its work: 200 when it can, 503 when it cannot."""
    checks: dict[str, Callable[[], object]] = {
        "catalog": lambda: server.estate.ask(lambda catalog: catalog.runs(1)),
        "users": lambda: server.access.database.rows("SELECT 1"),
        "policies": lambda: server.estate.policies().all(),
    }
    parts = {}
    for name, look in checks.items():
        try:
            look()
        except HotspareError as error:
            parts[name] = error.code  # what it says may name paths, and anybody may ask this
        else:
            parts[name] = "ok"
    ready = set(parts.values()) == {"ok"}
    return answer(
        "readiness", http_status=200 if ready else 503, ready=ready, parts=parts, version=__version__
    )


def show_metrics(server: ServerHere) -> Response:
    """Give the metrics: instants rather than ages, and states as sets of which one is 1."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServerCollector(server))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
