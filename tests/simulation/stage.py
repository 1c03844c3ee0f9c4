"""Directed interleavings: players that run, one at a time, up to a call of the store that the test names.

The same machines, store and clock as in the histories, but nothing is left to a seed. Time passes only while
a player sleeps.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from hotspare.errors import HotspareError
from hotspare.repository.gc.state import read_garbage_state
from tests.simulation.machines import SimulatedMachine
from tests.simulation.scheduler import Actor, Scheduler
from tests.simulation.store import Faults
from tests.simulation.world import Violation, WatchedKeyring, World, small_world

CHUNKS = 16
"""Of each disk: so many that its map has a page above others."""
ONE_PACK_A_CHUNK = 50
ALL_IN_ONE_PACK = 1 << 20


class OffScript(Exception):
    """A player did not do what the script says: the script is wrong, whatever the program does."""


class _Director(Actor):
    """The test itself: it gets the baton when a player has come to where it was to stop."""

    def _run(self) -> None:
        """Have no thread of its own."""

    def take_baton(self) -> None:
        self._go.release()

    def wait(self) -> None:
        self._go.acquire()


class _Script(Scheduler):
    """Lets one player run until it is about to make a call, or is done."""

    def __init__(self) -> None:
        super().__init__(random.Random(0), jump=0.0, stickiness=1.0)
        self.director = _Director(self, "director", lambda _: None)
        self.until: Callable[[str], bool] = lambda _: False
        self.calls: dict[Actor, list[str]] = {}
        self._told = ""

    def tell(self, what: str) -> None:
        super().tell(what)
        self._told = what
        if self.current is not None:
            self.calls.setdefault(self.current, []).append(what)

    def choose(self) -> Actor:
        assert self.current is not None
        told, self._told = self._told, ""
        self.now = max(self.now, self.current.wakes_at)
        return self.director if told and self.until(told) else self.current

    def choose_or_none(self) -> Actor | None:
        return None if self.over else self.director


class Player:
    """One run of the program, in a process of its own."""

    def __init__(self, script: _Script, name: str, work: Callable[[Actor], object]) -> None:
        self.error: HotspareError | None = None
        self._script = script
        self._work = work
        self._actor = script.add(name, self._body)

    @property
    def calls(self) -> list[str]:
        """What it did so far."""
        return self._script.calls.get(self._actor, [])

    def runs_until(self, *calls: str) -> None:
        """Run until just before a call that begins so, then until just before one that begins so, ..."""
        for call in calls:
            self.runs_until_or_ends(call)
            if self._actor.done:
                raise OffScript(f"{self._actor.name} ended before {call}: {self.error!r}")

    def runs_until_or_ends(self, call: str) -> None:
        self._run(lambda told: told.startswith(call))

    def ends(self) -> None:
        """Run to the end, which may be a failure: ``error`` has it."""
        if not self._actor.done:
            self._run(lambda _: False)

    def is_killed(self) -> None:
        self._actor.killed = True
        self.ends()

    def _run(self, until: Callable[[str], bool]) -> None:
        self._script.until = until
        self._actor.take_baton()
        self._script.director.wait()
        if self._script.failure is not None:
            raise self._script.failure

    def _body(self, actor: Actor) -> None:
        try:
            self._work(actor)
        except HotspareError as error:
            self.error = error


class Stage:
    """A repository, and who works on it."""

    def __init__(self, seed: int = 0, parity: int = 20) -> None:
        self._script = _Script()
        self.world = World(seed, self._script, parity=parity)
        self._script.between = lambda: None  # nothing happens by itself
        self.world.machines.clear()
        self.world.copy_keyring = WatchedKeyring(self.world.random, self.world.keyring.secrets.id_key)
        self.world.pack_target = ONE_PACK_A_CHUNK

    def machine(self, name: str = "web", content: int = 1) -> SimulatedMachine:
        """Make a machine; two of the same ``content`` have the same bytes on their disks."""
        machine = SimulatedMachine(name, random.Random(content), chunks=CHUNKS)
        machine.overwrite(0, CHUNKS, seed=content)
        self.world.machines.append(machine)
        return machine

    def play(self, name: str, work: Callable[[Actor], object]) -> Player:
        return Player(self._script, name, work)

    def backup(self, machine: SimulatedMachine, *, full: bool = False) -> Player:
        return self.play(machine.name, partial(self._back_up, machine, full))

    def prune(self, name: str = "prune", *, repack: bool = False, keep_waste: float = 0.0) -> Player:
        """Begin a prune; ``repack`` makes it condemn every pack there is, as each is a small one."""
        target = ALL_IN_ONE_PACK if repack else ONE_PACK_A_CHUNK
        return self.play(name, partial(self.world.prune, keep_waste, pack_target=target))

    def condemned(self) -> frozenset[str]:
        """Give the packs that prunes have said they will delete."""
        return read_garbage_state(self.world.repository(None).backend, self.world.keyring).condemned_packs

    def back_up(self, machine: SimulatedMachine, *, full: bool = False) -> str:
        """Back up undisturbed; gives the point's id."""
        before = set(self.world.promised)
        player = self.backup(machine, full=full)
        player.ends()
        if player.error:
            raise Violation(f"no backup is possible: {player.error}")
        (point_id,) = self.world.promised.keys() - before
        return point_id

    def copy(self) -> Player:
        """Begin to copy a point to the second repository, which names chunks as the first one does."""
        return self.play("copy", self.world.copy)

    def reindex(self) -> Player:
        return self.play("reindex", self.world.reindex)

    def repair(self) -> Player:
        return self.play("repair", self.world.repair)

    def forget(self, point_id: str) -> None:
        self.play("forget", lambda actor: self.world.forget_one(point_id, actor)).ends()

    def pass_time(self, seconds: float) -> None:
        """Let everybody be silent for so long."""
        self._script.now += seconds

    @contextmanager
    def late_puts(self) -> Iterator[None]:
        """Let the PUT that a player dies in be on its way until ``arrive_late``."""
        self.world.store.faults = Faults(late=1.0)
        yield
        self.world.store.faults = Faults()

    def arrive_late(self) -> None:
        self.world.store.come_to_rest()

    def objects(self, *prefixes: str) -> dict[str, bytes]:
        """Give what is stored, to have it arrive once more later."""
        return {name: data for name, data in self.world.store.objects.items() if name.startswith(prefixes)}

    def lose(self, prefix: str) -> None:
        """Remove objects, as an accident would."""
        for name in self.objects(prefix):
            del self.world.store.objects[name]

    def arrive(self, objects: Mapping[str, bytes]) -> None:
        """Let late, or duplicate, PUTs take effect."""
        self.world.store.objects.update(objects)

    def close(self) -> None:
        self._script.abandon()

    def _back_up(self, machine: SimulatedMachine, full: bool, actor: Actor) -> None:
        self.world.back_up(machine, actor, full=full)


@contextmanager
def staged() -> Iterator[Stage]:
    """Give a stage, and look afterwards whether all that was promised is there, and nothing else."""
    stage = Stage()
    with small_world(stage.world):
        try:
            yield stage
            _look_at_the_end(stage)
        finally:
            stage.close()


def _look_at_the_end(stage: Stage) -> None:
    world = stage.world
    world.store.come_to_rest()
    world.check_promises()
    for _ in range(2):
        janitor = stage.prune("janitor")
        janitor.ends()
        if janitor.error:
            raise Violation(f"garbage cannot be collected: {janitor.error}")
    world.check_promises()
    world.check_no_garbage()
    world.check_copies()
    for machine in world.machines:
        stage.back_up(machine)
    world.check_promises()
