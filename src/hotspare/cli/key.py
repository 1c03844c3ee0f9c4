"""``hotspare key``: who can open the repository."""

from pathlib import Path

from hotspare.cli import output
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.passphrase import make_key_file, new_passphrase
from hotspare.cli.recovery_kit import RecoveryKit, check_kit_path, write_kit
from hotspare.cli.session import Session
from hotspare.errors import (
    NoSpace,
    TargetExists,
    UsageError,
)
from hotspare.repository.format import RepositoryConfig
from hotspare.repository.keys.keychest import Keychest, new_recovery_key
from hotspare.repository.keys.slot import PASSPHRASE, Credential, Passphrase

app = noun("key", "See who can open the repository, and change it.")

_CHANGING = (*OPENING, NoSpace)


@app.command(name="list", help_epilogue=closing(["hotspare key list", "hotspare key list -o json"], *OPENING))
def list_slots(*, options: Options = DEFAULTS) -> None:
    """List the key slots: each is one way to open the repository.

    A slot that is not trusted was put there, or put back, by somebody who did not have the repository open.
    It gets no new keys; remove it.

    Args:
        options: See below.
    """
    with Session(options) as session:
        _, chest = session.keys()
        rows = [
            (stored.id, stored.slot.kind, stored.slot.created, chest.trusts(stored))
            for stored in chest.slots()
        ]
        if session.as_json:
            slots = [
                {
                    "slot": slot,
                    "kind": kind,
                    "created": created,
                    "trusted": trusted,
                    "opened_with": slot == chest.opened_with,
                }
                for slot, kind, created, trusted in rows
            ]
            output.print_document(output.document("keys", slots=slots))
            return
        notes = {True: "", False: "NOT TRUSTED"}
        output.print_table(
            ("SLOT", "KIND", "CREATED", ""),
            [
                (slot, kind, created, "opened with" if slot == chest.opened_with else notes[trusted])
                for slot, kind, created, trusted in rows
            ],
        )


@app.command(
    help_epilogue=closing(
        ["hotspare key add --passphrase", "hotspare key add --key-file /etc/hotspare/key"],
        TargetExists,
        *_CHANGING,
    )
)
def add(
    *,
    passphrase: Switch = False,
    key_file: Path | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Add a way to open the repository: a further passphrase, or a key file.

    A new passphrase comes from HOTSPARE_NEW_PASSPHRASE, HOTSPARE_NEW_PASSPHRASE_FILE or
    HOTSPARE_NEW_PASSPHRASE_COMMAND, or is asked for. To use a key file, name it with HOTSPARE_KEY_FILE.

    Args:
        passphrase: Add a passphrase.
        key_file: Add a key file, which is made here.
        options: See below.
    """
    if passphrase == (key_file is not None):
        raise UsageError(
            "Either --passphrase or --key-file is needed",
            meaning="Nothing was changed",
            hint='See "hotspare key add --help"',
        )
    with Session(options) as session:
        _, chest = session.keys()
        credential: Credential
        if key_file is not None:
            credential = make_key_file(key_file)
        else:
            credential = Passphrase(new_passphrase(session.passphrase_of("NEW"), session.backend_url))
        slot = chest.add(credential)
        _tell_added(session, slot, credential.kind)
        if key_file is not None:
            output.warn(
                f"Whoever can read {key_file} can open the repository. Keep it off the repository's store."
            )


@app.command(help_epilogue=closing(["hotspare key remove 1f0c5e8a4d539d5c"], *_CHANGING))
def remove(slot: str, /, *, options: Options = DEFAULTS) -> None:
    """Remove a way to open the repository; never the last passphrase or key file.

    Who had it may have kept what it gave access to: rotate the keys as well if that matters.

    Args:
        slot: As "hotspare key list" shows it.
        options: See below.
    """
    with Session(options) as session:
        _, chest = session.keys()
        chest.remove(slot)
        if session.as_json:
            output.print_document(output.document("key-removed", slot=slot))
        else:
            output.print_text(f"Removed the key slot {slot}.")


@app.command(
    name="change-passphrase",
    help_epilogue=closing(["hotspare key change-passphrase"], *_CHANGING),
)
def change_passphrase(*, options: Options = DEFAULTS) -> None:
    """Put a new passphrase in place of the one that is used now.

    The new one comes from HOTSPARE_NEW_PASSPHRASE, HOTSPARE_NEW_PASSPHRASE_FILE or
    HOTSPARE_NEW_PASSPHRASE_COMMAND, or is asked for.

    Args:
        options: See below.
    """
    with Session(options) as session:
        _, chest = session.keys()
        old = chest.opened_with
        if _kind_of(chest, old) != PASSPHRASE:
            raise UsageError(
                "The repository was not opened with a passphrase",
                meaning="Nothing was changed",
                hint="Add one with 'hotspare key add --passphrase', then remove the one that is forgotten",
            )
        new = Passphrase(new_passphrase(session.passphrase_of("NEW"), session.backend_url))
        slot = chest.replace(new, old)
        if session.as_json:
            output.print_document(output.document("passphrase-changed", slot=slot, removed=old))
        else:
            output.print_text(f"Changed the passphrase: slot {slot} is in place of {old}.")


@app.command(help_epilogue=closing(["hotspare key rotate"], *_CHANGING))
def rotate(*, options: Options = DEFAULTS) -> None:
    """Seal new data with a new key. All ways to open the repository stay as they are.

    Data that is stored already keeps its keys.

    Args:
        options: See below.
    """
    with Session(options) as session:
        _, chest = session.keys()
        epoch = chest.rotate()
        slots = [stored.id for stored in chest.slots() if chest.trusts(stored)]
        if session.as_json:
            output.print_document(output.document("keys-rotated", epoch=epoch, slots=slots))
        else:
            output.print_text(f"New data is sealed with key {epoch}, which {len(slots)} key slots give.")


@app.command(
    name="recovery-kit",
    help_epilogue=closing(
        ["hotspare key recovery-kit kit.svg", "hotspare key recovery-kit kit.txt"], TargetExists, *_CHANGING
    ),
)
def recovery_kit(file: Path, /, *, options: Options = DEFAULTS) -> None:
    """Make a recovery key, and write a page with it to be printed: the key is kept nowhere else.

    Delete the file once it is printed. A recovery key is typed where the passphrase is asked for. Earlier
    recovery keys go on working until their slots are removed.

    Args:
        file: Where the page goes; its name ends in .svg or .txt.
        options: See below.
    """
    check_kit_path(file)
    with Session(options) as session:
        config, chest = session.keys()
        slot = add_recovery_key(config, chest, session.backend_url, file)
        if session.as_json:
            output.print_document(output.document("recovery-kit", path=str(file), slot=slot))
        else:
            output.print_text(
                f"Wrote the recovery kit of slot {slot} to {file}. Print it, then delete the file."
            )


def add_recovery_key(config: RepositoryConfig, chest: Keychest, url: str, file: Path) -> str:
    """Make a recovery key with its page, and give its slot.

    Raises:
        TargetExists, PermissionRefused, NoSpace, UsageError: the page could not be written, and no slot made.
    """
    key = new_recovery_key()
    slot = chest.add(key)
    try:
        write_kit(RecoveryKit(url, config.id, config.created, slot, key.private), file)
    except BaseException:
        chest.remove(slot)  # a key that nobody has seen opens nothing
        raise
    return slot


def _kind_of(chest: Keychest, slot: str) -> str:
    return next((stored.slot.kind for stored in chest.slots() if stored.id == slot), "")


def _tell_added(session: Session, slot: str, kind: str) -> None:
    if session.as_json:
        output.print_document(output.document("key-added", added={"slot": slot, "kind": kind}))
    else:
        output.print_text(f"Added the key slot {slot}: a {kind.replace('-', ' ')}.")
