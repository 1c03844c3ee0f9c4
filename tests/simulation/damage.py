"""Histories in which stored bits flip: what is read is right or a typed error; the next backups heal it."""

import random
from collections.abc import Callable

from hotspare.errors import HotspareError, RepositoryDamaged
from hotspare.repository.format import INDEX, PARITY, POINTS
from tests.simulation.scheduler import Actor
from tests.simulation.stage import Stage
from tests.simulation.world import Violation, content, small_world

_TOUCHED = ("data/", "meta/", INDEX, POINTS, PARITY)


def run_damaged(seed: int) -> Stage:
    """Run one such history to its end. Raises ``Violation``."""
    source = random.Random(seed)
    stage = Stage(seed, parity=source.choice([0, 20]))
    with small_world(stage.world):
        try:
            _fill(stage, source)
            flipped = _flip(stage, source)
            _read_all(stage)
            _mend(stage, flipped)
            _heal(stage)
        finally:
            stage.close()
    return stage


def _fill(stage: Stage, source: random.Random) -> None:
    """Back up some machines some times, forget some points, and prune."""
    stage.world.pack_target = source.choice([50, 12_000, 60_000])
    for number in range(source.randint(1, 3)):
        machine = stage.machine(f"machine{number}", source.randrange(3))
        for _ in range(source.randint(1, 3)):
            machine.guest_works(source.randint(0, 4))
            stage.back_up(machine, full=source.random() < 0.3)
    for point in sorted(stage.world.promised)[:-1]:
        if source.random() < 0.3:
            stage.forget(point)
    stage.prune(keep_waste=source.choice([0.0, 50.0])).ends()


def _flip(stage: Stage, source: random.Random) -> list[str]:
    """Flip a bit in a few objects; gives their names."""
    objects = stage.world.store.objects
    every = sorted(stage.objects(*_TOUCHED))
    names = source.sample(every, min(len(every), source.randint(1, 3)))
    for name in names:
        data = bytearray(objects[name])
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        objects[name] = bytes(data)
        stage.world.scheduler.tell(f"FLIPPED {name}")
    return names


def _read_all(stage: Stage) -> None:
    """Read every point: it is right, or it is told what is wrong with it."""
    repository = stage.world.repository(None)
    for point_id, (point, expected) in stage.world.promised.items():
        try:
            data = content(repository, point)
        except HotspareError:
            continue
        if data != expected:
            raise Violation(f"{point_id} reads wrong, and nobody says so")


def _mend(stage: Stage, flipped: list[str]) -> None:
    """Do what the errors tell users to do."""
    if any(name.startswith(INDEX) for name in flipped):
        _must_end_well(stage, "reindex", stage.world.reindex)
    for name in flipped:
        if name.startswith(POINTS):
            _forget_unreadable(stage, name)
    _must_end_well(stage, "repair", stage.world.repair)


def _forget_unreadable(stage: Stage, name: str) -> None:
    repository = stage.world.repository(None)
    try:
        repository.load_point(name)
    except RepositoryDamaged:
        repository.forget_by_name(name)
        stage.world.promised.pop(name.rpartition("/")[2])
    else:
        raise Violation(f"{name} was flipped, and nobody notices")


def _heal(stage: Stage) -> None:
    """Back up what is on the disks still: the points that have the same are whole again."""
    world = stage.world
    for machine in world.machines:
        stage.back_up(machine, full=True)
    on_disks = {machine.content for machine in world.machines}
    world.promised = {point: promise for point, promise in world.promised.items() if promise[1] in on_disks}
    if not world.promised:
        raise Violation("nothing was backed up")
    world.check_promises()


def _must_end_well(stage: Stage, name: str, work: Callable[[Actor], object]) -> None:
    player = stage.play(name, work)
    player.ends()
    if player.error is not None:
        raise Violation(f"{name} fails: {player.error}") from player.error
