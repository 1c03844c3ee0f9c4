"""What a platform may offer beside its contract: saying what a restored machine can be given there."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hotspare.platforms.platform import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """What there is for a new machine, by name; each in the order of names."""

    pools: tuple[str, ...] = ()
    """Stores that its disks can be put into."""
    networks: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()


@runtime_checkable
class OfferingPlatform(Protocol):
    """What a platform can do beside, if there is something to choose from."""

    def offers(self) -> Offers:
        """Say what there is now. Raises ``PlatformUnavailable``."""
        ...


def offers_of(platform: Platform) -> Offers:
    """Say what a platform has to choose from; nothing for one that has nothing."""
    return platform.offers() if isinstance(platform, OfferingPlatform) else Offers()
