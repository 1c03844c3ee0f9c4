"""What people may want to be told: something that is wrong, that is well again, or that just happened."""

from datetime import datetime
from typing import Literal

import msgspec

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")
"""In order."""
Kind = Literal[
    "run-failed",
    "run-ok",
    "run-missed",
    "rpo-broken",
    "unprotected",
    "restore-test-failed",
    "restore-test-old",
    "repository-damaged",
    "repository-nearly-full",
    "replication-degraded",
    "replication-failed-over",
    "approval-waiting",
    "server-silent",
    "unknown",
    "test",
]
State = Literal["broken", "mended", "once"]
"""A problem is ``broken`` each time it is seen until it is ``mended``; what only happens is ``once``."""
SEVERITY_OF: dict[Kind, Severity] = {
    "run-failed": "error",
    "run-ok": "info",
    "run-missed": "warning",
    "rpo-broken": "error",
    "unprotected": "warning",
    "restore-test-failed": "error",
    "restore-test-old": "warning",
    "repository-damaged": "error",
    "repository-nearly-full": "warning",
    "replication-degraded": "warning",
    "replication-failed-over": "error",
    "approval-waiting": "warning",
    "server-silent": "error",
    "unknown": "error",
    "test": "info",
}


class Occurrence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to tell; also as it is kept until it is sent."""

    kind: Kind
    state: State
    subject: str
    """What it is about. With the kind it names a problem, so it never changes while that lasts."""
    title: str
    """One line, with the name of what it is about."""
    at: datetime
    text: str = ""
    """More of it, for people."""
    machine: str = ""
    """Name; empty where it is not about a machine."""
    platform: str = ""
    """URI."""
    policy: str = ""
    tags: tuple[str, ...] | None = None
    """The machine's; None when they are not known."""
    time_zone: str = ""
    """The policy's."""

    @property
    def severity(self) -> Severity:
        """How bad it is; what is mended is as bad as it was."""
        return SEVERITY_OF[self.kind]
