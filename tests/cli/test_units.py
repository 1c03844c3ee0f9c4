"""The units of systemd that we ship, by systemd's own checkers."""

import re
import subprocess
from pathlib import Path

import pytest

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
UNITS = sorted(path.name for path in PACKAGING.glob("hotspare*.*"))
EXPOSURE_MAX = 5.0
"""What "systemd-analyze security" gives a unit that runs as root and reads disks; 10 is the worst."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of the units, with a program that is there in place of the installed one."""
    folder = tmp_path_factory.mktemp("units")
    for name in UNITS:
        text = (PACKAGING / name).read_text()
        (folder / name).write_text(text.replace("/usr/bin/hotspare", "/usr/bin/env"))
    return folder


@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_every_line(installed: Path, name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", installed / name],
        check=False,
        capture_output=True,
        text=True,
    )
    ours = [line for line in done.stderr.splitlines() if "hotspare" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@pytest.mark.parametrize("name", [name for name in UNITS if name.endswith(".service")])
def test_services_are_shut_off_from_what_they_do_not_need(installed: Path, name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", installed / name],
        check=False,
        capture_output=True,
        text=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE_MAX
