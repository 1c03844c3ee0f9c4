"""What one command works with: its settings, and what it opens, closed again at its end."""

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hotspare.catalog.catalog import Catalog
from hotspare.catalog.policy_files import PolicyFiles
from hotspare.cli.directed import given
from hotspare.cli.elsewhere import Elsewhere, OnServer
from hotspare.cli.options import Options
from hotspare.cli.output import warn
from hotspare.cli.passphrase import existing_credential, existing_passphrase
from hotspare.cli.quantities import parse_bytes
from hotspare.errors import ConfigError
from hotspare.fleet.host import Host, ThisHost
from hotspare.mover.control import parse_remote_platform
from hotspare.platforms.platform import Platform
from hotspare.platforms.registry import open_platform
from hotspare.repository.format import CONFIG, RepositoryConfig
from hotspare.repository.keys.keychest import Keychest
from hotspare.repository.keys.slot import Credential, Passphrase, typed_credential
from hotspare.repository.opening import open_keys
from hotspare.repository.repository import Repository
from hotspare.settings import PassphraseSource, Settings, load_settings, passphrase_in
from hotspare.storage.backend import Backend
from hotspare.storage.registry import open_backend
from hotspare.storage.wrappers.cache import with_host_cache
from hotspare.storage.wrappers.throttle import ThrottledBackend, TokenBucket

if TYPE_CHECKING:
    from hotspare.cli.known_hosts import KnownHosts
    from hotspare.cli.other_host import OtherHost


class Session:
    """The things of one command. Leaving it closes what was opened, the last first."""

    def __init__(
        self, options: Options, *, platform: str | None = None, known_hosts: "KnownHosts | None" = None
    ) -> None:
        """``known_hosts`` answers for other hosts, without waiting for them."""
        if options.server:
            raise OnServer(options)
        self.options = options
        self.settings = settings_of(options, platform=platform)
        self._opened = ExitStack()
        self._credentials: dict[str, Credential] = {}
        self._known_hosts = known_hosts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def limited(self, upload_limit: int | None) -> "Session":
        """Give a session that sends no more than so many bytes per second; None gives this one.

        What it opens is closed with this one.
        """
        if upload_limit is None:
            return self
        set_limit = self.settings.upload_limit
        least = min(upload_limit, parse_bytes(set_limit)) if set_limit else upload_limit
        other = Session(self.options, known_hosts=self._known_hosts)
        other.settings = replace(self.settings, upload_limit=str(max(1, least)))
        other._credentials = self._credentials
        return self._opened.enter_context(other)

    @property
    def as_json(self) -> bool:
        """Whether the result is to be a JSON document."""
        return self.options.output == "json"

    def backend(self, url: str | None = None) -> Backend:
        """Open the repository's store, or the one at ``url``. Raises ``ConfigError`` when none is set."""
        wanted = url or self.settings.repository
        if wanted is None:
            raise ConfigError(
                "No repository is set",
                meaning="Nothing was done",
                hint="Name one with --repository, HOTSPARE_REPOSITORY or in the configuration file",
            )
        backend = self._limited(_open_store(wanted))
        self._opened.callback(backend.close)
        return backend

    def _limited(self, backend: Backend) -> Backend:
        limits = (self.settings.upload_limit, self.settings.download_limit)
        up, down = (TokenBucket(parse_bytes(limit)) if limit else None for limit in limits)
        return ThrottledBackend(backend, up=up, down=down) if up or down else backend

    def repository(self, url: str | None = None, *, cached: bool = False) -> Repository:
        """Open the repository, or the one at ``url`` with the same passphrase.

        ``cached`` reads map pages and points of a remote one through a cache, which must not be done where
        the health of the store itself is looked at.

        Raises:
            ConfigError: none is set, or no passphrase can be had.
            RepositoryNotFound: there is none at its place.
            WrongKey: it does not open with the passphrase.
            RepositoryTooNew: it needs a newer version.
        """
        backend = self.backend(url)
        if cached:
            backend = with_host_cache(backend, self.settings.state_folder)
        repository = Repository.open(backend, self._credential(backend))
        repository.index_folder = self.settings.state_folder / "index"
        self._opened.callback(repository.close)
        return repository

    def repository_at(self, url: str, variables: str) -> Repository:
        """Open another repository, its passphrase from ``HOTSPARE_<variables>_PASSPHRASE`` and so on.

        Raises what ``repository`` does.
        """
        backend = self.backend(url)
        there = _is_there(backend)
        passphrase = existing_passphrase(self.passphrase_of(variables), backend.url) if there else ""
        repository = Repository.open(backend, typed_credential(passphrase))
        repository.index_folder = self.settings.state_folder / "index"
        self._opened.callback(repository.close)
        return repository

    def keys(self) -> tuple[RepositoryConfig, Keychest]:
        """Open the repository's key slots. Raises what ``repository`` does."""
        backend = self.backend()
        return open_keys(backend, self._credential(backend))

    @property
    def backend_url(self) -> str:
        """Where the repository is, for messages."""
        return self.backend().url

    def passphrase_of(self, what: str) -> PassphraseSource | None:
        """Tell where a passphrase of another purpose comes from: ``HOTSPARE_<what>_PASSPHRASE`` and so on."""
        return passphrase_in(os.environ, f"HOTSPARE_{what}_PASSPHRASE")

    def _credential(self, backend: Backend) -> Credential:
        directions = given.get()
        if directions is not None:
            return directions.credential()
        # A passphrase is only asked for where there is something to open; without, "open" says what is wrong.
        return self.credential(backend.url) if _is_there(backend) else Passphrase("")

    def credential(self, url: str) -> Credential:
        """Get what opens the repository at ``url``, whether there seems to be one or not."""
        if url not in self._credentials:  # so that nobody is asked twice
            self._credentials[url] = existing_credential(self.settings, url)
        return self._credentials[url]

    def policies(self) -> PolicyFiles:
        """Give the policies of this host."""
        return PolicyFiles(self.settings.policy_folder)

    def platform_at(self, uri: str) -> Platform:
        """Connect to a platform of this host.

        Raises:
            PlatformUnavailable: nothing answers there.
            UsageError: it is on another host, or none.
        """
        return self.keep_platform(open_platform(uri, scratch_folder=self.settings.scratch_folder))

    def host_at(self, uri: str) -> Host:
        """Give a platform to be looked at, of this host or another.

        Raises:
            PlatformUnavailable: nothing answers there; of another host that is found out when it is asked.
            UsageError: it is none.
        """
        other = self.other_host_at(uri)
        if other is None:
            return ThisHost(self.platform_at(uri))
        return self._known_hosts.known(other) if self._known_hosts is not None else other

    def other_host_at(self, uri: str) -> "OtherHost | None":
        """Give the host of a platform, to have something done there; None for one of this host.

        Raises ``UsageError`` for a URI that names no host.
        """
        if parse_remote_platform(uri) is None:
            return None
        from hotspare.cli.other_host import OtherHost  # noqa: PLC0415 - most commands need none

        return OtherHost(uri, self.settings, self.credential)

    def platform(self) -> Platform:
        """Connect to the platform that is set.

        Raises:
            PlatformUnavailable: nothing answers there.
            Elsewhere: it is on another host, where this command has to run.
        """
        if parse_remote_platform(self.settings.platform) is not None:
            raise Elsewhere(self.settings, self.options)
        platform = open_platform(self.settings.platform, scratch_folder=self.settings.scratch_folder)
        self._opened.callback(platform.close)
        return platform

    def keep_platform(self, platform: Platform) -> Platform:
        """Take over the closing of a platform that was opened elsewhere."""
        self._opened.callback(platform.close)
        return platform

    def catalog(self) -> Catalog:
        """Open this host's catalog. Raises what ``Catalog.open`` does."""
        catalog = Catalog.open(self.settings.state_folder, warn)
        self._opened.callback(catalog.close)
        return catalog


def _open_store(url: str) -> Backend:
    directions = given.get()
    if directions is not None and directions.open_store and url == directions.settings.get("repository"):
        return directions.open_store()
    return open_backend(url)


def _is_there(backend: Backend) -> bool:
    return next(backend.list(CONFIG), None) is not None


def settings_of(options: Options, *, platform: str | None = None) -> Settings:
    """Resolve the settings of a command line. Raises ``ConfigError``."""
    flags = {
        "config": str(options.config) if options.config else None,
        "repository": options.repository,
        "platform": platform,
    }
    directions = given.get()
    if directions is not None:
        # A configuration file that the command line names is one of the other host's.
        flags = {"config": None, **directions.settings}
    settings = load_settings(flags=flags, environment=os.environ, home=Path.home(), is_root=os.geteuid() == 0)
    if directions is None:
        return settings
    # The secret of this host opens another repository, if any.
    source = PassphraseSource("value", "", "the control host") if directions.has_credential else None
    return replace(settings, passphrase=source, key_file=None)
