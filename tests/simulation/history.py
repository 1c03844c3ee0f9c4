"""Running histories: what the actors are up to is drawn from the seed."""

from collections.abc import Callable
from functools import partial

from hotspare.errors import HotspareError
from tests.simulation.machines import SimulatedMachine
from tests.simulation.scheduler import Actor, Crash
from tests.simulation.store import Faults
from tests.simulation.world import World, small_world

Work = Callable[[], object]


def run_history(seed: int) -> World:
    """Run one history to its end.

    Raises:
        Violation: what must hold did not; ``world`` of the error is the world.
    """
    world = World(seed)
    with small_world(world):
        try:
            _live(world)
            _rest(world)
        except Exception as error:
            world.scheduler.tell(f"VIOLATION {error!r}")
            error.add_note(f"seed {seed}: python -m tests.simulation --seeds 1 --from {seed} --trace")
            error.world = world  # type: ignore[attr-defined]  # for who wants to look at the trace
            raise
        finally:
            world.scheduler.abandon()
    return world


def _live(world: World) -> None:
    source = world.random
    world.store.faults = Faults(
        crash=source.choice([0, 0, 0.002, 0.01]),
        suspend=source.choice([0, 0.002, 0.01, 0.03]),
        late=source.choice([0, 0.5]),
        twice=source.choice([0, 0, 0.02]),
        error=source.choice([0, 0, 0.005]),
        power_cut=source.choice([0, 0, 0, 0.001]),
    )
    world.scheduler.tell(f"{world.store.faults}, packs of {world.pack_target}")
    for machine in world.machines:
        world.scheduler.add(machine.name, partial(_write, world, machine))
    for number in range(source.randint(1, 2)):
        world.scheduler.add(f"prune{number}", partial(_collect, world))
    world.scheduler.add("forget", partial(_forget, world))
    world.scheduler.add("read", partial(_read, world))
    if source.random() < 0.3:
        world.scheduler.add("copy", partial(_copy, world))
    if source.random() < 0.2:
        world.scheduler.add("repair", partial(_repair, world))
    world.scheduler.run()


def _rest(world: World) -> None:
    """After the storm: two prunes, and everything is there, nothing else is, and backups work."""
    world.store.come_to_rest()
    world.check_promises()
    for _ in range(2):
        world.scheduler.add("janitor", partial(world.prune, 0.0))
        world.scheduler.run()
    world.check_promises()
    world.check_no_garbage()
    world.check_copies()
    for machine in world.machines:
        machine.guest_works(2)
        world.scheduler.add(machine.name, partial(world.back_up, machine))
    world.scheduler.run()
    world.check_promises()


def _write(world: World, machine: SimulatedMachine, actor: Actor) -> None:
    for _ in range(world.random.randint(2, 5)):
        machine.guest_works(world.random.randint(0, 4))
        full = world.random.random() < 0.2
        _attempt(world, actor, partial(world.back_up, machine, actor, full=full))
        _idle(world, actor)


def _collect(world: World, actor: Actor) -> None:
    for _ in range(world.random.randint(1, 4)):
        keep_waste = world.random.choice([0.0, 0.0, 10.0, 50.0])
        _attempt(world, actor, partial(world.prune, keep_waste, actor))
        _idle(world, actor)


def _forget(world: World, actor: Actor) -> None:
    for _ in range(world.random.randint(4, 20)):
        _idle(world, actor)
        for _ in range(world.random.choice([1, 1, 3])):
            _attempt(world, actor, lambda: world.forget(actor))


def _read(world: World, actor: Actor) -> None:
    repository = world.repository(actor)
    for _ in range(world.random.randint(1, 4)):
        _attempt(world, actor, lambda: world.read(actor, repository))
        _idle(world, actor)
        _attempt(world, actor, world.check_promises)


def _copy(world: World, actor: Actor) -> None:
    for _ in range(world.random.randint(1, 4)):
        _idle(world, actor)
        _attempt(world, actor, lambda: world.copy(actor))
        if world.random.random() < 0.3:
            _attempt(world, actor, lambda: world.prune_copy(actor))


def _repair(world: World, actor: Actor) -> None:
    for _ in range(world.random.randint(1, 2)):
        _idle(world, actor)
        _attempt(world, actor, partial(world.repair, actor))


def _attempt(world: World, actor: Actor, work: Work) -> None:
    """Do one run of the program in a process of its own, which may be killed."""
    try:
        work()
    except Crash:
        actor.killed, actor.beat = False, None
    except HotspareError as error:
        world.counts["failed"] += 1
        world.failures.append(f"{type(error).__name__}: {error.what}")
        world.scheduler.tell(f"FAILED {type(error).__name__}: {error}")


def _idle(world: World, actor: Actor) -> None:
    try:
        actor.sleep(world.random.choice([0, 1, 600, 4000]))
    except Crash:
        actor.killed = False
