"""``hotspare backup MACHINE --every``: points by the clock on a real QEMU, until Ctrl-C."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.lab_program import program_for_libvirt
from tests.cli.program import Program
from tests.platforms.libvirt.bare_machine import MIB, BareMachine


@pytest.fixture
def machine(lab_host: None) -> Iterator[BareMachine]:
    with BareMachine("again") as made:
        yield made.start()


@pytest.mark.lab
def test_makes_points_until_it_is_interrupted_and_gets_over_a_failure(
    tmp_path: Path, machine: BareMachine
) -> None:
    with program_for_libvirt(tmp_path) as program:
        words = ("backup", machine.name, "--every", "5s", "--keep-last", "2", "--consistency", "crash")
        process = program.start(*words, "-o", "json")
        assert process.stdout is not None
        cycles = []
        for number in range(4):
            cycles.append(json.loads(process.stdout.readline()))
            machine.write(number * MIB, 4096, number + 1)
            if number == 1:
                # Something else has a job on the disk when the next cycle begins.
                machine.domain.backupBegin(
                    "<domainbackup mode='pull'><server transport='unix' "
                    f"socket='/var/tmp/{machine.name}.sock'/></domainbackup>",
                    None,
                )
            if number == 2:
                machine.domain.abortJob()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=90)

        assert process.returncode == 0, err
        assert out == ""
        assert "3 restore points were made" in err
        assert [cycle["type"] for cycle in cycles] == ["backup-cycle"] * 4
        assert [cycle["error"] is None for cycle in cycles] == [True, True, False, True]
        assert cycles[3]["removed"] == [cycles[0]["point"]["id"]]
        points = program.expect("point", "list", "-o", "json").document()["points"]
        assert [point["id"] for point in points] == [cycles[one]["point"]["id"] for one in (1, 3)]
        assert machine.checkpoints() == [f"{machine.checkpoints()[0][:17]}-{points[-1]['id']}"]


@pytest.mark.parametrize(
    "words",
    [
        ("web", "--every", "1s"),
        ("web", "db", "--every", "60s"),
        ("--all", "--every", "60s"),
        ("web", "--thin", "1m for 1h"),
        ("web", "--every", "60s", "--thin", "sometimes"),
        ("web", "--every", "60s", "--dry-run"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = Program(tmp_path).run("backup", *words)
    assert done.status == 2, done.err
