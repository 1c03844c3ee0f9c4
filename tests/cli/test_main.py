"""Where a command line begins and ends: help, mistakes, exit statuses, JSON errors."""

import subprocess
import sys
from pathlib import Path

import pytest

from hotspare import __version__
from hotspare.cli.main import main, wants_json
from hotspare.cli.nouns import NOUNS
from hotspare.errors import NoSpace
from tests.cli.commands import every_command
from tests.cli.program import Program


def test_help_lists_every_noun(program: Program) -> None:
    done = program.run_process("--help")
    assert done.status == 0
    assert all(f"\n  {noun} " in done.out for noun in NOUNS)
    assert done.err == ""


@pytest.mark.parametrize("columns", ["20", "80", "300"])
def test_help_fits_the_terminal(program: Program, columns: str) -> None:
    done = program.expect("--help", COLUMNS=columns)
    assert done.out == program.expect(COLUMNS=columns).out
    nouns = done.out.partition("Protect:")[2].partition("Begin with:")[0]
    assert max(map(len, nouns.splitlines())) <= max(40, min(int(columns), 100))


def test_help_imports_no_engine() -> None:
    code = (
        "import sys; from hotspare.cli.main import main; main(['--help'])\n"
        "heavy = {'cyclopts', 'rich', 'numpy', 'libvirt', 'cryptography', 'sqlite3', 'zstandard'}\n"
        "heavy |= {'hotspare.backup.machine'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", every_command())
def test_help_of_each_command_has_examples_and_exit_statuses(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"\nExamples:\n  hotspare {command}" in shown
    assert "\nExit status:\n    0  Done.\n    1  It failed.\n" in shown
    assert "\n    2  The command or its arguments make no sense.\n" in shown


def test_version(program: Program) -> None:
    assert program.expect("--version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("bakcup", "web"),
        ("repo", "destroy"),
        ("backup", "--fulll", "web"),
        ("backup",),
        ("backup", "--name", "web"),
        ("backup", "--image", "web.raw"),
        ("backup", "web", "--image", "web.raw", "--name", "web"),
        ("restore",),
        ("restore", "web"),
        ("restore", "web", "--to", "again", "--disk", "vda=x.raw"),
        ("restore", "web", "--to", "again", "--force"),
        ("restore", "web", "--disk", "vda=x.raw", "--start"),
        ("restore", "web", "--disk", "vda"),
        ("restore", "web", "--disk", "vda=x.raw", "--disk", "vda=y.raw"),
        ("restore", "web", "--disk", "vda=x.raw", "--disk", "vdb=x.raw"),
        ("run", "list", "--limit", "0"),
        ("point", "list", "-o", "yaml"),
        ("completion", "tcsh"),
        ("repo", "create", "ftp://host/folder"),
    ],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense(program: Program, words: tuple[str, ...]) -> None:
    done = program.run(*words)
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("hotspare: ")
    assert len(done.err.splitlines()) == 1
    assert not program.repository.exists()


def test_a_near_miss_is_told(program: Program) -> None:
    assert 'Did you mean "backup"?' in program.run("bakcup").err


@pytest.mark.parametrize("form", [("-o", "json"), ("--output", "json"), ("--output=json",), ("-ojson",)])
def test_an_error_is_json_where_json_is_wanted(program: Program, form: tuple[str, ...]) -> None:
    done = program.run("repo", "info", *form)
    assert done.status == 10
    assert done.out == ""
    error = done.error()
    assert error["code"] == "no-repository"
    assert str(program.repository) in error["what"]


@pytest.mark.parametrize(
    "words", [("point", "list"), ("-o", "text"), ("--output", "text", "json"), ("--name", "web-o", "json")]
)
def test_text_is_the_usual_form(words: tuple[str, ...]) -> None:
    assert not wants_json(words)


def test_even_a_usage_error_is_json(program: Program) -> None:
    done = program.run("point", "lsit", "-o", "json")
    assert (done.status, done.error()["code"]) == (2, "usage")


def break_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken(*_words: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("hotspare.cli.app.app", broken)


def test_an_error_is_one_paragraph(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_with(monkeypatch, NoSpace("The store is full", meaning="Nothing was written", hint="Free some"))
    assert main(["repo", "info"]) == 24
    shown = capsys.readouterr()
    assert shown.err == "hotspare: The store is full. Nothing was written. Free some.\n"
    assert shown.out == ""


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_with(monkeypatch, NoSpace("The store is full"))
    assert main(["repo", "info", "--debug"]) == 24
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_mistake_of_ours_is_admitted_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_with(monkeypatch, ZeroDivisionError("division by zero"))
    assert main(["repo", "info"]) == 1
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in shown
    assert "This is a mistake in Hotspare" in shown
    assert "--debug" in shown
    assert "Traceback" not in shown


def test_an_interrupt_at_a_prompt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_with(monkeypatch, KeyboardInterrupt())
    assert main(["repo", "info"]) == 130
    assert capsys.readouterr().err.startswith("hotspare: Interrupted.")


def test_a_broken_configuration_file(program: Program) -> None:
    config = program.folder / "hotspare.toml"
    config.write_text('platform = "qemu:///system"\nrepositry = "/srv"\n')
    done = program.run("repo", "info")
    assert done.status == 2
    assert f'{config}, line 2: there is no setting "repositry"' in done.err


def test_settings_of_the_configuration_file_count(program: Program) -> None:
    place = program.folder / "from-config"
    (program.folder / "hotspare.toml").write_text(f'repository = "{place}"\n')
    program.expect("repo", "create", HOTSPARE_REPOSITORY=None)
    assert (place / "config").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(program: Program, shell: str) -> None:
    script = program.expect("completion", shell).out
    assert all(word in script for word in (*NOUNS, "forget", "require-consistency", "dry-run"))


def test_the_bash_completion_completes(program: Program, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(program.expect("completion", "bash").out)
    ask = (
        f"source {script}; COMP_WORDS=(hotspare poi); COMP_CWORD=1; COMP_LINE='hotspare poi'; COMP_POINT=12;"
        ' "$(complete -p hotspare | sed -E "s/.*-F ([^ ]+).*/\\1/")"; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["point"]
