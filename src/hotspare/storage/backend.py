"""The contract of an object store. ``tests/contracts/storage_suite.py`` holds each one to it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from typing_extensions import Buffer

Durability = Literal["fsync", "best-effort", "store"]
"""What stands behind a ``put`` that returned: ``fsync`` of the file and its folder; ``best-effort``, where
the server cannot be asked to sync; ``store``, the word of an object store that acknowledged the object."""


Access = Literal["full", "append-only", "read-only"]
"""What a store lets this client do; enforced by its server."""


class ObjectInfo(NamedTuple):
    """One object in a listing."""

    name: str
    """Slash-separated path of lower-case ASCII letters, digits, ``-``, ``_`` and ``.``."""
    size: int
    """Bytes."""


class ConditionalPuts(Protocol):
    """Putting an object only where there is none; what a store answers is to be believed only if probed."""

    def put_new(self, name: str, parts: Sequence[Buffer]) -> bool:
        """Store an object as ``Backend.put`` does unless the name is taken; tell whether it was stored.

        After a lost answer the call must not be repeated: the object that is there may be one's own.
        """
        ...


class ObjectVersion(NamedTuple):
    """One version of an object, or a marker that hides the older ones."""

    name: str
    version: str
    size: int
    """Bytes; 0 of a marker."""
    modified: datetime
    """When it was stored, by the store's clock."""
    newest: bool
    """Whether it is what ``get`` and ``list`` go by."""
    marker: bool
    """Whether it only says that the object was deleted."""


class ObjectLocks(Protocol):
    """Objects that nobody can delete or shorten before a date (S3 object lock, compliance mode).

    A store with locks keeps versions: deleting or replacing an object hides the locked version, and does
    not remove it. Times are aware datetimes, kept to the second.
    """

    def put_locked(self, name: str, parts: Sequence[Buffer], until: datetime) -> str:
        """Store an object that is locked from the start; gives its version.

        Raises ``StorageError`` when the store does not show that very lock afterwards.
        """
        ...

    def extend(self, name: str, until: datetime, version: str | None = None) -> None:
        """Lock a version for longer, the newest unless told; ``PermissionRefused`` if it is already."""
        ...

    def locked_until(self, name: str, version: str | None = None) -> datetime | None:
        """Tell how long a version is locked; None when it is not. Raises ``ObjectNotFound``."""
        ...

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """Yield all versions and markers of the objects whose names start so: by name, the newest first."""
        ...

    def get_version(self, name: str, version: str) -> bytes:
        """Give the whole content of a version, hidden or not. Raises ``ObjectNotFound``."""
        ...

    def delete_version(self, name: str, version: str) -> None:
        """Remove one version or marker for good. Raises ``PermissionRefused`` while it is locked.

        Where it was the newest, the one before it is to be seen again.
        """
        ...

    def has_version(self, name: str, version: str) -> bool:
        """Tell whether one version is still there."""
        ...


class Space(NamedTuple):
    """How full the file system is that a store lies on. Bytes."""

    free: int
    """What this client may still store."""
    total: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store may do beyond the contract, None where it has no such thing; and what it lets us do."""

    conditional_puts: ConditionalPuts | None = None
    locks: ObjectLocks | None = None
    access: Access = "full"
    space: Callable[[], Space | None] | None = None
    """Asks the store how full it is; None where its server turns out not to tell. Raises as ``Backend``."""


class Backend(Protocol):
    """A store of whole objects. Every method may be called from several threads at once.

    Any method may raise ``StorageError`` (or its subclass that fits), ``PermissionRefused`` or
    ``NoSpace``. A ``StorageError`` whose ``may_pass`` is set leaves open whether the call took effect.
    """

    url: str
    """Where the store is, without secrets; for messages."""

    @property
    def durability(self) -> Durability:
        """What an object's survival rests on; may connect to find out."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What the store offers beyond this contract; ``storage/probe.py`` tells whether it is true."""
        ...

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """Store the concatenation of ``parts``; durable, whole and visible to all on return.

        On any error, and after a crash at any moment, the object is either not there or whole.
        Putting a name that exists replaces it in one step.
        """
        ...

    def get(self, name: str) -> bytes:
        """Give the whole object. Raises ``ObjectNotFound``."""
        ...

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Give exactly ``length`` bytes from ``offset``.

        Raises:
            ObjectNotFound: there is no such object.
            StorageError: the object is too short.
        """
        ...

    def size(self, name: str) -> int:
        """Give the object's size in bytes. Raises ``ObjectNotFound``."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose name starts with ``prefix``, in the order of their names."""
        ...

    def delete(self, name: str) -> None:
        """Remove the object; removing what is not there is no error."""
        ...

    def close(self) -> None:
        """Let go of connections; a second call does nothing, and any other call connects anew."""
        ...
