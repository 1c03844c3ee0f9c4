"""What commands and the server work with."""

from typing import Protocol

from hotspare.catalog.catalog import Catalog
from hotspare.catalog.policy_files import PolicyFiles
from hotspare.fleet.host import Host, RemoteHost
from hotspare.platforms.platform import Platform
from hotspare.repository.repository import Repository
from hotspare.settings import Settings


class Work(Protocol):
    """What was opened is closed by whoever made this."""

    @property
    def settings(self) -> Settings:
        """What is set."""
        ...

    def catalog(self) -> Catalog:
        """Open this host's catalog."""
        ...

    def repository(self, url: str | None = None, *, cached: bool = False) -> Repository:
        """Open the repository that is set, or another with the same secret."""
        ...

    def platform_at(self, uri: str) -> Platform:
        """Connect to a platform of this host."""
        ...

    def host_at(self, uri: str) -> Host:
        """Give a platform to be looked at, of this host or another."""
        ...

    def other_host_at(self, uri: str) -> RemoteHost | None:
        """Give the host of a platform, to have something done there; None for one of this host."""
        ...

    def policies(self) -> PolicyFiles:
        """Give the policies of this host."""
        ...
