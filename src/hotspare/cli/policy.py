"""``hotspare policy``: what is protected, when, how and for how long."""

from hotspare.cli import output
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.policy_edit import add, edit, remove
from hotspare.cli.session import Session
from hotspare.errors import (
    ConsistencyNotReached,
    MachineNotFound,
    NoSpace,
    PartialFailure,
    PermissionRefused,
    PlatformUnavailable,
    PointKept,
    PolicyNotFound,
    SourceLost,
    TrackingWrong,
)
from hotspare.policy.document import all_fields, write_policy
from hotspare.policy.policy import Policy

app = noun("policy", "Say what is protected, when, how and for how long, and have it done.")


@app.command(
    name="list",
    help_epilogue=closing(["hotspare policy list", "hotspare policy list -o json"], PermissionRefused),
)
def list_policies(*, options: Options = DEFAULTS) -> None:
    """List the policies of this host.

    Args:
        options: See below.
    """
    with Session(options) as session:
        policies = session.policies().all().values()
        if session.as_json:
            fields = [all_fields(policy) for policy in policies]
            output.print_document(output.document("policies", policies=fields))
            return
        header = ("POLICY", "ENABLED", "MACHINES", "WHEN", "RPO", "KEEPS", "REPOSITORY")
        output.print_table(header, [_cells(policy) for policy in policies])


@app.command(help_epilogue=closing(["hotspare policy show nightly"], PolicyNotFound, PermissionRefused))
def show(name: str, /, *, options: Options = DEFAULTS) -> None:
    """Show a policy as YAML.

    Args:
        name: Name of the policy.
        options: See below.
    """
    with Session(options) as session:
        policy = session.policies().get(name)
        if session.as_json:
            output.print_document(output.document("policy", policy=all_fields(policy)))
        else:
            output.print_text(f"# {session.policies().path(name)}\n{write_policy(policy).rstrip()}")


app.command(
    add,
    help_epilogue=closing(
        [
            "hotspare policy add nightly --when 22:00 --keep-daily 7 --keep-weekly 4",
            "hotspare policy add databases --tag db --when hourly --rpo 2h --keep-hourly 48 --dry-run",
        ],
        PermissionRefused,
        NoSpace,
    ),
)
app.command(edit, help_epilogue=closing(["hotspare policy edit nightly"], PolicyNotFound, PermissionRefused))
app.command(
    remove, help_epilogue=closing(["hotspare policy remove nightly --yes"], PolicyNotFound, PermissionRefused)
)
app.command(
    # What opens repositories and platforms is imported when it is used.
    "hotspare.cli.policy_preview:preview",
    name="preview",
    help="Show what a policy selects, when it is due, and what its retention would forget.",
    help_epilogue=closing(
        ["hotspare policy preview nightly", "hotspare policy preview nightly --next 10 -o json"],
        PolicyNotFound,
        PlatformUnavailable,
        *OPENING,
    ),
)
app.command(
    "hotspare.cli.policy_run:run",
    name="run",
    help="Back up the machines of a policy now, or those of all policies that are due.",
    help_epilogue=closing(
        [
            "hotspare policy run nightly",
            "hotspare policy run nightly --dry-run",
            "hotspare policy run --due",
        ],
        PartialFailure,
        *OPENING,
        PolicyNotFound,
        PlatformUnavailable,
        MachineNotFound,
        NoSpace,
        SourceLost,
        ConsistencyNotReached,
        TrackingWrong,
        interruptible=True,
    ),
)
app.command(
    "hotspare.cli.policy_forget:forget",
    name="forget",
    help="Remove the restore points that a policy's retention does not keep.",
    help_epilogue=closing(
        ["hotspare policy forget nightly --dry-run", "hotspare policy forget nightly --yes"],
        PolicyNotFound,
        PlatformUnavailable,
        PointKept,
        *OPENING,
    ),
)


def _cells(policy: Policy) -> tuple[str, ...]:
    select, retention = policy.select, policy.retention
    which = [
        *select.names,
        *(f"not {pattern}" for pattern in select.exclude),
        *(f"tag {t}" for t in select.tags),
    ]
    kept = {name: getattr(retention, name) for name in retention.__struct_fields__}
    return (
        policy.name,
        "yes" if policy.enabled else "no",
        ", ".join(which) or "all",
        "; ".join(policy.schedule.when) or ("by its RPO" if policy.schedule.rpo else "by hand"),
        policy.schedule.rpo or "-",
        ", ".join(f"{count} {name}" for name, count in kept.items() if count) or "everything",
        policy.repository or "the one that is set",
    )
