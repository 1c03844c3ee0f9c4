"""What a definition is held to beyond its own words: hooks and URIs, which other folders understand."""

from urllib.parse import urlsplit

from hotspare.cli.quantities import parse_bytes
from hotspare.errors import UsageError
from hotspare.platforms.hooks.hook import parse_hook
from hotspare.policy.policy import Policy


def check_beyond(policy: Policy) -> None:
    """Refuse hooks that there are not, and secrets in URLs.

    Raises:
        UsageError: names the policy.
    """
    try:
        _refuse_secret(policy.repository)
        for hook in policy.backup.hooks:
            parse_hook(hook)
        if policy.backup.read_limit:
            parse_bytes(policy.backup.read_limit)
    except UsageError as error:
        raise UsageError(
            f"Policy {policy.name}: {error.what}", meaning="Nothing was changed", hint=error.hint
        ) from error


def _refuse_secret(url: str) -> None:
    if urlsplit(url).password is not None:
        raise UsageError("its repository has a password in the URL", hint="Leave it out: see docs/storage.md")
