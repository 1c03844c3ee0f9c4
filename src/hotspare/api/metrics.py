"""What Prometheus is told: instants rather than ages, and states as sets of which one is 1.

Names and units follow Prometheus's conventions; docs/monitoring.md lists them all.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

from hotspare import __version__
from hotspare.api.guard import Server
from hotspare.catalog.catalog import Catalog
from hotspare.catalog.rows import RunRow
from hotspare.catalog.watch_report import read_report
from hotspare.documents.machine import ListedMachine
from hotspare.errors import HotspareError
from hotspare.jobs.census import take_census
from hotspare.jobs.heartbeat import last_beat
from hotspare.notices.outbox import FILE_NAME as OUTBOX
from hotspare.notices.outbox import NOTICE_STATES, Outbox
from hotspare.platforms.registry import plain_uri
from hotspare.policy.policy import Policy
from hotspare.policy.promise import RPO_STATES, rpo_promise
from hotspare.storage.registry import plain_url

_STATES = ("ok", "failed", "never-backed-up", "gone")
_ACTION_STATES = ("waiting", "running", "ok", "failed", "cancelled")
_APPROVAL_STATES = ("waiting", "approved", "rejected", "expired")
_CHECKS = ("check", "verify")
_MACHINE = ["platform", "machine", "machine_id"]


class ServerCollector(Collector):
    """Asks the server anew for each scrape. What cannot be asked is left out, and the rest is told."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        """Give all metrics."""
        yield InfoMetricFamily("hotspare", "The server.", value={"version": __version__})
        parts = {
            "machines": self._of_machines,
            "policies": self._of_policies,
            "repositories": self._of_repositories,
            "jobs": self._of_jobs,
            "access": self._of_access,
            "notices": self._of_notices,
            "watchdog": self._of_watchdog,
        }
        errors = GaugeMetricFamily(
            "hotspare_metrics_incomplete", "Whether this part could not be told.", labels=["part"]
        )
        for name, part in parts.items():
            try:
                yield from list(part())
            except (HotspareError, OSError):
                failed = 1.0
            else:
                failed = 0.0
            errors.add_metric([name], failed)
        yield errors

    def _of_machines(self) -> Iterator[Metric]:
        success = _gauge(
            "machine_last_success_timestamp_seconds", "End of the newest restore point.", _MACHINE
        )
        state = StateSetMetricFamily("hotspare_machine_state", "Whether it is protected.", labels=_MACHINE)
        took = _gauge("machine_last_run_duration_seconds", "Length of the last backup.", _MACHINE)
        amount = _gauge("machine_last_run_bytes", "Read and stored by the last backup.", [*_MACHINE, "kind"])
        tried = _gauge(
            "machine_last_restore_test_timestamp_seconds", "When a point was last tried.", _MACHINE
        )
        passed = _gauge("machine_last_restore_test_passed", "Whether that went well.", _MACHINE)
        up = _gauge("platform_up", "Whether the platform answers.", ["platform"])
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
            if line.test and line.test.boot_at:
                tried.add_metric(values, line.test.boot_at.timestamp())
                passed.add_metric(values, 1.0 if line.test.boot_passed else 0.0)
        yield from (success, state, took, amount, tried, passed, up)

    def _of_policies(self) -> Iterator[Metric]:
        labels = [*_MACHINE, "policy"]
        promised = _gauge("policy_rpo_seconds", "Oldest that a restore point may become.", ["policy"])
        state = StateSetMetricFamily(
            "hotspare_machine_rpo_state", "Whether the RPO is kept, by the catalog.", labels=labels
        )
        until = _gauge("machine_rpo_deadline_timestamp_seconds", "When the RPO breaks, or broke.", labels)
        files = self._server.estate.policies()
        for name, policy in files.all().items():
            if policy.rpo_seconds is None:
                continue
            promised.add_metric([name], policy.rpo_seconds)
            changed_at = files.changed_at(name)
            for uri, line, newest in self._selected(policy) if policy.enabled else ():
                promise = rpo_promise(policy, newest, changed_at, datetime.now(UTC))
                values = [uri, line.name, line.id, name]
                state.add_metric(values, {one: one == promise.state for one in RPO_STATES})
                until.add_metric(values, promise.until.timestamp())
        yield from (promised, state, until)

    def _selected(self, policy: Policy) -> Iterator[tuple[str, ListedMachine, datetime | None]]:
        """Give who is selected, each with the end of its newest point in the policy's own repository."""
        estate = self._server.estate
        url = plain_url(policy.repository or estate.settings.repository or "")
        uris = {plain_uri(uri) for uri in policy.select.platforms or (estate.settings.platform,)}
        points = {uri: estate.ask(partial(_newest_points, uri, url)) for uri in uris}
        for uri, line in estate.inventory().machines:
            if line.machine is None or uri not in uris:
                continue
            if policy.select.obstacle(line.name, line.machine.marks.tags) is None:
                yield uri, line, points[uri].get(line.id)

    def _of_repositories(self) -> Iterator[Metric]:
        labels = ["repository"]
        free = _gauge("repository_free_bytes", "Free space where it lies, if that is known.", labels)
        size = _gauge("repository_size_bytes", "All space where it lies, if that is known.", labels)
        kinds = ["repository", "kind"]
        checked = _gauge("repository_last_check_timestamp_seconds", "End of the last check.", kinds)
        whole = _gauge("repository_last_check_passed", "Whether it found nothing wrong.", kinds)
        for url in map(plain_url, self._server.estate.repositories().values()):
            space = self._server.estate.spaces.of(url)
            if space is not None:
                free.add_metric([url], space.free)
                size.add_metric([url], space.total)
            for kind in _CHECKS:
                run = self._server.estate.ask(partial(_last_ended, url, kind))
                if run is not None and run.finished_at is not None:
                    checked.add_metric([url, kind], run.finished_at.timestamp())
                    whole.add_metric([url, kind], 1.0 if run.outcome == "ok" else 0.0)
        yield from (free, size, checked, whole)

    def _of_jobs(self) -> Iterator[Metric]:
        actions = _gauge("actions", "Actions since the start.", ["state"])
        states: list[str] = [action.state for action in self._server.actions.all()]
        for state in _ACTION_STATES:
            actions.add_metric([state], states.count(state))
        yield actions
        census = take_census(self._server.estate.settings.job_database)
        if census is None:
            return
        jobs = _gauge("jobs", "Jobs of the server that have not ended.", ["state"])
        for name, count in census.jobs.items():
            jobs.add_metric([name], count)
        alive = _gauge("movers_alive", "Processes that carry out runs and were not given up.", [])
        alive.add_metric([], census.movers)
        yield from (jobs, alive)

    def _of_access(self) -> Iterator[Metric]:
        access = self._server.access
        newest = access.audit.newest(1)
        entries = CounterMetricFamily("hotspare_audit_entries", "Entries of the record of what was done.")
        entries.add_metric([], newest[0].number if newest else 0)
        approvals = _gauge("approvals", "What a second person is asked for.", ["state"])
        states: list[str] = [one.state for one in access.approvals.all()]
        for state in _APPROVAL_STATES:
            approvals.add_metric([state], states.count(state))
        yield from (entries, approvals)

    def _of_notices(self) -> Iterator[Metric]:
        folder = self._server.estate.settings.state_folder
        notices = _gauge("notices", "Notices of the last 90 days.", ["state"])
        if (folder / OUTBOX).exists():
            with Outbox.open(folder, lambda _text: None) as outbox:
                counts = outbox.counts()
            for state in NOTICE_STATES:
                notices.add_metric([state], counts[state])
        yield notices

    def _of_watchdog(self) -> Iterator[Metric]:
        folder = self._server.estate.settings.state_folder
        beat = _gauge("server_heartbeat_timestamp_seconds", "When the scheduler last looked.", [])
        if (at := last_beat(folder)) is not None:
            beat.add_metric([], at.timestamp())
        yield beat
        report = read_report(folder)
        looked = _gauge("watchdog_last_look_timestamp_seconds", "When the watchdog last looked.", [])
        if report:
            looked.add_metric([], datetime.fromisoformat(report["at"]).timestamp())
        machines = _gauge("watchdog_machines", "Machines by RPO, by the repositories themselves.", ["state"])
        unknown = _gauge("watchdog_unknown", "What did not answer the watchdog.", [])
        unprotected = _gauge("watchdog_unprotected_machines", "Machines that no policy selects.", [])
        if report:
            states = [one.get("state") for one in report.get("machines", [])]
            for state in RPO_STATES:
                machines.add_metric([state], states.count(state))
            unknown.add_metric([], len(report.get("unknown", [])))
            unprotected.add_metric([], len(report.get("unprotected", [])))
        yield from (looked, machines, unknown, unprotected)


def _gauge(name: str, words: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"hotspare_{name}", words, labels=labels)


def _newest_points(platform: str, url: str, catalog: Catalog) -> dict[str, datetime]:
    return {row.machine_id: row.finished_at for row in catalog.last_points(platform, url)}


def _last_ended(url: str, kind: str, catalog: Catalog) -> RunRow | None:
    return catalog.last_ended(url, kind)
