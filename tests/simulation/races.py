"""Races that chance meets too rarely, each told call by call.

Every one must end well (``staged`` looks at the end); with the one step of the protocol left out that it is
about, it must not. tests/simulation/mutations.py says which belongs to which.
"""

from collections.abc import Callable

from tests.simulation.machines import CHUNK, SimulatedMachine
from tests.simulation.stage import Player, Stage
from tests.simulation.world import Violation

MINUTE = 60.0
LATER = 2 * MINUTE
"""Long enough for a process to have a sign of life due."""


def an_inherited_pack_goes(stage: Stage) -> None:
    """An increment begins after its parent's packs were condemned, and the parent is forgotten under it."""
    web = stage.machine()
    parent = stage.back_up(web)
    prune = stage.prune(repack=True)
    prune.runs_until("PUT gc/condemned/", "LIST sessions/", "LIST gc/condemned/")
    web.guest_works(1)
    increment = stage.backup(web)
    increment.runs_until("PUT points/")
    stage.forget(parent)
    prune.ends()
    increment.ends()


def a_session_begins_just_before_the_packs_are_condemned(stage: Stage) -> None:
    """So the writer cannot have seen the set: it must be waited for, or be given up."""
    web = stage.machine()
    stage.forget(stage.back_up(web))
    prune, again = stage.prune(), stage.backup(web)
    prune.runs_until("PUT gc/condemned/")
    again.runs_until("PUT points/")
    prune.ends()
    again.ends()


def a_session_begins_just_after_the_packs_were_condemned(stage: Stage) -> None:
    """The writer has to learn of the set, even if it looked at the index before."""
    web = stage.machine()
    stage.forget(stage.back_up(web))
    prune, again = stage.prune(), stage.backup(web)
    again.runs_until("PUT sessions/")
    prune.runs_until("PUT gc/condemned/", "LIST sessions/", "DELETE data/")
    again.runs_until("PUT points/")
    prune.ends()
    again.ends()


def a_prune_meets_a_backup_that_has_just_begun(stage: Stage) -> None:
    """Packs that no segment lists yet are its business, and not garbage."""
    web, db = stage.machine(), stage.machine("db", 2)
    stage.forget(stage.back_up(web))
    backup, prune = stage.backup(db), stage.prune()
    prune.runs_until("LIST data/")
    backup.runs_until("PUT data/", "PUT meta/", "PUT index/")
    prune.runs_until("LIST points/", "DELETE ")
    if prune_condemned_something_of(stage, backup):
        raise Violation("the packs of a backup that is under way were condemned")
    backup.ends()
    prune.ends()


def an_expelled_backup_arrives_after_all(stage: Stage) -> None:
    """Its restore point, on its way for days, comes after its packs were deleted."""
    web = stage.machine()
    stage.back_up(web)
    backup = stage.backup(stage.machine("db", 2))
    backup.runs_until("PUT points/")
    with stage.late_puts():
        backup.is_killed()
    stage.prune().ends()
    stage.arrive_late()


def a_parent_goes_before_the_session_begins(stage: Stage) -> None:
    """What is garbage goes in part: the parent's map is still there, data that it lists is not."""
    web, parent = parent_whose_map_outlives_its_data(stage)
    increment = stage.backup(web)
    increment.runs_until("PUT sessions/")
    stage.forget(parent)
    stage.prune(keep_waste=100).ends()
    increment.ends()


def a_forgotten_point_arrives_again(stage: Stage) -> None:
    """A duplicate of its PUT comes when its data is gone, and its machine is backed up."""
    web, parent = parent_whose_map_outlives_its_data(stage)
    point = {name: data for name, data in stage.objects("points/").items() if name.endswith(parent)}
    stage.forget(parent)
    stage.prune(keep_waste=100).ends()
    stage.arrive(point)
    stage.back_up(web)


def two_prunes_of_which_one_is_quick(stage: Stage) -> None:
    """The quick one may not remove the set of the slow one, which will still delete what is in it."""
    quick, slow, packs = two_prunes_at_one_pack(stage)
    slow.runs_until("DELETE data/")
    quick.runs_until("GET sessions/c", "GET sessions/c")
    stage.pass_time(LATER)
    slow.runs_until("  DELETE is visible")
    quick.ends()
    stage.arrive(packs)
    the_packs_are_counted_on_while(stage, slow)


def two_prunes_of_which_one_is_given_up(stage: Stage) -> None:
    """It wakes up when its set is forgotten, and must not delete what is in it."""
    quick, slow, packs = two_prunes_at_one_pack(stage)
    slow.runs_until("LIST index/")
    quick.ends()
    stage.arrive(packs)
    the_packs_are_counted_on_while(stage, slow)


def a_prune_given_up_while_it_deletes(stage: Stage) -> None:
    """Whoever removes its set has deleted what is in it: so there is nothing that a backup could rely on."""
    quick, slow, packs = two_prunes_at_one_pack(stage)
    slow.runs_until("DELETE data/")
    quick.ends()
    stage.arrive({name: data for name, data in packs.items() if name.startswith("index/")})
    the_packs_are_counted_on_while(stage, slow)


def a_prune_meets_a_repair(stage: Stage) -> None:
    """Packs may not go away under a repair, which is just making new parity for one."""
    stage.back_up(stage.machine())
    stage.lose("parity/")
    repair, prune = stage.repair(), stage.prune(repack=True)
    repair.runs_until("GET data/", "GET data/")
    prune.runs_until_or_ends("GET sessions/w")
    repair.ends()
    prune.ends()
    if repair.error:
        raise Violation(f"the repair failed: {repair.error}")


def a_reindex_is_given_up(stage: Stage) -> None:
    """It has slept while a prune moved what it had listed: nobody may count on its index."""
    web = stage.machine()
    stage.back_up(web)
    reindex = stage.reindex()
    reindex.runs_until("PUT index/")
    stage.prune(repack=True).ends()
    reindex.ends()
    stage.back_up(stage.machine("again"))


def a_copy_reads_what_a_prune_moves(stage: Stage) -> None:
    """The copier holds no session in its source: it has to find out where the chunks are now."""
    stage.back_up(stage.machine())
    copy = stage.copy()
    copy.runs_until("GET data/")
    stage.prune(repack=True).ends()
    copy.ends()
    if copy.error:
        raise Violation(f"the copy failed: {copy.error}")


# What several races begin or end with.


def parent_whose_map_outlives_its_data(stage: Stage) -> tuple[SimulatedMachine, str]:
    """Back up two machines alike but for the last chunks, so that the first one's map is needed in part."""
    stage.world.pack_target = CHUNK // 2
    web, db = stage.machine("web", 1), stage.machine("db", 1)
    for seed, machine in enumerate((web, db)):
        machine.overwrite(0, 12, seed=7)
        machine.overwrite(12, 16, seed=seed)
    parent = stage.back_up(web)
    stage.back_up(db)
    return web, parent


def two_prunes_at_one_pack(stage: Stage) -> tuple[Player, Player, dict[str, bytes]]:
    """Let one prune list packs before, and another one after a backup stored some that are garbage now.

    Gives the two, and what arrives once more of that backup. The second is past its wait.
    """
    web, db = stage.machine(), stage.machine("db", 2)
    stage.back_up(web)
    quick = stage.prune("quick")
    quick.runs_until("LIST sessions/")
    before = stage.objects("data/", "meta/", "index/")
    point = stage.back_up(db)
    packs = {
        name: data for name, data in stage.objects("data/", "meta/", "index/").items() if name not in before
    }
    stage.forget(point)
    slow = stage.prune("slow")
    slow.runs_until("PUT gc/condemned/", "GET sessions/c", "GET sessions/c")
    stage.pass_time(LATER)
    quick.runs_until("LIST gc/condemned/")
    return quick, slow, packs


def the_packs_are_counted_on_while(stage: Stage, slow: Player) -> None:
    """Back up what has the same content, and let the slow prune come to its end just before it succeeds."""
    backup = stage.backup(stage.machine("again", 2))
    backup.runs_until_or_ends("PUT points/")
    slow.ends()
    backup.ends()


def prune_condemned_something_of(stage: Stage, backup: Player) -> bool:
    puts = [call for call in backup.calls if call.startswith(("PUT data/", "PUT meta/"))]
    stored = tuple(call.removeprefix("PUT ") for call in puts)
    return any(pack.startswith(stored) for pack in stage.condemned())


Race = Callable[[Stage], None]

RACES: tuple[Race, ...] = (
    an_inherited_pack_goes,
    a_session_begins_just_before_the_packs_are_condemned,
    a_session_begins_just_after_the_packs_were_condemned,
    a_prune_meets_a_backup_that_has_just_begun,
    an_expelled_backup_arrives_after_all,
    a_parent_goes_before_the_session_begins,
    a_forgotten_point_arrives_again,
    two_prunes_of_which_one_is_quick,
    two_prunes_of_which_one_is_given_up,
    a_prune_given_up_while_it_deletes,
    a_prune_meets_a_repair,
    a_reindex_is_given_up,
    a_copy_reads_what_a_prune_moves,
)
