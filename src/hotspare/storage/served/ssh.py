"""How the program on the other host is reached: with the system's ``ssh``.

That brings what the user has set up: keys on hardware, agents, jump hosts, ``Match`` rules. Nothing is asked
on the terminal, and a host whose key is not known is refused, whatever the configuration says.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from hotspare.errors import ConfigError, HotspareError, PermissionRefused, StorageError, UsageError

SSH_COMMAND = "HOTSPARE_SSH_COMMAND"
REMOTE_PROGRAM = "HOTSPARE_REMOTE_PROGRAM"
_EXAMPLE = "ssh://user@host/path, or ssh://user@host/~/path for a folder in the home folder"
_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=15",
    # Three times without a sign of life end the connection.
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
)
_SSH_FAILED = 255
_NO_PROGRAM = 127


@dataclass(frozen=True, slots=True)
class SshHost:
    """Where a program is to be run."""

    host: str
    """A name, an address, or a ``Host`` of the SSH configuration."""
    port: int | None = None
    user: str | None = None


def parse_ssh_url(url: str) -> tuple[SshHost, str]:
    """Take apart ``ssh://[user@]host[:port]/path``; gives host and folder. Raises ``UsageError``."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError("The URL of the SSH server cannot be read", hint=f"Write {_EXAMPLE}") from error
    if parts.password is not None:
        raise UsageError(
            "The URL of the SSH server holds a password",
            meaning="It was not used, because URLs end up in logs",
            hint="Use a key: name it in ~/.ssh/config, or load it into the SSH agent",
        )
    path = unquote(parts.path)
    folder = path[1:].rstrip("/") if path.startswith("/~/") else path.rstrip("/")
    host = parts.hostname or ""
    user = unquote(parts.username) if parts.username else None
    # A name that begins with a dash would be an option to ssh.
    odd = any(word.startswith("-") or not word.isprintable() for word in (host, user or "", folder))
    if not host or parts.query or parts.fragment or folder in {"", "~"} or odd:
        raise UsageError(f"'{url}' names no folder on an SSH server", hint=f"Write {_EXAMPLE}")
    return SshHost(host, port, user), folder


def remote_command(host: SshHost, words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Give the local command line that runs ``hotspare WORDS`` on a host.

    Args:
        host: where.
        words: what follows the program's name; each is quoted for the shell there.
        environment: ``HOTSPARE_SSH_COMMAND`` is what to call instead of ``ssh``, with its first options;
            ``HOTSPARE_REMOTE_PROGRAM`` the path of ``hotspare`` there.

    Raises:
        ConfigError: ``HOTSPARE_SSH_COMMAND`` cannot be taken apart.
    """
    try:
        ssh = shlex.split(environment.get(SSH_COMMAND) or "ssh")
    except ValueError as error:
        raise ConfigError(f"{SSH_COMMAND} cannot be read: {error}", meaning="Nothing was done") from error
    options = [word for option in _OPTIONS for word in ("-o", option)]
    if host.port is not None:
        options += ["-p", str(host.port)]
    if host.user is not None:
        options += ["-l", host.user]
    program = environment.get(REMOTE_PROGRAM) or "hotspare"
    return [*ssh, "-T", *options, "--", host.host, shlex.join([program, *words])]


def explain_end(url: str, status: int | None, words: Sequence[str], *, greeted: bool) -> HotspareError:
    """Say why a program ended that should not have: its exit status and last words tell.

    Args:
        url: what could not be reached.
        status: exit status of ``ssh``, which is that of the program there unless ``ssh`` itself failed.
        words: lines of its standard error.
        greeted: whether the program there had answered before.
    """
    said = " ".join(words)
    if greeted:
        return _lost(url, said)
    if status == _SSH_FAILED:
        return _explain_ssh(url, said, words)
    if status == _NO_PROGRAM:
        return StorageError(
            f"{url}: the server has no program 'hotspare': {said}",
            hint=f"Install it there, or name its path there with {REMOTE_PROGRAM}",
        )
    return StorageError(
        f"{url}: the program there ended with status {status}: {said or 'it said nothing'}",
        hint="Log in there with ssh and run 'hotspare --version'",
    )


def _explain_ssh(url: str, said: str, words: Sequence[str]) -> HotspareError:
    if "Host key verification failed" in said:
        return StorageError(
            f"{url}: the host's key is not among the known hosts: {words[-1]}",
            meaning="Nothing was sent",
            hint="Log in once with ssh, compare the fingerprint, and accept the key",
        )
    if "Permission denied" in said:
        return PermissionRefused(
            f"{url}: the server refused the login: {words[-1]}",
            hint="Add the public key to authorized_keys there, and name the private one in ~/.ssh/config",
        )
    if "Could not resolve hostname" in said:
        return StorageError(f"{url}: no such host is known", hint="Look for a typing error in the URL")
    return _lost(url, said)


def _lost(url: str, said: str) -> StorageError:
    return StorageError(
        f"The connection to {url} was lost{': ' + said if said else ''}",
        hint="See whether the server runs and can be reached with ssh, and try again",
        may_pass=True,
    )
