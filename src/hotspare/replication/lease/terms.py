"""What a lease is counted by, and what the parties say to each other. See docs/failover.md."""

from enum import StrEnum

import msgspec

from hotspare.errors import UsageError

Order = tuple[int, int]
"""Of a holder's message: which start of its agent, and which message since. A later one is larger."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a lease is counted. All are seconds but ``drift``; every party of a protection has the same."""

    lease: float = 4.0
    """A renewal is good for so long, at the one that granted it."""
    beat: float = 0.5
    """Between two renewals."""
    silence: float = 1.5
    """A party that did not answer for so long counts as gone: the other one is asked to disarm."""
    drift: float = 0.02
    """No two clocks go further apart than by this part of the time."""
    stop: float = 1.0
    """What it may take from the end of a lease until the machine stands still."""

    def __post_init__(self) -> None:
        """Raise ``UsageError`` for terms that cannot be kept."""
        if not 0 <= self.drift < 0.5 or min(self.lease, self.beat, self.silence, self.stop) <= 0:
            raise UsageError("A lease needs times above zero, and a drift below one half")
        if not 2 * self.beat <= self.silence <= self.relied - self.beat:
            raise UsageError(
                f"A lease of {self.lease:g} s with a beat of {self.beat:g} s and a silence of"
                f" {self.silence:g} s cannot be kept",
                meaning=f"Its holder may rely on it for {self.relied:.1f} s; the silence must be two beats at"
                " least, and a beat shorter than that",
                hint="Choose a longer lease, or a shorter silence and beat",
            )

    @property
    def relied(self) -> float:
        """How long a holder relies on a renewal, by its own clock, from when it sent it."""
        return self.lease * (1 - self.drift) / (1 + self.drift) - self.stop


class How(StrEnum):
    """How a host became the holder."""

    TAKEN = "taken"
    """No voter granted the one before any more. (Or it is the first.)"""
    HANDED = "handed"
    """The one before gave it away, having stopped its machine for good."""
    FORCED = "forced"
    """Someone said that the machine of the one before does not run."""
    RAISED = "raised"
    """It was the one before, too: the epoch between was granted, and never begun."""


class Record(msgspec.Struct, frozen=True):
    """What a party must not forget, whatever happens to it."""

    epoch: int
    """Counts the takeovers."""
    holder: str
    """The host whose machine it is in this epoch."""
    armed: bool = False
    """Whether the other host may take over by itself. False: not in this epoch, unless armed again."""
    order: Order = (0, 0)
    """Of the holder's message that said so."""
    how: How = How.TAKEN
    """Why the holder is it."""


class Renew(msgspec.Struct, frozen=True):
    """The holder asks to stay it for another while."""

    epoch: int
    holder: str
    order: Order
    armed: bool
    successor: str = ""
    """Who is the holder of the next epoch from now on: this one has stopped its machine for good."""
    raised: int = 0
    """The epoch that the holder goes on with, as the witness granted the one before to the standby. For the
    standby, which knows that it has not begun it, and now never will."""


class Take(msgspec.Struct, frozen=True):
    """The standby asks the witness to be the holder of the next epoch."""

    epoch: int
    """The one that is to end."""
    taker: str
    forced: bool = False
    """Someone has made sure that the machine of the holder does not run."""
    look: bool = False
    """Only say how things are."""


class Verdict(msgspec.Struct, frozen=True):
    """The answer to both."""

    granted: bool
    epoch: int
    """As it is now, like the next three."""
    holder: str
    armed: bool
    order: Order = (0, 0)
    """Of the message that this answers."""
    how: How = How.TAKEN
    remaining: float = 0.0
    """Seconds that the holder may still rely on, as far as this voter is concerned."""
