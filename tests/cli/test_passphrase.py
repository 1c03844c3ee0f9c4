"""Where the passphrase comes from, and what is said when it cannot be had."""

from pathlib import Path

import pytest

from hotspare.cli.passphrase import existing_passphrase, new_passphrase
from hotspare.errors import ConfigError
from hotspare.settings import PassphraseSource
from tests.cli.program import PASSPHRASE, Program


def of_file(path: Path) -> PassphraseSource:
    return PassphraseSource("file", str(path), "HOTSPARE_PASSPHRASE_FILE")


def of_command(command: str) -> PassphraseSource:
    return PassphraseSource("command", command, "HOTSPARE_PASSPHRASE_COMMAND")


def secret(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "passphrase"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", ["secret", "secret\n", "secret\r\n"])
def test_one_line_end_is_no_part_of_it(tmp_path: Path, content: str) -> None:
    path = secret(tmp_path, content.encode())
    assert existing_passphrase(of_file(path), "r") == "secret"
    assert new_passphrase(of_command(f"cat {path}"), "r") == "secret"


def test_spaces_are_part_of_it(tmp_path: Path) -> None:
    assert existing_passphrase(of_file(secret(tmp_path, b" a b \n\n")), "r") == " a b \n"


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_may_read_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int, warned: bool
) -> None:
    path = secret(tmp_path, b"secret", mode)
    assert existing_passphrase(of_file(path), "r") == "secret"
    assert (f"chmod 600 {path}" in capsys.readouterr().err) is warned


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_file_without_a_passphrase_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match="passphrase"):
        existing_passphrase(of_file(secret(tmp_path, content)), "r")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.*HOTSPARE_PASSPHRASE_FILE"):
        existing_passphrase(of_file(tmp_path / "absent"), "r")


@pytest.mark.parametrize("command", ["false", "/no/such/program", "", "'unclosed", "true"])
def test_a_command_that_gives_none_is_refused(command: str) -> None:
    with pytest.raises(ConfigError, match="passphrase"):
        existing_passphrase(of_command(command), "r")


def test_a_command_is_not_given_to_a_shell() -> None:
    assert existing_passphrase(of_command("echo $HOME; id"), "r") == "$HOME; id"


def test_without_a_terminal_nobody_is_asked(program: Program) -> None:
    done = program.run("repo", "create", typed="a\na\n", HOTSPARE_PASSPHRASE=None)
    assert done.status == 2
    assert "HOTSPARE_PASSPHRASE_FILE" in done.err
    assert not program.repository.exists()


def test_a_new_one_is_typed_twice_and_not_shown(program: Program) -> None:
    answers = [("New passphrase", PASSPHRASE), ("The same again", PASSPHRASE)]
    status, screen = program.on_terminal("repo", "create", answers=answers, HOTSPARE_PASSPHRASE=None)
    assert status == 0
    assert PASSPHRASE not in screen
    assert "if it is lost, so is the data" in screen.replace("\r\n", " ")
    assert program.run("repo", "info").status == 0


def test_a_typing_error_makes_no_repository(program: Program) -> None:
    answers = [("New passphrase", "one"), ("The same again", "other")]
    status, screen = program.on_terminal("repo", "create", answers=answers, HOTSPARE_PASSPHRASE=None)
    assert status == 2
    assert "not the same both times" in screen
    assert not program.repository.exists()


def test_an_existing_one_is_asked_for_on_a_terminal(program: Program) -> None:
    program.expect("repo", "create")
    answers = [("Passphrase of", PASSPHRASE)]
    status, screen = program.on_terminal("repo", "info", answers=answers, HOTSPARE_PASSPHRASE=None)
    assert status == 0
    assert "Restore points" in screen


def test_nobody_is_asked_where_there_is_no_repository(program: Program) -> None:
    status, screen = program.on_terminal("repo", "info", HOTSPARE_PASSPHRASE=None)
    assert status == 10
    assert "Passphrase of" not in screen
