"""Fetching the passphrase or key file from where the settings say, or asking for it on a terminal."""

import os
import shlex
import stat
import subprocess
import sys
from getpass import getpass
from pathlib import Path

from hotspare.cli.output import warn
from hotspare.errors import ConfigError, PermissionRefused, TargetExists, UsageError
from hotspare.repository.keys import KEY_SIZE
from hotspare.repository.keys.keychest import new_key_file
from hotspare.repository.keys.slot import Credential, KeyFile, typed_credential
from hotspare.settings import PassphraseSource, Settings

_COMMAND_SECONDS = 120
_WAYS = (
    "Set HOTSPARE_PASSPHRASE_FILE or HOTSPARE_PASSPHRASE_COMMAND (or HOTSPARE_PASSPHRASE), or run this on a"
    " terminal to be asked"
)


def existing_passphrase(source: PassphraseSource | None, repository: str) -> str:
    """Get the passphrase of a repository that exists.

    Raises:
        ConfigError: there is none, or it cannot be had.
        PermissionRefused: its file may not be read.
    """
    if source is not None:
        return _fetch(source)
    _require_terminal()
    return _not_empty(getpass(f"Passphrase of {repository}: "), "what was typed")


def existing_credential(settings: Settings, repository: str) -> Credential:
    """Get what opens a repository that exists: the key file that is set, else a passphrase.

    Raises as ``read_key_file`` and ``existing_passphrase``.
    """
    if settings.key_file is not None:
        return read_key_file(settings.key_file)
    return typed_credential(existing_passphrase(settings.passphrase, repository))


def new_passphrase(source: PassphraseSource | None, repository: str) -> str:
    """Get the passphrase of a repository that is to be made; typed twice on a terminal.

    Raises:
        ConfigError: there is none, it cannot be had, or it was not typed the same way twice.
        PermissionRefused: its file may not be read.
    """
    if source is not None:
        return _fetch(source)
    _require_terminal()
    first = _not_empty(getpass(f"New passphrase for {repository}: "), "what was typed")
    if getpass("The same again: ") != first:
        raise ConfigError(
            "The passphrase was not the same both times", meaning="Nothing was made", hint="Try again"
        )
    return first


def read_key_file(path: Path) -> KeyFile:
    """Read a key file.

    Raises:
        ConfigError: it is none.
        PermissionRefused: it may not be read.
    """
    try:
        mode = path.stat().st_mode
        content = path.read_bytes() if stat.S_ISREG(mode) and path.stat().st_size == KEY_SIZE else b""
    except PermissionError as error:
        raise PermissionRefused(
            f"The key file {path} may not be read",
            meaning="Nothing was done",
            hint="Run this as the user whom the file belongs to",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"The key file {path} cannot be read: {error.strerror}",
            meaning="Nothing was done",
            hint="Check HOTSPARE_KEY_FILE, or the key_file of the configuration file",
        ) from error
    if len(content) != KEY_SIZE:
        raise ConfigError(
            f"{path} is no key file: it does not have {KEY_SIZE} bytes",
            meaning="Nothing was done",
            hint="Check HOTSPARE_KEY_FILE, or the key_file of the configuration file",
        )
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        warn(f"Others than its owner may read the key file {path}. Run: chmod 600 {path}")
    return KeyFile(content)


def make_key_file(path: Path) -> KeyFile:
    """Make a new key file, which only its owner may read.

    Raises:
        TargetExists: something is there.
        UsageError, PermissionRefused: it cannot be written.
    """
    made = new_key_file()
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(made.content)
            stream.flush()
            os.fsync(file)
    except FileExistsError as error:
        raise TargetExists(
            f"There is something at {path}", meaning="Nothing was changed", hint="Name another file"
        ) from error
    except OSError as error:
        kind = PermissionRefused if isinstance(error, PermissionError) else UsageError
        raise kind(
            f"The key file {path} cannot be made: {error.strerror}",
            meaning="Nothing was changed",
            hint="Name a folder that is there and that you may write to",
        ) from error
    return made


def _require_terminal() -> None:
    if not sys.stdin.isatty():
        raise ConfigError("No passphrase is set", meaning="Nothing was done", hint=_WAYS)


def _fetch(source: PassphraseSource) -> str:
    if source.kind == "value":
        return source.value
    if source.kind == "file":
        return _not_empty(_read_file(Path(source.value), source.origin), source.value)
    return _not_empty(_run_command(source.value, source.origin), f'what "{source.value}" printed')


def _read_file(path: Path, origin: str) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = path.stat().st_mode
            text = file.read()
    except PermissionError as error:
        raise PermissionRefused(
            f"The passphrase file {path} ({origin}) may not be read",
            meaning="Nothing was done",
            hint="Run this as the user whom the file belongs to",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"The passphrase file {path} ({origin}) cannot be read: {reason}",
            meaning="Nothing was done",
            hint="Name a file that holds the passphrase in its only line",
        ) from error
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        warn(f"Others than its owner may read the passphrase file {path}. Run: chmod 600 {path}")
    return _without_line_end(text)


def _run_command(command: str, origin: str) -> str:
    try:
        words = shlex.split(command)
        # stdin and stderr stay the user's, for commands that ask something themselves.
        done = subprocess.run(words, stdout=subprocess.PIPE, timeout=_COMMAND_SECONDS, check=True, text=True)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        raise ConfigError(
            f"The command for the passphrase ({origin}) failed: {error}",
            meaning="Nothing was done",
            hint="Run the command by hand: it has to print the passphrase and exit with status 0",
        ) from error
    return _without_line_end(done.stdout)


def _without_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def _not_empty(passphrase: str, where: str) -> str:
    if not passphrase:
        raise ConfigError(f"The passphrase is empty: {where}", meaning="Nothing was done", hint=_WAYS)
    return passphrase
