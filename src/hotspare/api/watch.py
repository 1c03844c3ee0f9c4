"""Routes for those who watch the server: the record of what was done, health, and metrics for Prometheus."""

from collections.abc import Callable, Iterator

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric, StateSetMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.responses import Response

from hotspare import __version__
from hotspare.api.answers import answer
from hotspare.api.guard import Server, ServerHere
from hotspare.api.paging import After, Limit, cursor_of, key_of
from hotspare.errors import HotspareError, UsageError

_STATES = ("ok", "failed", "never-backed-up", "gone")
_ACTION_STATES = ("waiting", "running", "ok", "failed", "cancelled")


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
    registry.register(_Collector(server))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Collector(Collector):
    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("hotspare", "The server.", value={"version": __version__})
        yield from self._of_machines()
        yield from self._of_policies()
        actions = GaugeMetricFamily("hotspare_actions", "Actions since the start.", labels=["state"])
        states: list[str] = [action.state for action in self._server.actions.all()]
        for state in _ACTION_STATES:
            actions.add_metric([state], states.count(state))
        yield actions

    def _of_machines(self) -> Iterator[Metric]:
        labels = ["platform", "machine", "machine_id"]
        success = GaugeMetricFamily(
            "hotspare_machine_last_success_timestamp_seconds",
            "End of the newest restore point.",
            labels=labels,
        )
        state = StateSetMetricFamily("hotspare_machine_state", "Whether it is protected.", labels=labels)
        took = GaugeMetricFamily(
            "hotspare_machine_last_run_duration_seconds", "Length of the last backup.", labels=labels
        )
        amount = GaugeMetricFamily(
            "hotspare_machine_last_run_bytes",
            "Read and stored by the last backup.",
            labels=[*labels, "kind"],
        )
        up = GaugeMetricFamily("hotspare_platform_up", "Whether the platform answers.", labels=["platform"])
        inventory = self._server.estate.inventory()
        down = {uri for uri, _ in inventory.problems}
        for uri in self._server.estate.platforms():
            up.add_metric([uri], 0.0 if uri in down else 1.0)
        for uri, line in inventory.machines:
            values = [uri, line.name, line.id]
            if line.last:
                success.add_metric(values, line.last.finished_at.timestamp())
            state.add_metric(values, {one: one == line.protection for one in _STATES})
            if line.run and line.run.finished_at:
                took.add_metric(values, (line.run.finished_at - line.run.started_at).total_seconds())
                amount.add_metric([*values, "read"], line.run.bytes_read)
                amount.add_metric([*values, "stored"], line.run.bytes_stored)
        yield from (success, state, took, amount, up)

    def _of_policies(self) -> Iterator[Metric]:
        rpo = GaugeMetricFamily(
            "hotspare_policy_rpo_seconds", "Oldest that a restore point may become.", labels=["policy"]
        )
        for name, policy in self._server.estate.policies().all().items():
            if policy.rpo_seconds is not None:
                rpo.add_metric([name], policy.rpo_seconds)
        yield rpo
