"""The policies of this host: one YAML file each, and ``limits.yaml`` and ``notices.yaml`` beside them.

They lie beside the configuration file and not in the catalog, for they are what users decided: the catalog
may be lost, or set aside when it is damaged. As files they can be read, compared, copied and kept in Git
without us, and a backup of ``/etc`` has them.
"""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from hotspare.block.file import make_name_durable
from hotspare.errors import ConfigError, HotspareError, NoSpace, PermissionRefused, PolicyNotFound
from hotspare.policy.document import (
    read_limits,
    read_policy,
    read_receivers,
    write_limits,
    write_policy,
    write_receivers,
)
from hotspare.policy.limits import Limits
from hotspare.policy.policy import NAME, RESERVED, Policy
from hotspare.policy.receiver import Receiver
from hotspare.whole_file import replace_file

_LIMITS = "limits"
_NOTICES = "notices"
_SUFFIX = ".yaml"


class PolicyFiles:
    """The policies in a folder, which need not be there while there are none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Give the names of all policies, in order. Raises ``PermissionRefused``."""
        with _explained(self.folder, "read"):
            try:
                found = [path.stem for path in self.folder.iterdir() if path.suffix == _SUFFIX]
            except FileNotFoundError:
                return []
        return sorted(name for name in found if NAME.fullmatch(name) and name not in RESERVED)

    def all(self) -> dict[str, Policy]:
        """Read all policies, by name.

        Raises:
            ConfigError: a file is none that can be read; names the line.
            PermissionRefused: one may not be read.
        """
        return {name: self.get(name) for name in self.names()}

    def get(self, name: str) -> Policy:
        """Read one policy.

        Raises:
            PolicyNotFound: there is none of that name.
            ConfigError: its file cannot be understood; names the line.
            PermissionRefused: it may not be read.
        """
        return _understood(self.text(name), name, str(self.path(name)))

    def text(self, name: str) -> str:
        """Read a policy's file as it is. Raises ``PolicyNotFound`` and ``PermissionRefused``."""
        path = self.path(name)
        text = self._read(path) if NAME.fullmatch(name) and name not in RESERVED else None
        if text is None:
            known = ", ".join(self.names()) or "none"
            raise PolicyNotFound(
                f"There is no policy '{name}' in {self.folder}",
                meaning="Nothing was done",
                hint=f"Those that there are: {known}",
            )
        return text

    def changed_at(self, name: str) -> datetime:
        """Tell since when a policy is as it is. Raises ``PolicyNotFound``."""
        self.text(name)
        return datetime.fromtimestamp(self.path(name).stat().st_mtime, UTC)

    def put(self, policy: Policy) -> None:
        """Write a policy, in place of one of that name; one that says the same already is left as it is.

        Raises:
            PermissionRefused: the folder may not be written.
            NoSpace: its file system is full.
        """
        if policy.name in self.names():
            with suppress(HotspareError):  # one that cannot be read is replaced
                if self.get(policy.name) == policy:
                    return
        self.put_text(policy.name, write_policy(policy))

    def put_text(self, name: str, text: str) -> None:
        """Write a policy's file as it is, which has to be one that can be read. Raises as ``put``."""
        self._write(self.path(name), text)

    def remove(self, name: str) -> None:
        """Remove a policy; its restore points stay. Raises ``PolicyNotFound`` and ``PermissionRefused``."""
        self.text(name)
        with _explained(self.folder, "written"):
            self.path(name).unlink()
            make_name_durable(self.path(name))

    def limits(self) -> Limits:
        """Read the limits; the usual ones when there is no file. Raises ``ConfigError``."""
        path = self.path(_LIMITS)
        text = self._read(path)
        return Limits() if text is None else _understood_limits(text, str(path))

    def put_limits(self, limits: Limits) -> None:
        """Write the limits. Raises as ``put``."""
        if self.limits() != limits:
            self._write(self.path(_LIMITS), write_limits(limits))

    def receivers(self) -> dict[str, Receiver]:
        """Read who is told of what, by name; nobody when there is no file. Raises ``ConfigError``."""
        path = self.path(_NOTICES)
        text = self._read(path)
        return {} if text is None else {one.name: one for one in read_receivers(text, str(path))}

    def put_receivers(self, receivers: Iterable[Receiver]) -> None:
        """Write who is told of what, all of them. Raises as ``put``."""
        wanted = {one.name: one for one in receivers}
        with suppress(ConfigError):  # what cannot be read is replaced
            if self.receivers() == wanted:
                return
        self._write(self.path(_NOTICES), write_receivers(wanted))

    def path(self, name: str) -> Path:
        """Tell where a policy is, or would be."""
        return self.folder / f"{name}{_SUFFIX}"

    def _read(self, path: Path) -> str | None:
        with _explained(path, "read"):
            try:
                return path.read_text(encoding="utf-8", errors="surrogateescape")
            except FileNotFoundError:
                return None

    def _write(self, path: Path, text: str) -> None:
        """Put a new file in place of an old one, so that whoever reads finds one or the other, whole."""
        with _explained(self.folder, "written"):
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace_file(path, text.encode(), mode=0o666)


@lru_cache(maxsize=4096)
def _understood(text: str, name: str, source: str) -> Policy:
    """Read a policy once: a server looks at all of them for each list of machines."""
    return read_policy(text, name, source)


_understood_limits = lru_cache(maxsize=8)(read_limits)
"""Likewise: a server looks at them every second."""


@contextmanager
def _explained(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        kind = NoSpace if full else PermissionRefused
        raise kind(
            f"{path} cannot be {verb}: {error.strerror}",
            meaning="The policies are as they were",
            hint="Free some space"
            if full
            else "Run hotspare as a user who may, or name another folder with HOTSPARE_POLICY_FOLDER",
        ) from error
