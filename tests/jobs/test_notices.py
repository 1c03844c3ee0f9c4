"""The real server tells people of the runs that fail, without waiting for whoever is told."""

import json
from pathlib import Path

from hotspare.units import MIB
from tests.cli.program import Program
from tests.jobs.daemon import site, wait_for
from tests.notices.receivers import http_receiver, silent_receiver


def test_the_server_sends_what_its_runs_have_to_tell(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with http_receiver() as http, silent_receiver() as silent, site(Program(tmp_path)) as served:
        served.image("web", b"a" * MIB)
        served.image("db", b"b" * MIB)
        served.policy(
            "notices",
            "slow:\n  url_variable: SLOW\n  match:\n    severity: info\n"
            "oncall:\n  url_variable: ONCALL\n  match:\n    events: [run-ok, run-failed]\n",
        )
        served.policy("nightly", "")
        server = served.start(HOTSPARE_LOG_FORM="json", ONCALL=http.url, SLOW=silent)
        server.wait_ready()
        served.ask("nightly", "web")
        served.job(machine="web", state="ok")
        wait_for(lambda: len(http.got) == 1, served.describe)
        # The slow one is still being waited for: by nobody who backs up, and by nobody else's notices.
        served.ask("nightly", "db")
        served.job(machine="db", state="ok")
        wait_for(lambda: len(http.got) == 2, served.describe)
        assert server.stop() == 0
        assert http.titles[0].endswith("INFO: web was backed up by nightly")
        assert (tmp_path / "state/server.heartbeat").exists()
        entries = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
        ended = [one for one in entries if one["message"] == "backup of web: ok"]
        assert [(one["machine"], one["policy"], one["level"]) for one in ended] == [
            ("web", "nightly", "info")
        ]
        assert ended[0]["run"].isdigit()
