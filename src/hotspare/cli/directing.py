"""Having a command done on the host of its platform: what the mover there is told, and is answered.

``directed.py`` is the same from the other end.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hotspare.backup.claim import UNDISPUTED, Claim
from hotspare.cancellation import Cancellation
from hotspare.cli.options import ProgressForm
from hotspare.errors import ConfigError, PermissionRefused
from hotspare.mover.control import REPOSITORY_ON_HOST, Mover, parse_remote_platform
from hotspare.mover.wire import Secret, Start
from hotspare.repository.keys.slot import Credential, KeyFile, RecoveryKey
from hotspare.settings import Settings
from hotspare.storage.registry import local_folder
from hotspare.storage.s3_settings import FILE_VARIABLES

STORE_VARIABLES = ("AWS_", "HOTSPARE_S3_", "HOTSPARE_CA_BUNDLE")
"""What the names of variables begin with that the other host gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A command for another host, and what is to be done with what comes back."""

    platform: str
    """URI, of another host."""
    words: Sequence[str]
    """What follows the program's name."""
    repository: str | None
    """URL as it is here; None where none is needed."""
    credential: Callable[[], Credential]
    """Gives what opens the repository, when the other host asks for it."""
    said: Callable[[int, str], None]
    """Told what the command says: the stream (1 or 2), and whole lines but for the last."""
    progress: ProgressForm = "none"
    claim: Claim = UNDISPUTED
    """Says whether a backup may begin, and finish."""


def run_errand(errand: Errand, settings: Settings, cancellation: Cancellation) -> int:
    """Have a command run on the host of its platform, and give its exit status.

    Raises:
        UsageError: the URI names no other host.
        PlatformUnavailable: there is no mover, or the connection to it was lost.
        StorageError, PermissionRefused: the host cannot be reached, or does not let us in.
    """
    remote = parse_remote_platform(errand.platform)
    if remote is None:
        raise ValueError(errand.platform)
    host, platform = remote
    on_host = _on_host(errand, settings)
    folder = local_folder(errand.repository) if errand.repository and on_host is None else None
    start = Start(
        words=tuple(errand.words),
        settings=_settings_there(errand, settings, platform, on_host, folder),
        progress=errand.progress,
        environment=_store_environment(os.environ),
        served=str(folder) if folder else None,
        has_secret=settings.passphrase is not None or settings.key_file is not None,
        known_as=errand.platform,
    )
    with Mover(errand.platform, host, os.environ) as mover:
        return mover.run(start, lambda: _secret(errand.credential()), errand.said, cancellation, errand.claim)


def _on_host(errand: Errand, settings: Settings) -> str | None:
    """Give what the host itself calls the repository, where it does by another name.

    The variable speaks of the repository that is set; a policy may have another.
    """
    return os.environ.get(REPOSITORY_ON_HOST) if errand.repository == settings.repository else None


def _settings_there(
    errand: Errand, settings: Settings, platform: str, on_host: str | None, folder: Path | None
) -> dict[str, str]:
    repository = on_host or errand.repository
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


def _secret(credential: Credential) -> Secret:
    if isinstance(credential, KeyFile):
        return Secret(credential.kind, credential.content)
    if isinstance(credential, RecoveryKey):
        return Secret(credential.kind, credential.private)
    return Secret(credential.kind, credential.text.encode())
