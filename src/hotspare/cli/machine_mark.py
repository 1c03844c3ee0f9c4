"""``hotspare machine tag``, ``disk``, ``hook`` and ``check``: what is noted down on a machine for later."""

import re
from typing import Annotated, Literal

from cyclopts import Parameter

from hotspare.cli import output
from hotspare.cli.documents import machine_fields
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.session import Session
from hotspare.errors import UsageError
from hotspare.platforms.hooks.hook import parse_hook
from hotspare.platforms.platform import MachineMarks
from hotspare.restore.boot_test.check import parse_check

_TAG = re.compile(r"\w[\w.:-]{0,63}")

PlatformOption = Annotated[str | None, Parameter(name="--platform")]


def tag(
    name: str,
    action: Literal["add", "remove"],
    /,
    *tags: str,
    platform: PlatformOption = None,
    options: Options = DEFAULTS,
) -> None:
    """Add tags to a machine, or remove some. "backup --tag" chooses machines by them.

    libvirt keeps them in the machine's own definition, so that they stay when it is moved, and come back
    with a restore.

    Args:
        name: Name or id of the machine.
        action: What to do.
        tags: Letters, digits, and ". : - _" but not in front.
        platform: URI of the platform; else HOTSPARE_PLATFORM, else qemu:///system.
        options: See below.
    """
    _refuse_none(tags, "tag")
    for one in tags:
        if not _TAG.fullmatch(one):
            raise UsageError(
                f"{one!r} cannot be a tag",
                meaning="Nothing was changed",
                hint="Use letters, digits, and . : - _ behind the first of them; 64 at most",
            )
    _change(name, platform, options, tags=(action, tags))


def disk(
    name: str,
    action: Literal["exclude", "include"],
    /,
    *disks: str,
    platform: PlatformOption = None,
    options: Options = DEFAULTS,
) -> None:
    """Exclude disks of a machine from all later backups, or include them again.

    What is excluded is named on each restore point, and a restored machine comes without it. Once included
    again, the disk is read in full the first time. "backup --disk" backs it up nevertheless, once.

    Args:
        name: Name or id of the machine.
        action: What to do.
        disks: Names (vdb), serials or aliases of disks, or patterns of them ('vd[cd]').
        platform: URI of the platform; else HOTSPARE_PLATFORM, else qemu:///system.
        options: See below.
    """
    _refuse_none(disks, "disk")
    _change(name, platform, options, disks=(action, disks))


def hook(
    name: str,
    action: Literal["add", "remove"],
    /,
    *hooks: str,
    platform: PlatformOption = None,
    options: Options = DEFAULTS,
) -> None:
    """Add hooks to a machine, which quiesce applications inside while it is backed up, or remove some.

    They are begun in the order in which they were added. A hook that is there already gets the new settings.

    Args:
        name: Name or id of the machine.
        action: What to do.
        hooks: postgresql, mariadb, guest:NAME or host:NAME (a script in /etc/hotspare/hooks.d there), if need
            be with ,timeout=60s and ,on-failure=fail, warn or ignore.
        platform: URI of the platform; else HOTSPARE_PLATFORM, else qemu:///system.
        options: See below.
    """
    _refuse_none(hooks, "hook")
    if action == "add":
        for each in hooks:
            parse_hook(each)
    _change(name, platform, options, hooks=(action, hooks))


def check(
    name: str,
    action: Literal["add", "remove"],
    /,
    *checks: str,
    platform: PlatformOption = None,
    options: Options = DEFAULTS,
) -> None:
    """Add checks to a machine, which its restore points have to pass in "verify --boot", or remove some.

    A check that is there already gets the new settings.

    Args:
        name: Name or id of the machine.
        action: What to do.
        checks: agent, heartbeat, tcp:PORT, postgresql, mariadb, guest:NAME or host:NAME (a script in
            /etc/hotspare/checks.d there), if need be with ,timeout=2m and, for databases, ,sql=QUERY.
        platform: URI of the platform; else HOTSPARE_PLATFORM, else qemu:///system.
        options: See below.
    """
    _refuse_none(checks, "check")
    if action == "add":
        for each in checks:
            parse_check(each)
    _change(name, platform, options, checks=(action, checks))


_Change = tuple[str, tuple[str, ...]]


def _change(
    name: str,
    uri: str | None,
    options: Options,
    *,
    tags: _Change = ("add", ()),
    disks: _Change = ("exclude", ()),
    hooks: _Change = ("add", ()),
    checks: _Change = ("add", ()),
) -> None:
    with Session(options, platform=uri) as session:
        platform = session.platform()
        before = platform.inspect(name).marks
        marks = MachineMarks(
            tags=_changed(before.tags, *tags, adds="add"),
            excluded_disks=_changed(before.excluded_disks, *disks, adds="exclude"),
            hooks=_changed_by_name(before.hooks, *hooks),
            checks=_changed_by_name(before.checks, *checks),
        )
        machine = platform.mark(name, marks)
        if session.as_json:
            output.print_document(output.document("machine-marked", machine=machine_fields(machine)))
            return
        output.print_text(f"Tags of {machine.name}: {', '.join(machine.marks.tags) or 'none'}")
        excluded = ", ".join(machine.marks.excluded_disks)
        output.print_text(f"Disks excluded from its backups: {excluded or 'none'}")
        output.print_text(f"Hooks run in it: {'; '.join(machine.marks.hooks) or 'none'}")
        output.print_text(f"Checks of its boot tests: {'; '.join(machine.marks.checks) or 'none'}")


def _changed(before: tuple[str, ...], action: str, changes: tuple[str, ...], *, adds: str) -> tuple[str, ...]:
    after = set(before) | set(changes) if action == adds else set(before) - set(changes)
    return tuple(sorted(after))


def _changed_by_name(before: tuple[str, ...], action: str, changes: tuple[str, ...]) -> tuple[str, ...]:
    """Take hooks and checks by their names: what they are set to does not matter."""
    after = {each.partition(",")[0]: each for each in before}
    for each in changes:
        if action == "add":
            after[each.partition(",")[0]] = each
        else:
            after.pop(each.partition(",")[0], None)
    return tuple(after.values())


def _refuse_none(given: tuple[str, ...], what: str) -> None:
    if not given:
        raise UsageError(
            f"No {what} is named", meaning="Nothing was changed", hint=f'See "hotspare machine {what} --help"'
        )
