"""Routes of policies."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Body, Path, Request
from starlette.responses import Response

from hotspare.api.answers import answer, waiting
from hotspare.api.guard import CallerHere, Server, ServerHere
from hotspare.errors import HotspareError, PolicyNotFound
from hotspare.policy.document import all_fields, policy_fields, read_policy
from hotspare.policy.policy import NAME, Policy
from hotspare.policy.shortening import shortens

PolicyName = Annotated[str, Path(pattern=f"^{NAME.pattern}$")]


def list_policies(server: ServerHere) -> Response:
    """List the policies."""
    policies = server.estate.policies().all().values()
    return answer("policies", policies=[all_fields(policy) for policy in policies])


def show_policy(policy: PolicyName, server: ServerHere) -> Response:
    """Describe a policy."""
    return answer("policy", policy=all_fields(server.estate.policies().get(policy)))


def put_policy(
    policy: PolicyName,
    body: Annotated[dict[str, Any], Body(description="As in the policy's YAML file; see docs/policies.md.")],
    request: Request,
    server: ServerHere,
    caller: CallerHere,
) -> Response:
    """Make a policy, or put it in place of what it was; shorter retention may need a second person."""
    wanted = read_policy(json.dumps(body, indent=1), policy, "the request")
    request.state.detail = {"policy": policy_fields(wanted)}
    if server.access.approvals.needed and shortens(_known(server, policy), wanted):
        summary = f"Keep less by the policy {policy}"
        arguments = {"policy": policy, "body": body}
        return waiting(server.access.approvals.ask(caller.user.name, "put-policy", arguments, summary))
    server.estate.policies().put(wanted)
    server.estate.look_again()
    return answer("policy", policy=all_fields(wanted))


def put_policy_now(server: Server, arguments: Mapping[str, Any]) -> None:
    """Do what was asked for with ``put_policy`` and approved."""
    body = json.dumps(arguments["body"], indent=1)
    server.estate.policies().put(read_policy(body, arguments["policy"], "the request"))
    server.estate.look_again()


def remove_policy(policy: PolicyName, server: ServerHere) -> Response:
    """Remove a policy. Its restore points stay, and nothing forgets them any more."""
    found = server.estate.policies().get(policy)
    server.estate.policies().remove(policy)
    server.estate.look_again()
    return answer("policy-removed", policy=all_fields(found))


def _known(server: Server, name: str) -> Policy | None:
    try:
        return server.estate.policies().get(name)
    except PolicyNotFound:
        return None
    except HotspareError:
        return None  # a file that cannot be read keeps nothing by itself: what comes needs consent
