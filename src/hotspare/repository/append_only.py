"""What a client may do that may add restore points and do nothing else; a server enforces it.

The table is what a backup needs, and no more: tests/repository/test_append_only.py compares it with what
backups do. Why each other object is out of reach is in docs/storage.md, "Append-only".
"""

import re

from hotspare.errors import PermissionRefused
from hotspare.repository.format import DATA, INDEX, META, PARITY, POINTS, SESSIONS
from hotspare.repository.session import SessionKind
from hotspare.storage.backend import Backend
from hotspare.storage.served.access import AccessRules, Change, NameRule

_PACK = rf"(?:{DATA}|{META})/([0-9a-f]{{2}})/\1[0-9a-f]{{62}}"
_SESSION = rf"{SESSIONS}{SessionKind.WRITER.value[0]}-[0-9a-f]{{32}}"

_TABLE = {
    _PACK: Change.ADD_HASHED,
    PARITY + _PACK: Change.ADD,
    rf"{INDEX}[0-9a-f]{{64}}": Change.ADD_HASHED,
    rf"{POINTS}[0-9a-f]{{32}}/[0-9]{{8}}-[0-9]{{6}}-[a-z2-9]{{5}}": Change.ADD,
    # A writer shows again and again that it lives, and takes its session back at the end.
    _SESSION: Change.OWN,
}

APPEND_ONLY = AccessRules(
    "append-only",
    tuple(NameRule(re.compile(pattern), change) for pattern, change in _TABLE.items()),
    own_prefix=SESSIONS,
)


def require_writable(backend: Backend) -> None:
    """Raise ``PermissionRefused`` when the store can only be read from here."""
    if backend.capabilities.access == "read-only":
        raise PermissionRefused(
            f"{backend.url} can only be read over this connection",
            meaning="Nothing was written",
            hint="Use a key whose command in the server's authorized_keys says --append-only",
        )


def require_removable(backend: Backend) -> None:
    """Raise ``PermissionRefused`` when nothing can be removed from the store from here."""
    access = backend.capabilities.access
    if access != "full":
        raise PermissionRefused(
            f"{backend.url} is {access} over this connection: nothing can be removed",
            meaning="Nothing was changed",
            hint="Run it on the server itself, with the folder as the repository, or with a key that"
            " may do everything",
        )
