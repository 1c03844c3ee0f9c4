"""``hotspare user``: who may use the server, for those who may log in to its host."""

from contextlib import closing as closed
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from hotspare.access.access import Access
from hotspare.access.roles import ANY, Grant, parse_grant
from hotspare.cli import output
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.passphrase import new_passphrase
from hotspare.cli.session import Session
from hotspare.errors import PermissionRefused, UserExists, UserNotFound

app = noun("user", "See who may use the server, and change it.")
_ROOT = "root of the host"


@app.command(name="list", help_epilogue=closing(["hotspare user list"], PermissionRefused))
def list_users(*, options: Options = DEFAULTS) -> None:
    """List who may log in to the server of this host, and as what.

    Args:
        options: See below.
    """
    with Session(options) as session, closed(Access(session.settings.state_folder)) as access:
        users = access.users.all()
        if session.as_json:
            fields = [
                {
                    "name": user.name,
                    "grants": msgspec.to_builtins(user.grants),
                    "totp": user.has_totp,
                    "password": user.has_password,
                    "disabled": user.disabled,
                    "created_at": user.created_at,
                }
                for user in users
            ]
            output.print_document(output.document("users", users=fields))
            return
        rows = [
            (one.name, "; ".join(map(_words, one.grants)), _yes(one.has_totp), _yes(one.disabled))
            for one in users
        ]
        output.print_table(("USER", "ROLES", "TOTP", "DISABLED"), rows)


@app.command(
    help_epilogue=closing(
        ["hotspare user add anna --role admin", "hotspare user add ben --role viewer:tag=prod"],
        UserExists,
        PermissionRefused,
    )
)
def add(
    name: str, /, *, role: Annotated[list[str], Parameter(negative="")], options: Options = DEFAULTS
) -> None:
    """Make a user. The password is asked for, or comes from HOTSPARE_USER_PASSPHRASE (_FILE, _COMMAND).

    Args:
        name: What the user is called.
        role: viewer, restore-only, operator or admin, for all or within a scope: operator:platform=qemu*,
            tag=prod; may be given again.
        options: See below.
    """
    with Session(options) as session, closed(Access(session.settings.state_folder)) as access:
        grants = [parse_grant(one) for one in role]
        user = access.users.add(name, _password(session, name), grants)
        access.audit.add(_ROOT, "user add", user.name, detail={"roles": role})
        _tell(session, output.document("user-added", name=name), f"Made the user {name}.")


@app.command(help_epilogue=closing(["hotspare user password anna"], UserNotFound, PermissionRefused))
def password(name: str, /, *, options: Options = DEFAULTS) -> None:
    """Set a user's password anew, and forget the authenticator app: for who has lost them.

    All logins and tokens of the user end.

    Args:
        name: Who.
        options: See below.
    """
    with Session(options) as session, closed(Access(session.settings.state_folder)) as access:
        access.users.get(name)
        access.users.change(name, password=_password(session, name), disabled=False)
        access.users.remove_totp(name)
        access.audit.add(_ROOT, "user password", name)
        document = output.document("user-password-set", name=name)
        _tell(session, document, f"Set the password of {name}.")


def _password(session: Session, name: str) -> str:
    return new_passphrase(session.passphrase_of("USER"), f"the user {name}")


def _tell(session: Session, document: dict[str, Any], words: str) -> None:
    if session.as_json:
        output.print_document(document)
    else:
        output.print_text(words)


def _words(grant: Grant) -> str:
    scope = {"repository": grant.repository, "platform": grant.platform, "tag": grant.tag}
    narrow = [f"{name}={pattern}" for name, pattern in scope.items() if pattern != ANY]
    return f"{grant.role}:{','.join(narrow)}" if narrow else str(grant.role)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
