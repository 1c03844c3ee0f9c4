"""The table of accidents in docs/platforms/libvirt.md names tests that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def table_of_accidents() -> list[tuple[str, str, str]]:
    """Give accident, what happens, and the test's name, row by row."""
    text = (ROOT / "docs/platforms/libvirt.md").read_text(encoding="utf-8")
    section = text.partition("## Accidents")[2].partition("\n## ")[0]
    return re.findall(r"^\| (.+?) \| (.+?) \| `(\w+)` \|$", section, re.MULTILINE)


def test_every_accident_has_a_test_of_its_own() -> None:
    tests = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^ *def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = [name for _, _, name in table_of_accidents()]
    assert len(named) >= 30
    assert len(named) == len(set(named))
    assert set(named) <= tests


def test_every_accident_that_is_tested_is_in_the_table() -> None:
    named = {name for _, _, name in table_of_accidents()}
    tested = {
        name
        for path in Path(__file__).parent.glob("test_accidents_*.py")
        for name in re.findall(r"^ *def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert tested - named == set()
