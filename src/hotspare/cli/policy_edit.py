"""``hotspare policy add``, ``edit`` and ``remove``."""

import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cyclopts import Group, Parameter
from cyclopts.types import NonNegativeInt

from hotspare.cli import output
from hotspare.cli.confirmation import Yes, confirm
from hotspare.cli.options import DEFAULTS, Options, Repeatable, Switch
from hotspare.cli.outside_approval import outside_approval
from hotspare.cli.policy_checks import check_beyond
from hotspare.cli.session import Session
from hotspare.errors import ConfigError, HotspareError, TargetExists, UsageError
from hotspare.policy.document import all_fields, read_policy, write_policy
from hotspare.policy.policy import Manner, Misfit, Policy, Schedule, checked
from hotspare.policy.retention import Retention
from hotspare.policy.selection import Selection
from hotspare.policy.shortening import what_shortens

_WHAT = Group.create_ordered("What the policy says")


@Parameter(name="*", group=_WHAT)
@dataclass(frozen=True, kw_only=True)
class Definition:
    """What is said most often; "policy edit" and "config apply" can say the rest."""

    description: str = ""
    """In words, for people."""
    platform: Repeatable = ()
    """URI of a platform; may be given again. Without it, the one that is set for commands."""
    include: Repeatable = ()
    """Machines whose name fits this pattern (as 'web*'); may be given again. Without it and --tag, all."""
    exclude: Repeatable = ()
    """But none whose name fits this one; may be given again."""
    tag: Repeatable = ()
    """Machines with this tag; given again, those with one of the tags."""
    when: Repeatable = ()
    """When it is due: 22:00, 'Mon..Fri 22:00', hourly, or as for cron '0 22 * * 1-5'; may be given again."""
    time_zone: str = "UTC"
    """Whose clock that means: Europe/Berlin."""
    window: Repeatable = ()
    """When runs may begin: '22:00-06:00' or 'Sat,Sun 00:00-24:00'; may be given again."""
    rpo: str = ""
    """The oldest that the newest restore point may become: 26h."""
    hook: Repeatable = ()
    """As for "backup"; may be given again."""
    keep_last: NonNegativeInt = 0
    """Keep the newest so many restore points. Without any of these six, all are kept for ever."""
    keep_hourly: NonNegativeInt = 0
    """And the newest of each of the last so many hours that have one,"""
    keep_daily: NonNegativeInt = 0
    """days,"""
    keep_weekly: NonNegativeInt = 0
    """weeks,"""
    keep_monthly: NonNegativeInt = 0
    """months"""
    keep_yearly: NonNegativeInt = 0
    """and years."""

    def policy(self, name: str, repository: str) -> Policy:
        """Make a policy of it."""
        return Policy(
            name=name,
            description=self.description,
            repository=repository,
            select=Selection(
                platforms=self.platform, names=self.include, exclude=self.exclude, tags=self.tag
            ),
            schedule=Schedule(when=self.when, time_zone=self.time_zone, windows=self.window, rpo=self.rpo),
            backup=Manner(hooks=self.hook),
            retention=Retention(
                last=self.keep_last,
                hourly=self.keep_hourly,
                daily=self.keep_daily,
                weekly=self.keep_weekly,
                monthly=self.keep_monthly,
                yearly=self.keep_yearly,
            ),
        )


NOTHING_SAID = Definition()


def add(
    name: str,
    /,
    *,
    definition: Definition = NOTHING_SAID,
    dry_run: Switch = False,
    options: Options = DEFAULTS,
) -> None:
    """Add a policy.

    It goes to the repository that is named with --repository, else to the one that is set when it runs.

    Args:
        name: Small letters, digits and . _ -; no policy has it yet.
        definition: See below.
        dry_run: Only show it.
        options: See below.
    """
    with Session(options) as session:
        files = session.policies()
        if name in files.names():
            raise TargetExists(
                f"There is a policy '{name}' already",
                meaning="It is as it was",
                hint=f"Change it with 'hotspare policy edit {name}'",
            )
        try:
            policy = checked(definition.policy(name, options.repository or ""))
        except Misfit as misfit:
            raise UsageError(misfit.what, meaning="Nothing was added", hint=misfit.hint) from misfit
        check_beyond(policy)
        if not dry_run:
            with outside_approval(session, "policy add", name, what_shortens(None, policy)):
                files.put(policy)
        _say("Would add" if dry_run else "Added", policy, session)


def edit(name: str, /, *, options: Options = DEFAULTS) -> None:
    """Change a policy in your editor: VISUAL, EDITOR or vi. What cannot be understood is not saved.

    Args:
        name: Name of the policy.
        options: See below.
    """
    with Session(options) as session:
        files = session.policies()
        before = files.text(name)
        with tempfile.TemporaryDirectory(prefix="hotspare-policy-") as folder:
            draft = Path(folder) / f"{name}.yaml"
            draft.write_text(before, encoding="utf-8")
            while True:
                _open_editor(draft)
                after = draft.read_text(encoding="utf-8", errors="surrogateescape")
                try:
                    policy = read_policy(after, name, str(draft))
                    check_beyond(policy)
                except (ConfigError, UsageError) as error:
                    _offer_again(error)
                    continue
                break
        if after != before:
            shortened = what_shortens(_understood(before, name), policy)
            with outside_approval(session, "policy edit", name, shortened):
                files.put_text(name, after)
        _say("Changed" if after != before else "Did not change", policy, session)


def remove(
    name: str,
    /,
    *,
    yes: Yes = False,
    dry_run: Switch = False,
    options: Options = DEFAULTS,
) -> None:
    """Remove a policy. Its machines are not backed up by it any more; restore points stay as they are.

    Args:
        name: Name of the policy.
        yes: Do not ask.
        dry_run: Only say what would be removed.
        options: See below.
    """
    with Session(options) as session:
        files = session.policies()
        files.text(name)
        if not dry_run:
            confirm(f"Remove the policy {name}?", "Nothing was removed", yes=yes)
            with outside_approval(session, "policy remove", name, ()):
                files.remove(name)
        if session.as_json:
            output.print_document(output.document("policy-removed", name=name, dry_run=dry_run))
        else:
            output.print_text(f"{'Would remove' if dry_run else 'Removed'} the policy {name}.")


def _say(verb: str, policy: Policy, session: Session) -> None:
    if session.as_json:
        output.print_document(output.document("policy", policy=all_fields(policy)))
        return
    output.print_text(f"{verb} the policy {policy.name}:\n{write_policy(policy).rstrip()}")
    output.print_text(f"\nSee what it means with 'hotspare policy preview {policy.name}'.")


def _understood(text: str, name: str) -> Policy | None:
    try:
        return read_policy(text, name, name)
    except ConfigError:
        return None  # what cannot be read keeps nothing by itself


def _open_editor(path: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), str(path)], check=False)
    except OSError as error:
        raise UsageError(
            f"The editor {editor!r} cannot be started: {error.strerror}",
            meaning="The policy is as it was",
            hint="Name another with EDITOR, or use 'hotspare config apply'",
        ) from error
    if done.returncode:
        raise HotspareError(
            f"The editor {editor!r} ended with {done.returncode}",
            meaning="The policy is as it was",
            hint="Try again",
        )


def _offer_again(error: HotspareError) -> None:
    if not sys.stdin.isatty():
        raise error
    output.note(f"{error} Edit again? [Y/n]")
    if sys.stdin.readline().strip().lower() in {"n", "no"}:
        raise error
