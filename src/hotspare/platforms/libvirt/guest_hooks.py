"""The hooks of one backup in a libvirt guest: begun before its file systems are frozen, ended after.

A script in the guest, ``hooks/guest/runner``, calls them, bounds their time, and ends them by itself when
nobody else does in time.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import libvirt

from hotspare.errors import ConsistencyNotReached
from hotspare.platforms.hooks.hook import Hook, OnFailure, script_for_guest
from hotspare.platforms.libvirt.connection import is_known_off, message_of
from hotspare.platforms.libvirt.guest_agent import run_shell, shell_request

_GRACE_SECONDS = 10
"""What the agent and the runner may take beyond the hooks' own time."""
_LEFTOVER_SECONDS = 60
_INSTALL = 'umask 077 && mkdir -p "$1" && cat > "$1/$2"'
_ADD_HOOK = 'cd "$1" && echo "$2" > "$3.path" && echo "$4" > "$3.seconds"'
_CALL = 'exec sh "$1/runner" "$2" "$3"'
_RELEASE_IF_THERE = '[ ! -e "$1/runner" ] || exec sh "$1/runner" release'
_KILLED = 137


@dataclass(slots=True)
class GuestHooks:
    """Hooks of one run.

    Args:
        domain: the guest, whose agent answers.
        run_id: names the run's folder in the guest.
        hooks: in the order in which they are begun.
        seconds_between: time from the end of the last ``freeze`` to the first ``thaw``, at most.
        check: raises when the user wants to stop.
    """

    domain: libvirt.virDomain
    run_id: str
    hooks: Sequence[Hook]
    seconds_between: int
    check: Callable[[], None]
    failures: dict[str, str] = field(default_factory=dict)
    """Per hook: what went wrong. Those to be ignored are not here."""
    warnings: list[str] = field(default_factory=list)
    """What hooks had to say."""
    used: list[tuple[str, str, str]] = field(default_factory=list)
    """Hook, mount point and path of what an application needs."""
    _began: bool = False
    _broken: set[str] = field(default_factory=set)

    @property
    def quiet(self) -> bool:
        """Whether at least one hook did its work, and none failed that counts."""
        return not self.failures and any(hook.name not in self._broken for hook in self.hooks)

    def freeze(self) -> None:
        """Begin all hooks.

        Raises:
            ConsistencyNotReached: one failed that must not.
            Interrupted: ``check`` says so.
        """
        if not self.hooks:
            return
        try:
            self._install()
        except (libvirt.libvirtError, TimeoutError, RuntimeError) as error:
            for hook in self.hooks:
                self._failed(hook, f"the guest's agent cannot run it: {_message(error)}")
            return
        self._began = True
        for number, hook in enumerate(self.hooks, 1):
            self._freeze_one(number, hook)

    @property
    def release_request(self) -> str:
        """The agent's request that ends all hooks, for somebody else to send."""
        return release_request(self.run_id) if self.hooks else ""

    def thaw(self) -> bool:
        """End all hooks that were begun; False when the guest did not answer, and somebody must try again.

        Never raises; ``judge`` does.
        """
        if not self._began:
            return True
        allowed = sum(hook.seconds for hook in self.hooks) + _GRACE_SECONDS
        try:
            ended = run_shell(self.domain, _RELEASE_IF_THERE, [_folder(self.run_id)], seconds=allowed)
        except (libvirt.libvirtError, TimeoutError, ValueError, KeyError) as error:
            for hook in self.hooks:
                self._note(hook, f"it is not known whether it was thawed: {_message(error)}")
            return is_known_off(self.domain)
        self._read_release(ended.output)
        return True

    def judge(self) -> None:
        """Raise ``ConsistencyNotReached`` when a hook failed that must not."""
        for hook in self.hooks:
            if hook.on_failure is OnFailure.FAIL and hook.name in self.failures:
                raise ConsistencyNotReached(
                    f"The hook {hook.name} failed: {self.failures[hook.name]}",
                    meaning="No restore point was made; the applications inside were set free again",
                    hint="Mend the hook, or let its failure pass with on-failure=warn",
                )

    def _install(self) -> None:
        folder = _folder(self.run_id)
        self._must(_INSTALL, [folder, "runner"], script_for_guest("runner"))
        limit = sum(hook.seconds for hook in self.hooks) + self.seconds_between
        self._must(_CALL, [folder, "watch", str(limit)])

    def _must(self, script: str, arguments: Sequence[str], stdin: bytes = b"") -> None:
        ended = run_shell(self.domain, script, arguments, stdin=stdin, seconds=_GRACE_SECONDS)
        if ended.status:
            raise RuntimeError(_last_line(ended.output) or f"exit status {ended.status}")

    def _freeze_one(self, number: int, hook: Hook) -> None:
        folder = _folder(self.run_id)
        self.check()
        try:
            path = hook.path_in_guest
            if path is None:
                path = f"{folder}/{number}.hook"
                self._must(_INSTALL, [folder, f"{number}.hook"], hook.script())
            self._must(_ADD_HOOK, [folder, path, str(number), str(hook.seconds)])
            ended = run_shell(
                self.domain,
                _CALL,
                [folder, "freeze", str(number)],
                seconds=hook.seconds + _GRACE_SECONDS,
                check=self.check,
            )
        except (libvirt.libvirtError, OSError, RuntimeError, ValueError, KeyError) as error:
            self._failed(hook, _message(error))
            return
        self._read_freeze(hook, ended.output)
        if ended.status == _KILLED:
            self._failed(hook, f"it did not end within {hook.seconds} s and was stopped")
        elif ended.status:
            self._failed(hook, _last_line(ended.output) or f"exit status {ended.status}")

    def _read_freeze(self, hook: Hook, output: str) -> None:
        for line in output.splitlines():
            if line.startswith("uses "):
                mount, _, path = line.removeprefix("uses ").partition("\t")
                self.used.append((hook.name, mount, path))
            elif line.startswith("warning: "):
                self.warnings.append(f"hook {hook.name}: {line.removeprefix('warning: ')}")

    def _read_release(self, output: str) -> None:
        by_number = {str(number): hook for number, hook in enumerate(self.hooks, 1)}
        said = dict.fromkeys(by_number, "")
        statuses: dict[str, int] = {}
        for line in output.splitlines():
            if line == "expired":
                for hook in self.hooks:
                    self._note(hook, "the backup took so long that the guest ended it by itself, too early")
            elif (match := re.fullmatch(r"(\d+) (status|says) (.*)", line)) and match[1] in by_number:
                if match[2] == "says":
                    said[match[1]] = match[3]
                elif match[3].isdigit():
                    statuses[match[1]] = int(match[3])
        for number, status in statuses.items():
            if status:
                why = said[number] or f"exit status {status}"
                self._note(by_number[number], f"after the thaw: {why}")

    def _failed(self, hook: Hook, why: str) -> None:
        self._note(hook, why)
        self.judge()

    def _note(self, hook: Hook, why: str) -> None:
        self._broken.add(hook.name)
        if hook.on_failure is not OnFailure.IGNORE:
            self.failures.setdefault(hook.name, why)


def release_request(run_id: str) -> str:
    """Give the agent's request that ends the hooks of a run, if there are any."""
    return shell_request(_RELEASE_IF_THERE, [_folder(run_id)])


def release_leftover(domain: libvirt.virDomain, run_id: str) -> None:
    """End the hooks that a dead run left, if there are any. Raises as ``run_shell`` does."""
    run_shell(domain, _RELEASE_IF_THERE, [_folder(run_id)], seconds=_LEFTOVER_SECONDS)


def disks_not_covered(
    domain: libvirt.virDomain, used: Iterable[tuple[str, str, str]], backed_up: Iterable[str]
) -> Iterator[str]:
    """Yield a warning for each path that an application needs and that is on no disk that is backed up."""
    paths = list(dict.fromkeys(used))
    if not paths:
        return
    disks = _disks_by_mount_point(domain)
    if disks is None:
        yield "the guest does not tell which disks its file systems are on; nobody checked those of hooks"
        return
    covered = frozenset(backed_up)
    for hook, mount, path in paths:
        beneath = disks.get(mount)
        if not beneath:
            yield f"hook {hook}: {path} is on no disk of this machine, so it is not in the restore point"
        elif missing := sorted(beneath - covered):
            yield f"hook {hook}: {path} is on disk {', '.join(missing)}, which is not backed up"


def _disks_by_mount_point(domain: libvirt.virDomain) -> Mapping[str, frozenset[str]] | None:
    try:
        # Each is (mount point, device name, type, disks as the definition calls them).
        return {mount: frozenset(disks or ()) for mount, _name, _type, disks in domain.fsInfo()}
    except libvirt.libvirtError:
        return None


def _folder(run_id: str) -> str:
    return f"/run/hotspare/{run_id}"


def _message(error: Exception) -> str:
    if isinstance(error, libvirt.libvirtError):
        return message_of(error)
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith("uses ")]
    return lines[-1][:500] if lines else ""
