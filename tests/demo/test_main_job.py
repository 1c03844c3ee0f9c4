"""The demonstration is a promise of the README: it runs, and it proves what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab import connection
from lab.naming import PREFIX

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


def test_the_demonstration_loses_a_machine_and_gets_it_back(lab_host: None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo.main_job"], cwd=ROOT, check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"is\s+what\s+was\s+written", done.stdout)) == 2
    assert re.search(r"increment of 1\.0 GiB", done.stdout)
    assert not [one for one in connection().listAllDomains() if one.name().startswith(f"{PREFIX}demo")]
