"""Whether a changed policy may forget what it kept before: what a second person has to agree to."""

import msgspec

from hotspare.policy.policy import Policy


def shortens(before: Policy | None, after: Policy) -> bool:
    """Tell whether a policy may forget what it kept before; one that selects other machines may."""
    return bool(what_shortens(before, after))


def what_shortens(before: Policy | None, after: Policy) -> list[str]:
    """Say by what a policy may forget what it kept before; empty when it may not.

    Args:
        before: None where there was none, or none that can be understood.
        after: what it shall be.
    """
    if after.retention.keeps_all:
        return []
    if before is None:
        return [f"the policy {after.name} is new, and does not keep everything"]
    if before.retention.keeps_all:
        return [f"the policy {after.name} kept everything, and would no longer"]
    said = []
    if before.select != after.select or before.repository != after.repository:
        said.append(f"the policy {after.name} would go for other machines or another repository")
    pairs = zip(
        before.retention.__struct_fields__,
        msgspec.structs.astuple(before.retention),
        msgspec.structs.astuple(after.retention),
        strict=True,
    )
    said += [
        f"the policy {after.name} would keep {later} {kind} in place of {earlier}"
        for kind, earlier, later in pairs
        if later < earlier
    ]
    return said
