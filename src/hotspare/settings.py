"""What the user has set: by flags, else the environment, else the configuration file, else defaults.

The configuration file is TOML with the keys of ``KEYS`` at its top. Root's is
``/etc/hotspare/hotspare.toml``, everybody else's ``$XDG_CONFIG_HOME/hotspare/hotspare.toml``;
``--config`` or ``HOTSPARE_CONFIG`` names another. Here it is only found out *where* the passphrase
comes from; the command line fetches it when a repository is opened.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, NoReturn

from hotspare.errors import ConfigError, PermissionRefused

DEFAULT_PLATFORM = "qemu:///system"
DEFAULT_LISTEN = "127.0.0.1:8460"

KEYS = (
    "repository",
    "passphrase_file",
    "passphrase_command",
    "key_file",
    "platform",
    "state_folder",
    "policy_folder",
    "job_database",
    "listen",
    "public_url",
    "sign_on_file",
    "scratch_folder",
    "upload_limit",
    "download_limit",
    "self_backup",
    "approval_on_host",
    "log_form",
)
LogForm = Literal["text", "json"]
_FOLDER_KEYS = (
    "passphrase_file",
    "key_file",
    "state_folder",
    "policy_folder",
    "sign_on_file",
    "scratch_folder",
)

_ORIGIN = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?", re.ASCII)
_WORDS = {"self_backup": ("on", "off"), "approval_on_host": ("recorded", "required")}
"""Settings that are one of a few words; the first is the default."""

_KINDS: Iterable[Literal["file", "command"]] = ("file", "command")


@dataclass(frozen=True, slots=True)
class PassphraseSource:
    """Where the passphrase is to be had, not the passphrase of a file or command itself."""

    kind: Literal["value", "file", "command"]
    value: str = field(repr=False)
    """The passphrase, the path of a file, or a command line, according to ``kind``."""
    origin: str
    """Who says so: the name of an environment variable, or the configuration file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is set, from wherever."""

    repository: str | None
    passphrase: PassphraseSource | None
    key_file: Path | None
    """Opens the repository instead of a passphrase."""
    platform: str
    state_folder: Path
    """Holds the catalog."""
    policy_folder: Path
    """Holds the policies, a file each."""
    job_database: str
    """URL of what servers and movers keep their jobs in; SQLite in the state folder by default."""
    listen: str
    """Address and port of a server's HTTP interface; ``none`` for no such thing."""
    public_url: str | None
    """Where browsers reach the server: ``https://backup-host:8460``; None for as they say it themselves."""
    sign_on_file: Path | None
    """Says who the provider of single sign-on is; None for no such thing."""
    scratch_folder: Path | None
    """Where a running machine's overwritten blocks wait during a backup; None for the platform's default."""
    upload_limit: str | None
    """How fast a store may be written to: ``20MiB/s``; None for no limit."""
    download_limit: str | None
    """How fast it may be read."""
    self_backup: bool
    """Whether a server backs up its own memory by itself."""
    approval_on_host: Literal["recorded", "required"]
    """Whether commands of this host that shorten what is kept are only recorded, or refused, while a second
    person has to agree to the same over HTTP."""
    log_form: LogForm
    """How services write their log to stderr, where that is not systemd's journal."""
    config_file: Path | None
    """The configuration file that was read; None when there is none."""
    origins: Mapping[str, str]
    """Per setting, where it came from: ``flag``, a variable's name, the configuration file, ``default``."""


def variable_of(key: str) -> str:
    """Give the environment variable of a setting: ``state_folder`` is ``HOTSPARE_STATE_FOLDER``."""
    return f"HOTSPARE_{key.upper()}"


def load_settings(
    *, flags: Mapping[str, str | None], environment: Mapping[str, str], home: Path, is_root: bool
) -> Settings:
    """Resolve all settings.

    Args:
        flags: what the command line gives, by key; ``config`` names the configuration file.
        environment: the process's environment; a variable that is empty counts as not set.
        home: the user's home folder.
        is_root: whether the system's places are used rather than the user's.

    Raises:
        ConfigError: the configuration file or a variable cannot be used.
        PermissionRefused: the configuration file may not be read.
    """
    path = _find_config(flags.get("config"), environment, home, is_root)
    from_file = read_config(path) if path else {}
    values: dict[str, str] = {}
    origins: dict[str, str] = {}
    for key in KEYS:
        candidates = (
            (flags.get(key), "flag"),
            (environment.get(variable_of(key)), variable_of(key)),
            (from_file.get(key), str(path)),
        )
        for value, origin in candidates:
            if value:
                values[key], origins[key] = value, origin
                break
    words = {key: _one_of(key, values.get(key), origins.get(key, "")) for key in _WORDS}
    folders = {
        key: _absolute(values[key], home)
        for key in ("state_folder", "policy_folder", "scratch_folder")
        if key in values
    }
    state_folder = folders.get("state_folder") or _default_state_folder(environment, home, is_root)
    usual = path or default_config_file(environment, home, is_root)
    return Settings(
        repository=values.get("repository"),
        passphrase=_passphrase_source(environment, from_file, str(path)),
        key_file=_absolute(values["key_file"], home) if "key_file" in values else None,
        platform=values.get("platform", DEFAULT_PLATFORM),
        state_folder=state_folder,
        policy_folder=folders.get("policy_folder") or usual.parent / "policies",
        job_database=values.get("job_database", f"sqlite:///{state_folder}/jobs.sqlite"),
        listen=values.get("listen", DEFAULT_LISTEN),
        public_url=_origin(values, origins),
        sign_on_file=_absolute(values["sign_on_file"], home) if "sign_on_file" in values else None,
        scratch_folder=folders.get("scratch_folder"),
        upload_limit=values.get("upload_limit"),
        download_limit=values.get("download_limit"),
        self_backup=words["self_backup"] == "on",
        approval_on_host="required" if words["approval_on_host"] == "required" else "recorded",
        log_form=_log_form(values.get("log_form", "text"), origins.get("log_form", "default")),
        config_file=path,
        origins={key: origins.get(key, "default") for key in KEYS},
    )


def _log_form(value: str, origin: str) -> LogForm:
    if value == "text":
        return "text"
    if value == "json":
        return "json"
    raise ConfigError(
        f"{origin} sets log_form to {value!r}",
        meaning="Nothing was done",
        hint="There are text and json; under systemd neither is used, for logs go to its journal",
    )


def read_config(path: Path) -> dict[str, str]:
    """Read and check a configuration file; gives its settings by key, each a string that is not empty.

    Raises:
        ConfigError: it is not TOML, or a key is unknown, or a value has the wrong type; names file and line.
        PermissionRefused: it may not be read.
    """
    text = _read_text(path)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _refuse_syntax(path, error)
    for key, value in table.items():
        where = f"{path}, line {_line_of(key, text)}"
        if key not in KEYS:
            _refuse_key(where, key)
        if not isinstance(value, str) or not value:
            kind = "an empty string" if value == "" else f"a value of type {type(value).__name__}"
            raise ConfigError(
                f'{where}: the setting "{key}" has {kind}',
                meaning="Nothing was done",
                hint=f'Give it a string: {key} = "..."',
            )
        if key in _FOLDER_KEYS and not value.startswith(("/", "~/")):
            raise ConfigError(
                f'{where}: the setting "{key}" is the relative path {value}',
                meaning="Nothing was done, because it would depend on the folder a command is started in",
                hint="Give a path that begins with / or ~/",
            )
    return table


def _find_config(flag: str | None, environment: Mapping[str, str], home: Path, is_root: bool) -> Path | None:
    named = flag or environment.get("HOTSPARE_CONFIG")
    if named:
        return _absolute(named, home)
    usual = default_config_file(environment, home, is_root)
    try:
        return usual if usual.exists() else None
    except PermissionError:
        return usual


def default_config_file(environment: Mapping[str, str], home: Path, is_root: bool) -> Path:
    """Tell where the configuration file is when nothing names another."""
    if is_root:
        return Path("/etc/hotspare/hotspare.toml")
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "hotspare" / "hotspare.toml"


def _default_state_folder(environment: Mapping[str, str], home: Path, is_root: bool) -> Path:
    if is_root:
        return Path("/var/lib/hotspare")
    return Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state") / "hotspare"


def _one_of(key: str, value: str | None, origin: str) -> str:
    words = _WORDS[key]
    if value is None:
        return words[0]
    if value not in words:
        raise ConfigError(
            f'{origin}: the setting "{key}" is {value!r}',
            meaning="Nothing was done",
            hint=f"Say {' or '.join(words)}",
        )
    return value


def _absolute(path: str, home: Path) -> Path:
    return home / path[2:] if path.startswith("~/") else Path(path).absolute()


def passphrase_in(environment: Mapping[str, str], variable: str) -> PassphraseSource | None:
    """Give where a passphrase is to be had: ``variable``, or it with ``_FILE`` or ``_COMMAND`` behind it."""
    if value := environment.get(variable):
        return PassphraseSource("value", value, variable)
    for kind in _KINDS:
        named = f"{variable}_{kind.upper()}"
        if value := environment.get(named):
            return PassphraseSource(kind, value, named)
    return None


def _origin(values: Mapping[str, str], origins: Mapping[str, str]) -> str | None:
    """Give the public URL, which is to have nothing behind host and port. Raises ``ConfigError``."""
    if "public_url" not in values:
        return None
    url = values["public_url"].rstrip("/")
    if not _ORIGIN.fullmatch(url):
        raise ConfigError(
            f'{origins["public_url"]}: the setting "public_url" is {url}',
            meaning="Nothing was done",
            hint="Give what browsers show before the first single slash: https://backup-host:8460",
        )
    return url.lower()


def _passphrase_source(
    environment: Mapping[str, str], from_file: Mapping[str, str], config: str
) -> PassphraseSource | None:
    if source := passphrase_in(environment, "HOTSPARE_PASSPHRASE"):
        return source
    for kind in _KINDS:
        if value := from_file.get(f"passphrase_{kind}"):
            return PassphraseSource(kind, value, config)
    return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ConfigError(
            f"There is no configuration file at {path}",
            meaning="Nothing was done",
            hint="Mend --config or HOTSPARE_CONFIG, or leave it out",
        ) from error
    except PermissionError as error:
        raise PermissionRefused(
            f"The configuration file {path} may not be read",
            meaning="Nothing was done",
            hint="Give this user the right to read it, or name another file with --config",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"The configuration file {path} is not UTF-8 text",
            meaning="Nothing was done",
            hint="Save it as UTF-8, or name another file with --config",
        ) from error


def _refuse_syntax(path: Path, error: tomllib.TOMLDecodeError) -> NoReturn:
    message, _, position = str(error).partition(" (at ")
    line = re.match(r"line (\d+)", position)
    where = f"{path}, line {line[1]}" if line else f"{path}, at its end"
    raise ConfigError(
        f"{where}: {message[:1].lower()}{message[1:]}",
        meaning="Nothing was done",
        hint="The file has to be TOML: one setting a line, strings in double quotes",
    ) from error


def _refuse_key(where: str, key: str) -> NoReturn:
    if key == "passphrase":
        hint = "Put the passphrase into a file of its own and name that with passphrase_file"
    elif near := get_close_matches(key, KEYS, n=1):
        hint = f'Did you mean "{near[0]}"?'
    else:
        hint = f"The settings are {', '.join(KEYS)}"
    raise ConfigError(f'{where}: there is no setting "{key}"', meaning="Nothing was done", hint=hint)


def _line_of(key: str, text: str) -> int:
    # tomllib tells no positions. A key of the top level begins its line, or is the name of a table.
    opening = re.compile(rf"""\s*(\[+\s*)?["']?{re.escape(key)}["']?\s*[=.\]]""")
    for number, line in enumerate(text.splitlines(), start=1):
        if opening.match(line):
            return number
    return 1
