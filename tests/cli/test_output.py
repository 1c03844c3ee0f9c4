"""Tables, times and texts, as people and programs read them."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.cli.output import document, print_document, print_table, print_text, printable, utc_time


def test_columns_are_aligned_and_lines_not_padded(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        ("NAME", "SIZE", "NOTE"), [("vda", "1.0 GiB", ""), ("a-long-one", "2 B", "x")], right=("SIZE",)
    )
    assert capsys.readouterr().out.splitlines() == [
        "NAME           SIZE  NOTE",
        "vda         1.0 GiB",
        "a-long-one      2 B  x",
    ]


def test_a_wide_table_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B"), [("x" * 300, "end")])
    assert capsys.readouterr().out.splitlines()[1].endswith("x  end")


def test_times_for_programs_are_utc_whatever_the_zone() -> None:
    moment = datetime(2026, 11, 23, 3, 15, tzinfo=timezone(timedelta(hours=1)))
    assert utc_time(moment) == "2026-11-23T02:15:00.000Z"
    assert utc_time(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000Z"


def test_a_document_has_type_and_version_first() -> None:
    assert list(document("points", points=[])) == ["type", "v", "points"]


def test_escapes_in_names_never_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_text("web\x1b]0;owned\x07\x9b31m")
    assert (
        capsys.readouterr().out
        == "web\N{REPLACEMENT CHARACTER}]0;owned" + 2 * "\N{REPLACEMENT CHARACTER}" + "31m\n"
    )


def test_a_letter_that_the_locale_lacks_is_no_mistake() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from hotspare.cli.output import print_text; print_text('w\u00e9b\u4e16')"],
        env={"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"w\xe9b?\n")


def test_a_file_name_that_is_no_text_is_still_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_document(document("points", name=b"we\xff".decode("utf-8", "surrogateescape")))
    assert json.loads(capsys.readouterr().out)["name"] == "we\udcff"


@given(st.text())
def test_printable_keeps_length_and_lines_and_drops_controls(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert shown.count("\n") == text.count("\n")
    assert all(char == "\n" or char.isprintable() for char in shown)


def test_a_reader_that_leaves_does_not_fail_the_command() -> None:
    code = "from hotspare.cli.output import print_text\nfor _ in range(100000): print_text('x' * 100)\n"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 0
