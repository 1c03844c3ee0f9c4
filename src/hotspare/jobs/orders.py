"""What is to be done, and what came of it: the plain records that lie in the job database.

None of them ever holds a secret: whoever carries an order out gets the repository's credential from its own
settings.
"""

from typing import Any, Literal

import msgspec

from hotspare.documents.progress import Progress
from hotspare.documents.stages import Stages

JobState = Literal["waiting", "queued", "running", "ok", "failed", "interrupted", "cancelled"]
"""``queued``: it may begin, and no mover of its host has taken it yet."""


Place = tuple[int, str]
"""Of a job among all: when it was asked for, in milliseconds since the epoch, and its id."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One machine to be backed up by one policy."""

    policy: str
    platform: str
    """URI, as the mover that carries the order out reaches it."""
    machine_id: str
    machine: str
    """Name, for people."""
    definition: dict[str, Any] = msgspec.field(default_factory=dict)
    """The policy as it was then, with the URL of its repository; empty in what people ask for."""
    because: str = ""
    """Why it began when it did."""
    upload_limit: int | None = None
    """Bytes per second that it may send at most: its share of the links that it crosses; None for all."""
    stop_at: float | None = None
    """When it is to stop even if it is not through, in seconds since the epoch; None for never."""

    @property
    def request(self) -> str:
        """What admission knows it by: a machine has one run of a policy at a time."""
        return f"{self.policy}/{self.platform}/{self.machine_id}"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an order."""

    outcome: Literal["ok", "failed", "interrupted", "cancelled"]
    point: str | None = None
    """Id of the restore point."""
    error_code: str | None = None
    error: str | None = None
    started_at: float = 0.0
    """Seconds since the epoch."""
    finished_at: float = 0.0
    bytes_read: int = 0
    bytes_stored: int = 0
    warnings: int = 0
    stages: Stages | None = None
    """What the time of its transfer went into; None when that is not known."""
    catalog: str = ""
    """Whose history has it: host and folder."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One order and how it stands: for people and the API."""

    id: str
    order: Order
    state: JobState
    priority: int = 0
    mover: str | None = None
    """Name of the mover that has or had it."""
    attempt: int = 0
    """How many times it was begun: more than once when a mover died."""
    asked_at: float
    """Seconds since the epoch."""
    progress: Progress | None = None
    """As of its last heartbeat."""
    result: Result | None = None

    @property
    def place(self) -> Place:
        """Where it is among all."""
        return round(self.asked_at * 1000), self.id
