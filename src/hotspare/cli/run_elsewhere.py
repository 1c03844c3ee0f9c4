"""Having a command done on the host of the machines: ``--platform qemu+ssh://HOST/system``.

The same command runs there, by ``hotspare mover``, with the platform that is local there. What it says is
shown here, and its exit status is that of the command.
"""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.elsewhere import Elsewhere
from hotspare.cli.passphrase import existing_passphrase, read_key_file
from hotspare.cli.progress import shown_progress
from hotspare.documents.progress import event_of
from hotspare.errors import ConfigError, PermissionRefused
from hotspare.events import Listener
from hotspare.mover.control import Mover, parse_remote_platform
from hotspare.mover.wire import Secret, Start
from hotspare.repository.keys.slot import KeyFile, RecoveryKey, typed_credential
from hotspare.settings import Settings
from hotspare.storage.registry import local_folder
from hotspare.storage.s3_settings import FILE_VARIABLES

REPOSITORY_ON_HOST = "HOTSPARE_REPOSITORY_ON_HOST"
STORE_VARIABLES = ("AWS_", "HOTSPARE_S3_", "HOTSPARE_CA_BUNDLE")
"""What the names of variables begin with that the other host gets."""


def run_elsewhere(elsewhere: Elsewhere, words: list[str]) -> int:
    """Run a command line on the host of its platform, and give its exit status."""
    settings, options = elsewhere.settings, elsewhere.options
    remote = parse_remote_platform(settings.platform)
    if remote is None:
        raise ValueError(settings.platform)
    host, platform = remote
    folder = _served_folder(settings)
    with_bars = options.progress_form == "auto" and sys.stderr.isatty()
    start = Start(
        words=tuple(words),
        settings=_settings_there(settings, platform, folder),
        progress="jsonl" if with_bars else options.progress_form,
        environment=_store_environment(os.environ),
        served=str(folder) if folder else None,
        has_secret=settings.passphrase is not None or settings.key_file is not None,
    )
    with (
        cancelled_by_signals() as cancellation,
        shown_progress("auto" if with_bars else "none", cancellation) as listener,
        Mover(settings.platform, host, os.environ) as mover,
    ):
        show = _Shown(listener if with_bars else None)
        return mover.run(start, lambda: _secret(settings), show, cancellation)


def _served_folder(settings: Settings) -> Path | None:
    """Give the repository's folder when it is on this host, and the other does not have it by itself."""
    if settings.repository is None or os.environ.get(REPOSITORY_ON_HOST):
        return None
    return local_folder(settings.repository)


def _settings_there(settings: Settings, platform: str, folder: Path | None) -> dict[str, str]:
    repository = os.environ.get(REPOSITORY_ON_HOST) or settings.repository
    if folder is not None:
        repository = f"control://{socket.gethostname()}{folder}"
    there = {
        "platform": platform,
        "repository": repository,
        "upload_limit": settings.upload_limit,
        "download_limit": settings.download_limit,
    }
    return {key: value for key, value in there.items() if value}


def _store_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the variables of stores; of files that hold a secret, what they hold."""
    passed = {
        name: value
        for name, value in environment.items()
        if name.startswith(STORE_VARIABLES) and name not in FILE_VARIABLES
    }
    for name, plain in FILE_VARIABLES.items():
        if path := environment.get(name):
            try:
                passed[plain] = Path(path).read_text(encoding="utf-8").strip()
            except PermissionError as error:
                raise PermissionRefused(f"The file {path} of {name} may not be read") from error
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"The file {path} of {name} cannot be read") from error
    return passed


def _secret(settings: Settings) -> Secret:
    if settings.key_file is not None:
        return Secret(KeyFile.kind, read_key_file(settings.key_file).content)
    text = existing_passphrase(settings.passphrase, settings.repository or "")
    credential = typed_credential(text)
    if isinstance(credential, RecoveryKey):
        return Secret(credential.kind, credential.private)
    return Secret("passphrase", text.encode())


class _Shown:
    """Shows what the command says there."""

    def __init__(self, listener: Listener | None) -> None:
        """``listener`` is told the events that come as lines of JSON; without one, they are lines."""
        self._listener = listener

    def __call__(self, stream: int, text: str) -> None:
        for line in text.removesuffix("\n").split("\n"):
            event = event_of(line) if stream == 2 and self._listener else None
            if event is not None and self._listener:
                self._listener(event)
            elif stream == 1:
                output.print_text(line)
            else:
                output.note(line)
