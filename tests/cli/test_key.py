"""``hotspare key``, and opening a repository with each kind of key."""

import re
import stat
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import segno

from hotspare.cli.recovery_kit import RecoveryKit, kit_as_svg, kit_as_text
from hotspare.repository.keys.recovery import format_recovery_key, parse_recovery_key
from tests.cli.program import PASSPHRASE, Program

KEY = re.compile(r"HSRK1(?:\s+[0-9A-Z]{5}){14}")


@pytest.fixture
def made(program: Program) -> Program:
    program.expect("repo", "create")
    return program


def slots(program: Program, **variables: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = program.expect("key", "list", "-o", "json", **variables).document()[
        "slots"
    ]
    return found


def key_of(page: Path) -> str:
    match = KEY.search(re.sub(r"<[^>]*>", " ", page.read_text(encoding="utf-8")))
    assert match
    return " ".join(match[0].split())


def test_a_second_passphrase_opens_the_repository(made: Program) -> None:
    made.expect("key", "add", "--passphrase", HOTSPARE_NEW_PASSPHRASE="second")
    assert [slot["kind"] for slot in slots(made)] == ["passphrase", "passphrase"]
    made.expect("repo", "info", HOTSPARE_PASSPHRASE="second")
    made.expect("repo", "info")
    assert made.run("repo", "info", HOTSPARE_PASSPHRASE="third").status == 12


def test_a_key_file_is_made_and_opens_without_a_passphrase(made: Program) -> None:
    path = made.folder / "key"
    made.expect("key", "add", "--key-file", path)
    assert path.stat().st_size == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    made.expect("repo", "info", HOTSPARE_PASSPHRASE=None, HOTSPARE_KEY_FILE=str(path))
    again = made.run("key", "add", "--key-file", path)
    assert again.status == 26
    assert len(slots(made)) == 2


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_what_is_no_key_file_is_refused(made: Program, content: bytes) -> None:
    path = made.folder / "key"
    path.write_bytes(content)
    done = made.run("repo", "info", HOTSPARE_KEY_FILE=str(path))
    assert done.status == 2
    assert "does not have 32 bytes" in done.err
    assert made.run("repo", "info", HOTSPARE_KEY_FILE=str(made.folder / "none")).status == 2


def test_a_key_file_that_others_may_read_is_warned_of(made: Program) -> None:
    path = made.folder / "key"
    made.expect("key", "add", "--key-file", path)
    path.chmod(0o644)
    assert f"chmod 600 {path}" in made.expect("repo", "info", HOTSPARE_KEY_FILE=str(path)).err


def test_a_repository_can_be_made_with_a_key_file_alone(program: Program) -> None:
    path = program.folder / "key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    program.expect("repo", "create", HOTSPARE_PASSPHRASE=None, HOTSPARE_KEY_FILE=str(path))
    program.expect("repo", "info", HOTSPARE_PASSPHRASE=None, HOTSPARE_KEY_FILE=str(path))
    assert program.run("repo", "info").status == 12


@pytest.mark.parametrize("form", ["svg", "txt"])
def test_the_recovery_key_from_paper_opens_the_repository(program: Program, form: str) -> None:
    page = program.folder / f"kit.{form}"
    program.expect("repo", "create", "--recovery-kit", page)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    key = key_of(page)
    program.expect("repo", "info", HOTSPARE_PASSPHRASE=key)
    program.expect("repo", "info", HOTSPARE_PASSPHRASE=key.lower().replace(" ", ""))
    program.expect("key", "add", "--passphrase", HOTSPARE_PASSPHRASE=key, HOTSPARE_NEW_PASSPHRASE="fresh")
    program.expect("repo", "info", HOTSPARE_PASSPHRASE="fresh")


def test_the_recovery_key_is_typed_where_the_passphrase_is_asked_for(program: Program) -> None:
    page = program.folder / "kit.txt"
    program.expect("repo", "create", "--recovery-kit", page)
    key = key_of(page)
    status, screen = program.on_terminal(
        "repo", "info", answers=[("Passphrase of", key)], HOTSPARE_PASSPHRASE=None
    )
    assert (status, key[6:11] in screen) == (0, False)


def test_a_mistyped_recovery_key_is_told_where(program: Program) -> None:
    page = program.folder / "kit.txt"
    program.expect("repo", "create", "--recovery-kit", page)
    groups = key_of(page).split()
    groups[3] = groups[3][1] + groups[3][0] + groups[3][2:]
    if groups[3] == key_of(page).split()[3]:
        groups[3] = ("2" if groups[3][0] != "2" else "3") + groups[3][1:]
    done = program.run("repo", "info", HOTSPARE_PASSPHRASE=" ".join(groups))
    assert done.status == 2
    assert f"group 3 ({groups[3]})" in done.err


def test_the_recovery_key_of_another_repository_opens_nothing(made: Program) -> None:
    made.expect("key", "recovery-kit", made.folder / "kit.txt")
    other = format_recovery_key(bytes(range(32)))
    done = made.run("repo", "info", HOTSPARE_PASSPHRASE=other)
    assert done.status == 12
    assert "recovery key does not open" in done.err


def test_a_kit_never_overwrites_and_leaves_no_slot_when_it_fails(made: Program) -> None:
    page = made.folder / "kit.txt"
    page.write_text("precious")
    assert made.run("key", "recovery-kit", page).status == 26
    assert made.run("key", "recovery-kit", made.folder / "none" / "kit.txt").status == 2
    assert made.run("key", "recovery-kit", made.folder / "kit.doc").status == 2
    assert page.read_text() == "precious"
    assert len(slots(made)) == 1


def test_a_slot_is_removed_but_never_the_last_passphrase(made: Program) -> None:
    made.expect("key", "recovery-kit", made.folder / "kit.txt")
    (first,) = [str(slot["slot"]) for slot in slots(made) if slot["kind"] == "passphrase"]
    assert made.run("key", "remove", first).status == 2
    made.expect("key", "add", "--passphrase", HOTSPARE_NEW_PASSPHRASE="second")
    made.expect("key", "remove", first)
    assert made.run("repo", "info").status == 12
    made.expect("repo", "info", HOTSPARE_PASSPHRASE="second")


def test_the_passphrase_is_changed(made: Program) -> None:
    made.expect("key", "change-passphrase", HOTSPARE_NEW_PASSPHRASE="new")
    assert made.run("repo", "info").status == 12
    assert [slot["opened_with"] for slot in slots(made, HOTSPARE_PASSPHRASE="new")] == [True]
    path = made.folder / "key"
    made.expect("key", "add", "--key-file", path, HOTSPARE_PASSPHRASE="new")
    done = made.run("key", "change-passphrase", HOTSPARE_KEY_FILE=str(path), HOTSPARE_NEW_PASSPHRASE="newer")
    assert done.status == 2


def test_after_a_rotation_all_keys_open_what_was_and_what_comes(made: Program) -> None:
    path = made.folder / "key"
    made.expect("key", "add", "--key-file", path)
    said = made.expect("key", "rotate", "-o", "json").document()
    assert len(said["slots"]) == 2
    for variables in ({}, {"HOTSPARE_KEY_FILE": str(path)}):
        made.expect("repo", "info", **variables)


def test_a_slot_that_was_put_there_by_others_is_shown(made: Program) -> None:
    folder = made.repository / "keys"
    (path,) = folder.iterdir()
    path.with_name("00" * 8 + "-" + "00" * 4).write_bytes(path.read_bytes())
    assert sorted(bool(slot["trusted"]) for slot in slots(made)) == [False, True]
    assert "NOT TRUSTED" in made.expect("key", "list").out


def test_nothing_secret_is_printed(made: Program) -> None:
    said = made.expect("key", "recovery-kit", made.folder / "kit.txt")
    key = key_of(made.folder / "kit.txt").split()
    assert not any(group in said.out + said.err for group in key)
    assert PASSPHRASE not in made.expect("key", "list").out


def test_the_page_is_well_formed_and_holds_what_is_needed() -> None:
    kit = RecoveryKit("file:///srv/a<b>&'" + "x" * 90, "1076b0d7", "2026-11-23", "00ff", bytes(range(32)))
    root = ET.fromstring(kit_as_svg(kit))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for page in ("\n".join(texts), kit_as_text(kit)):
        match = KEY.search(page)
        assert match
        assert parse_recovery_key(match[0]) == kit.key
        assert kit.url in page
        assert kit.repository_id in page
    assert root.find("{http://www.w3.org/2000/svg}path") is not None


def test_the_letters_of_the_text_page_make_a_qr_code_with_the_key() -> None:
    """The modules that the page shows are those of the code, row by row."""

    kit = RecoveryKit("r", "id", "now", "00ff", bytes(range(32)))
    rows = [line[4:] for line in kit_as_text(kit).splitlines() if line.startswith("    ") and "█" in line]
    dark = {" ": (1, 1), "▄": (1, 0), "▀": (0, 1), "█": (0, 0)}
    seen = [[dark[letter][half] for letter in row] for row in rows for half in (0, 1)]
    code = segno.make_qr(format_recovery_key(kit.key), error="m")
    expected = [[1 if module else 0 for module in row] for row in code.matrix_iter(border=2)]
    assert seen[: len(expected)] == expected
