"""Opening a repository whose config and key slots were deleted or replaced, by the versions below."""

from collections.abc import Iterator, Mapping, Sequence

from hotspare.errors import HotspareError, ObjectNotFound, RepositoryDamaged
from hotspare.repository.format import CONFIG, KEYS, RepositoryConfig
from hotspare.repository.keys import Keyring
from hotspare.repository.keys.slot import Credential
from hotspare.repository.object_lock.genuine import contents
from hotspare.repository.opening import open_keys
from hotspare.storage.backend import Backend, ObjectInfo, ObjectLocks, ObjectVersion
from hotspare.storage.wrappers.forwarding import ForwardingBackend


class _ObjectsBelow(ForwardingBackend):
    """Shows a few objects as they were, and nothing else."""

    def __init__(self, inner: Backend, objects: Mapping[str, bytes]) -> None:
        super().__init__(inner)
        self._objects = objects

    def get(self, name: str) -> bytes:
        """See ``Backend.get``."""
        if name not in self._objects:
            raise ObjectNotFound(f"{name} in {self.url} is not there")
        return self._objects[name]

    def size(self, name: str) -> int:
        """See ``Backend.size``."""
        return len(self.get(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``Backend.list``."""
        names = sorted(name for name in self._objects if name.startswith(prefix))
        return (ObjectInfo(name, len(self._objects[name])) for name in names)


def open_below(
    backend: Backend,
    locks: ObjectLocks,
    versions: Mapping[str, Sequence[ObjectVersion]],
    credential: Credential,
) -> tuple[RepositoryConfig, Keyring]:
    """Open by what was stored first under the names of key slots, and any config that goes with them.

    Raises:
        WrongKey: the credential fits no key slot that was ever there.
        RepositoryDamaged: no config goes with it.
    """
    keys = {
        name: locks.get_version(name, stored[0].version)
        for name, found in versions.items()
        if name.startswith(KEYS) and (stored := contents(found))
    }
    failure: HotspareError = RepositoryDamaged(
        f"No version of the config object of {backend.url} can be used"
    )
    for one in reversed(contents(versions[CONFIG])):
        below = _ObjectsBelow(backend, keys | {CONFIG: locks.get_version(CONFIG, one.version)})
        try:
            config, chest = open_keys(below, credential)
        except HotspareError as error:
            failure = error
        else:
            return config, Keyring(config.id, chest.secrets)
    raise failure
