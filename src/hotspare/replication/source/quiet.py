"""Keeping a mirrored guest quiet while a point is made of it, with the means of a backup.

Its file systems are frozen and its hooks run as ``platforms/libvirt/quiesce.py`` does it. So all that sets a
guest free again holds here, too: a process of its own does when this one is killed or stuck.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from hotspare.platforms.libvirt.begin import own_hooks
from hotspare.platforms.libvirt.guest_hooks import disks_not_covered
from hotspare.platforms.libvirt.quiesce import QuietOutcome, QuietRequest, quiesced
from hotspare.platforms.libvirt.scratch import RunFolder, ScratchOwner, default_scratch_folder
from hotspare.platforms.libvirt.sweep import sweep_machine
from hotspare.platforms.platform import Consistency, Machine


@contextmanager
def quiet(
    domain: libvirt.virDomain,
    machine: Machine,
    *,
    uri: str,
    protection: str,
    run_id: str,
    disks: frozenset[str],
) -> Iterator[QuietOutcome]:
    """Keep a guest as quiet as it is prepared for while the block runs; the level is known after it.

    Args:
        domain: which runs.
        machine: the same, described just now.
        uri: of its platform.
        protection: its id.
        run_id: names what is noted down of this on the host and in the guest.
        disks: names of those that are replicated.

    Raises:
        ConsistencyNotReached: a hook that must not fail did; nothing in the guest stays frozen.
        HotspareError: a backup is at work on the machine.
        NoSpace, PermissionRefused: nothing can be noted down on this host.
    """
    folder = default_scratch_folder()
    sweep_machine(domain, folder)  # an agent that was killed may have left it frozen
    owner = ScratchOwner(
        uri=uri,
        domain=machine.id,
        name=machine.name,
        repository_id=protection,
        point_id=run_id,
        pid=os.getpid(),
    )
    run = RunFolder.create(folder, owner, None)
    try:
        hooks = own_hooks(machine)
        level = Consistency.APPLICATION if hooks else Consistency.FILESYSTEM
        wanted = QuietRequest(level=level, hooks=hooks, required=False, run_id=run_id, check=lambda: None)
        with quiesced(domain, uri, run, wanted) as outcome:
            yield outcome
        outcome.warnings += disks_not_covered(domain, outcome.used, disks)
    finally:
        run.remove()
