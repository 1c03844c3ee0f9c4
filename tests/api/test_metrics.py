"""The metrics by Prometheus's own checker, and dashboard and alert rules against them."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from hotspare.api import metrics
from hotspare.cli.options import Options
from hotspare.cli.session import Session
from hotspare.errors import HotspareError
from hotspare.repository.tested import BootRecord, put_boot
from lab.prometheus import prometheus, promtool
from tests.api.world import World, made_program, make_machines, served
from tests.cli.program import Program
from tests.jobs.daemon import site, wait_for

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"
NAME = re.compile(r"\bhotspare_\w+")


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give a server with everything that there are metrics of."""
    program = made_program(tmp_path_factory.mktemp("scraped"))
    make_machines(program.folder)
    program.expect("backup", "web")
    # By a calendar: by its RPO alone it would be due at once, and give another point at some moment.
    far = datetime.now(UTC) + timedelta(days=180)
    program.expect(
        "policy", "add", "nightly", "--rpo", "26h", "--include", "web", "--when", f"*-{far:%m-%d} 02:00"
    )
    program.expect("repo", "check")
    (program.folder / "policies/notices.yaml").write_text("oncall:\n  url_variable: ONCALL\n")
    assert program.run("watchdog", "--once", "--space", "0").status == 38  # "guest" has no policy
    note_trial(program)
    with site(program, make=False) as there:
        there.start().wait_ready()
        wait_for((program.folder / "state/server.heartbeat").exists, there.describe)
        with served(program) as world:
            yield world


def note_trial(program: Program) -> None:
    """Keep with the restore point that it was tried."""
    at = datetime(2026, 11, 23, 2, 15, tzinfo=UTC)
    record = BootRecord(at=at, passed=True, life="agent", life_seconds=1.0, checks=())
    with Session(Options(config=program.folder / "hotspare.toml")) as session:
        repository = session.repository()
        (point,) = repository.points()
        put_boot(repository.backend, repository.keyring, point.id, record, None)
    program.expect("point", "list")


def scrape(world: World) -> str:
    answer = world.client("viewer").get("/metrics")
    assert answer.status_code == 200
    return answer.text


def samples(world: World, name: str) -> list[tuple[dict[str, str], float]]:
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(scrape(world))
        for sample in family.samples
        if sample.name == name
    ]


def names_of(text: str) -> set[str]:
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def test_they_tell_what_is_so(scraped: World) -> None:
    states = samples(scraped, "hotspare_machine_rpo_state")
    assert [(labels["machine"], labels["policy"]) for labels, value in states if value == 1] == [
        ("web", "nightly")
    ]
    assert {labels["hotspare_machine_rpo_state"]: value for labels, value in states} == {
        "met": 1,
        "broken": 0,
        "pending": 0,
        "unknown": 0,
    }
    (deadline,) = samples(scraped, "hotspare_machine_rpo_deadline_timestamp_seconds")
    (success,) = (
        value
        for labels, value in samples(scraped, "hotspare_machine_last_success_timestamp_seconds")
        if labels["machine"] == "web"
    )
    assert deadline[1] == pytest.approx(success + 26 * 3600, abs=1)
    checks = samples(scraped, "hotspare_repository_last_check_passed")
    url = f"file://{scraped.program.folder}/repository"
    assert checks == [({"repository": url, "kind": "check"}, 1)]
    (free,), (size,) = (samples(scraped, f"hotspare_repository_{name}_bytes") for name in ("free", "size"))
    assert 0 < free[1] < size[1]
    notices = {labels["state"] for labels, _ in samples(scraped, "hotspare_notices")}
    assert notices == {"waiting", "sent", "given-up"}
    assert samples(scraped, "hotspare_watchdog_unprotected_machines") == [({}, 1)]
    assert samples(scraped, "hotspare_watchdog_unknown") == [({}, 0)]
    assert samples(scraped, "hotspare_audit_entries_total")[0][1] >= 0
    assert {labels["state"] for labels, _ in samples(scraped, "hotspare_approvals")} >= {"waiting"}
    assert samples(scraped, "hotspare_movers_alive") == [({}, 1)]
    jobs = {labels["state"]: value for labels, value in samples(scraped, "hotspare_jobs")}
    assert jobs == {"waiting": 0, "queued": 0, "running": 0}
    tried = samples(scraped, "hotspare_machine_last_restore_test_timestamp_seconds")
    assert [value for _, value in tried] == [datetime(2026, 11, 23, 2, 15, tzinfo=UTC).timestamp()]
    assert all(value == 0 for _, value in samples(scraped, "hotspare_metrics_incomplete"))


def test_what_cannot_be_told_does_not_hide_the_rest(scraped: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_url: str) -> None:
        raise HotspareError("the job database is gone")

    monkeypatch.setattr(metrics, "take_census", fail)
    incomplete = {labels["part"]: value for labels, value in samples(scraped, "hotspare_metrics_incomplete")}
    assert {part for part, value in incomplete.items() if value} == {"jobs"}
    assert samples(scraped, "hotspare_machine_state")


def test_promtool_finds_no_fault_in_the_names(scraped: World) -> None:
    done = subprocess.run(
        [promtool(), "check", "metrics"], input=scrape(scraped), check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_promtool_finds_the_alert_rules_good_and_they_fire() -> None:
    folder = PACKAGING / "prometheus"
    for words in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]):
        done = subprocess.run([promtool(), *words], cwd=folder, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    rules = yaml.safe_load((PACKAGING / "prometheus/alerts.yaml").read_text())
    tests = yaml.safe_load((PACKAGING / "prometheus/alerts.test.yaml").read_text())
    there = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    fired = {
        each["alertname"] for test in tests["tests"] for each in test["alert_rule_test"] if each["exp_alerts"]
    }
    assert there - fired == set()


@contextmanager
def scraping(world: World, folder: Path) -> Iterator[str]:
    """Have a Prometheus with our alert rules scrape the server as docs/api.md tells; gives its URL."""
    found = re.search(r"Serving at https://(\S+)\.", (world.program.folder / "daemon-0.log").read_text())
    assert found
    (folder / "token").write_text(world.login("viewer"))
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(PACKAGING / "prometheus/alerts.yaml")],
        "scrape_configs": [
            {
                "job_name": "hotspare",
                "scheme": "https",
                "authorization": {"credentials_file": str(folder / "token")},
                "tls_config": {"ca_file": str(world.program.folder / "state/server/certificate.pem")},
                "static_configs": [{"targets": [found[1]]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        str(prometheus()),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        yield f"http://{address}/api/v1"
    finally:
        process.terminate()
        process.wait(60)


def test_a_real_prometheus_answers_every_panel_and_understands_every_rule(
    scraped: World, tmp_path: Path
) -> None:
    with scraping(scraped, tmp_path) as url, httpx.Client(timeout=60) as client:

        def values(expression: str) -> list[Any]:
            answer = client.get(f"{url}/query", params={"query": expression}).raise_for_status()
            return list(answer.json()["data"]["result"])

        def alerts() -> dict[str, str]:
            groups = client.get(f"{url}/rules").raise_for_status().json()["data"]["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            assert {rule["health"] for rule in rules} <= {"ok", "unknown"}, rules
            return {rule["name"]: rule["state"] for rule in rules}

        def has_scraped() -> bool:
            with suppress(httpx.TransportError, httpx.HTTPStatusError):  # it begins to listen, then to answer
                return bool(values("hotspare_info"))
            return False

        wait_for(has_scraped, (tmp_path / "log").read_text)
        dashboard = json.loads((PACKAGING / "grafana/hotspare.json").read_text())
        asked = {
            panel["title"]: target["expr"] for panel in dashboard["panels"] for target in panel["targets"]
        }
        assert [title for title, expression in asked.items() if not values(expression)] == []
        # One machine has no policy; the rule waits for a day before it tells anybody.
        wait_for(lambda: alerts()["HotspareMachineUnprotected"] == "pending", lambda: str(alerts()))
        assert alerts()["HotspareRpoBroken"] == "inactive"


def expressions() -> Iterator[tuple[str, str]]:
    rules = yaml.safe_load((PACKAGING / "prometheus/alerts.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    dashboard = json.loads((PACKAGING / "grafana/hotspare.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_every_metric_that_is_used_and_documented_is_there(scraped: World) -> None:
    known = names_of(scrape(scraped))
    used = {(where, name) for where, expression in expressions() for name in NAME.findall(expression)}
    assert {(where, name) for where, name in used if name not in known} == set()
    documented = set(re.findall(r"^\| `(hotspare_\w+)", DOCUMENT.read_text(), re.MULTILINE))
    assert documented == known
