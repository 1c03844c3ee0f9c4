"""The documents on the command line say what is so."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare import errors
from hotspare.errors import HotspareError
from hotspare.settings import KEYS, load_settings, variable_of
from tests.cli.commands import every_command

DOCS = Path(__file__).resolve().parents[2] / "docs"


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def kinds_of(error: type[HotspareError]) -> Iterator[type[HotspareError]]:
    yield error
    for below in error.__subclasses__():
        yield from kinds_of(below)


def test_the_table_of_exit_statuses_is_that_of_the_program() -> None:
    rows = re.findall(r"^\| (\d+) \| `([\w-]+)` \|", text_of("exit-codes.md"), re.MULTILINE)
    documented = [(int(status), code) for status, code in rows]
    ours = [kind for kind in kinds_of(HotspareError) if kind.__module__ == errors.__name__]
    assert sorted(documented) == sorted((kind.exit_status, kind.code) for kind in ours)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in kinds_of(HotspareError) if kind.__module__ == errors.__name__]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("command", every_command())
def test_every_command_is_in_the_list(command: str) -> None:
    listed = re.findall(r"^\| `hotspare ([^`]+)` \|", text_of("cli.md"), re.MULTILINE)
    assert any(f"{line} ".startswith(f"{command} ") for line in listed)


@pytest.mark.parametrize("command", every_command())
def test_every_option_is_listed(command: str) -> None:
    arguments = every_command()[command].assemble_argument_collection()
    options = {name for argument in arguments for name in argument.names if name.startswith("--")}
    assert {option for option in options if option not in text_of("cli.md")} == set()


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_is_documented_with_its_variable(key: str) -> None:
    assert f"| `{key}` | `{variable_of(key)}` |" in text_of("cli.md")


def test_the_configuration_shown_is_good(tmp_path: Path) -> None:
    shown = re.findall(r"```toml\n(.*?)```", text_of("cli.md"), re.DOTALL)
    assert shown
    for example in shown:
        config = tmp_path / "hotspare.toml"
        config.write_text(example)
        settings = load_settings(flags={"config": str(config)}, environment={}, home=tmp_path, is_root=True)
        assert settings.repository == "file:///srv/backup"
