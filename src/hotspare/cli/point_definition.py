"""``hotspare point definition``: the configuration of a machine, without its disks."""

from hotspare.cli import output
from hotspare.cli.documents import machine_fields
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.session import Session
from hotspare.errors import UsageError
from hotspare.platforms.registry import without_secrets
from hotspare.repository.select import find_point
from hotspare.restore.machine import machine_of


def definition(
    point: str,
    /,
    *,
    secrets: Switch = False,
    options: Options = DEFAULTS,
) -> None:
    """Print the configuration of the machine in a restore point, without its disks.

    That is libvirt's XML; with -o json, it is also said in neutral words.

    Args:
        point: Id of a restore point or the beginning of one; or a machine's name, for its newest.
        secrets: With the passwords of its consoles, which are left out otherwise.
        options: See below.
    """
    with Session(options) as session:
        found = find_point(session.repository(cached=True), point)
        machine = machine_of(found)
        native = machine.native if secrets else without_secrets(machine)
        if session.as_json:
            fields = {"point": found.id, "machine": machine_fields(machine), "native": native or None}
            output.print_document(output.document("point-definition", **fields))
            return
        if not native:
            raise UsageError(
                f"{found.machine_name} has no definition of its platform: it is a disk image",
                meaning="Nothing was printed",
                hint="What is known of it: add -o json",
            )
        output.print_text(native.rstrip("\n"))
