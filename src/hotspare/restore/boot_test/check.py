"""What can be looked at in a machine on trial, as people write it: ``tcp:80,timeout=2m``."""

import os
import re
from dataclasses import dataclass, replace
from importlib import resources
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from hotspare.errors import UsageError

DATABASES = ("postgresql", "mariadb")
GUEST_FOLDER = "/etc/hotspare/checks.d"
_HOST_FOLDER = Path("/etc/hotspare/checks.d")
_DEFAULT_SECONDS = 60
_LARGEST_SCRIPT = 32 * 1024
"""Bytes; see ``platforms/hooks/hook.py``."""
_SEE = "See docs/boot-tests.md. Example: --check tcp:443,timeout=2m"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at.

    Attributes:
        name: ``agent``; ``heartbeat``; ``tcp:PORT`` or ``tcp:ADDRESS:PORT``; ``postgresql`` and ``mariadb``;
            ``guest:NAME`` for a script inside; ``host:NAME`` for one of this host, sent inside.
        seconds: how long it may take, with all its attempts.
        sql: for databases: what is asked for, in place of nothing in particular.
    """

    name: str
    seconds: int = _DEFAULT_SECONDS
    sql: str = ""

    @property
    def kind(self) -> str:
        """What comes before the first colon."""
        return self.name.partition(":")[0]

    @property
    def tcp(self) -> tuple[IPv4Address | None, int]:
        """The address, None for whichever the machine has, and the port."""
        address, _, port = self.name.partition(":")[2].rpartition(":")
        return IPv4Address(address) if address else None, int(port)

    @property
    def needs_agent(self) -> bool:
        """Whether it is done from inside."""
        return self.kind in {"agent", "guest", "host", *DATABASES}

    def script(self) -> bytes | None:
        """Read the script that is to be sent; None where it is in the guest already.

        Raises:
            OSError: it cannot be read.
            ValueError: it is too large.
        """
        if self.kind in DATABASES:
            return (resources.files(__package__) / "guest" / self.kind).read_bytes()
        if self.kind != "host":
            return None
        folder = Path(os.environ.get("HOTSPARE_CHECKS_FOLDER") or _HOST_FOLDER)
        content = (folder / self.name.partition(":")[2]).read_bytes()
        if len(content) > _LARGEST_SCRIPT:
            raise ValueError(f"it is larger than {_LARGEST_SCRIPT // 1024} KiB")
        return content


def parse_check(text: str) -> Check:
    """Read a check as people write it; ``sql=`` takes all that follows it.

    Raises:
        UsageError: there is no such check, or an option is wrong.
    """
    head, marker, sql = text.partition(",sql=")
    name, *options = (part.strip() for part in head.split(","))
    if not _is_known(name):
        raise UsageError(
            f"There is no check {name!r}: there are agent, heartbeat, tcp:PORT, {', '.join(DATABASES)},"
            " and your own guest:NAME and host:NAME",
            meaning="Nothing was done",
            hint=_SEE,
        )
    check = Check(name)
    for option in options:
        match = re.fullmatch(r"timeout=(\d{1,5})(s|m|)", option)
        if match is None or int(match[1]) == 0:
            raise UsageError(f"{option!r} is no option of a check", meaning="Nothing was done", hint=_SEE)
        check = replace(check, seconds=int(match[1]) * (60 if match[2] == "m" else 1))
    if marker and (check.kind not in DATABASES or not sql.strip()):
        raise UsageError(
            "sql= says what a database is asked for",
            meaning="Nothing was done",
            hint="See docs/boot-tests.md",
        )
    return replace(check, sql=sql.strip())


def _is_known(name: str) -> bool:
    kind, _, rest = name.partition(":")
    if kind == "tcp":
        address, _, port = rest.rpartition(":")
        return port.isdecimal() and 0 < int(port) < 65536 and (not address or _is_address(address))
    if kind in {"guest", "host"}:
        return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", rest) is not None
    return name in {"agent", "heartbeat", *DATABASES}


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True
