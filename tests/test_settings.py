"""Where settings come from, and what is said about those that cannot be used."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.errors import ConfigError
from hotspare.settings import KEYS, Settings, load_settings, read_config, variable_of

HOME = Path("/home/ada")


def load(
    config: Path | None = None,
    *,
    environment: dict[str, str] | None = None,
    flags: dict[str, str] | None = None,
    is_root: bool = False,
) -> Settings:
    named = {"config": str(config)} if config else {}
    return load_settings(
        flags=named | (flags or {}), environment=environment or {}, home=HOME, is_root=is_root
    )


def written(folder: Path, text: str) -> Path:
    path = folder / "hotspare.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_config(written(folder, text))
    return caught.value


def test_defaults_of_a_user() -> None:
    settings = load()
    assert settings.repository is None
    assert settings.passphrase is None
    assert settings.platform == "qemu:///system"
    assert settings.state_folder == HOME / ".local/state/hotspare"
    assert settings.scratch_folder is None
    assert settings.config_file is None
    assert set(settings.origins.values()) == {"default"}


def test_defaults_of_root() -> None:
    assert load(is_root=True).state_folder == Path("/var/lib/hotspare")


def test_xdg_folders_are_respected(tmp_path: Path) -> None:
    config = tmp_path / "config"
    (config / "hotspare").mkdir(parents=True)
    (config / "hotspare" / "hotspare.toml").write_text('repository = "/srv/backup"\n')
    environment = {"XDG_CONFIG_HOME": str(config), "XDG_STATE_HOME": "/state"}
    settings = load(environment=environment)
    assert settings.repository == "/srv/backup"
    assert settings.state_folder == Path("/state/hotspare")
    assert settings.config_file == config / "hotspare" / "hotspare.toml"


@pytest.mark.parametrize("key", ["repository", "platform"])
def test_flag_beats_variable_beats_file(tmp_path: Path, key: str) -> None:
    config = written(tmp_path, f'{key} = "of-file"\n')
    variable = {variable_of(key): "of-variable"}
    by_flag = load(config, environment=variable, flags={key: "of-flag"})
    by_variable = load(config, environment=variable)
    by_file = load(config)
    assert [getattr(each, key) for each in (by_flag, by_variable, by_file)] == [
        "of-flag",
        "of-variable",
        "of-file",
    ]
    assert [each.origins[key] for each in (by_flag, by_variable, by_file)] == [
        "flag",
        variable_of(key),
        str(config),
    ]


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    config = written(tmp_path, 'repository = "/srv/backup"\n')
    environment = {"HOTSPARE_REPOSITORY": "", "HOTSPARE_PASSPHRASE": ""}
    settings = load(config, environment=environment)
    assert settings.repository == "/srv/backup"
    assert settings.passphrase is None


def test_config_is_named_by_variable_and_flag_wins(tmp_path: Path) -> None:
    config = written(tmp_path, 'repository = "/srv/backup"\n')
    assert load(environment={"HOTSPARE_CONFIG": str(config)}).repository == "/srv/backup"
    assert load(config, environment={"HOTSPARE_CONFIG": "/nowhere"}).repository == "/srv/backup"


def test_a_named_config_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file at .*absent\.toml"):
        load(tmp_path / "absent.toml")


def test_folders_know_the_home(tmp_path: Path) -> None:
    config = written(tmp_path, 'state_folder = "~/state"\nscratch_folder = "/scratch"\n')
    settings = load(config)
    assert settings.state_folder == HOME / "state"
    assert settings.scratch_folder == Path("/scratch")


@pytest.mark.parametrize(
    ("environment", "kind", "origin"),
    [
        ({"HOTSPARE_PASSPHRASE": "a"}, "value", "HOTSPARE_PASSPHRASE"),
        ({"HOTSPARE_PASSPHRASE_FILE": "/b"}, "file", "HOTSPARE_PASSPHRASE_FILE"),
        ({"HOTSPARE_PASSPHRASE_COMMAND": "c"}, "command", "HOTSPARE_PASSPHRASE_COMMAND"),
        (
            {
                "HOTSPARE_PASSPHRASE_COMMAND": "c",
                "HOTSPARE_PASSPHRASE_FILE": "/b",
                "HOTSPARE_PASSPHRASE": "a",
            },
            "value",
            "HOTSPARE_PASSPHRASE",
        ),
        (
            {"HOTSPARE_PASSPHRASE_COMMAND": "c", "HOTSPARE_PASSPHRASE_FILE": "/b"},
            "file",
            "HOTSPARE_PASSPHRASE_FILE",
        ),
    ],
)
def test_the_first_passphrase_defined_wins(environment: dict[str, str], kind: str, origin: str) -> None:
    source = load(environment=environment).passphrase
    assert source is not None
    assert (source.kind, source.origin) == (kind, origin)


def test_a_variable_for_the_passphrase_beats_the_file(tmp_path: Path) -> None:
    config = written(tmp_path, 'passphrase_file = "/etc/hotspare/passphrase"\n')
    from_file = load(config).passphrase
    from_variable = load(config, environment={"HOTSPARE_PASSPHRASE_COMMAND": "pass show it"}).passphrase
    assert from_file is not None
    assert (from_file.kind, from_file.value) == ("file", "/etc/hotspare/passphrase")
    assert from_variable is not None
    assert from_variable.kind == "command"


def test_a_passphrase_is_not_shown_by_repr() -> None:
    settings = load(environment={"HOTSPARE_PASSPHRASE": "correct horse"})
    assert "correct horse" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('# hello\n\nrepository = "/srv\n', 3),
        ("repository = /srv\n", 1),
        ('repository = "/a"\nrepository = "/b"\n', 2),
    ],
)
def test_bad_toml_names_file_and_line(tmp_path: Path, text: str, line: int) -> None:
    error = refusal(tmp_path, text)
    assert error.what.startswith(f"{tmp_path}/hotspare.toml, line {line}: ")
    assert error.hint


def test_toml_that_ends_too_early_says_so(tmp_path: Path) -> None:
    assert ", at its end: " in refusal(tmp_path, 'repository = "/srv').what


def test_an_unknown_key_names_file_line_and_a_near_one(tmp_path: Path) -> None:
    error = refusal(tmp_path, 'platform = "qemu:///session"\nrepositry = "/srv"\n')
    assert error.what == f'{tmp_path}/hotspare.toml, line 2: there is no setting "repositry"'
    assert error.hint == 'Did you mean "repository"?'


def test_an_unknown_table_is_an_unknown_key(tmp_path: Path) -> None:
    error = refusal(tmp_path, "\n[server]\nport = 1\n")
    assert error.what.endswith('line 2: there is no setting "server"')
    assert "state_folder" in error.hint


def test_a_passphrase_in_the_file_is_refused_with_the_better_way(tmp_path: Path) -> None:
    error = refusal(tmp_path, 'passphrase = "secret"\n')
    assert "passphrase_file" in error.hint
    assert "secret" not in str(error)


@pytest.mark.parametrize("value", ["7", "true", '["/srv"]', "1979-05-27", '""'])
def test_a_value_of_the_wrong_type_names_line_and_key(tmp_path: Path, value: str) -> None:
    error = refusal(tmp_path, f'platform = "x"\n"repository" = {value}\n')
    assert 'line 2: the setting "repository" has ' in error.what
    assert error.hint == 'Give it a string: repository = "..."'


def test_a_relative_folder_is_refused(tmp_path: Path) -> None:
    assert "relative path" in refusal(tmp_path, 'state_folder = "state"\n').what


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hotspare.toml"
    path.write_bytes(b"repository = \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_config(path)


def test_a_folder_as_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        read_config(tmp_path)


@given(text=st.text(alphabet=string.ascii_lowercase + string.digits + '="[]{}#\n\\/_., ', max_size=80))
def test_any_text_is_either_settings_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    message = ""
    settings: dict[str, str] = {}
    try:
        settings = read_config(written(folder, text))
    except ConfigError as error:
        message = error.what
    if message:
        assert str(folder / "hotspare.toml") in message
    assert set(settings) <= set(KEYS)
    assert all(isinstance(value, str) and value for value in settings.values())
