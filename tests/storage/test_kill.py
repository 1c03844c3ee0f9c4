"""Real processes, killed at any moment: nothing that was reported is lost, and garbage goes in the end."""

import os
import random
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.repository.gc.collect import prune
from hotspare.repository.repository import Repository
from hotspare.storage.registry import open_backend
from tests.repository.conftest import CHUNK, PASSPHRASE
from tests.repository.gc.process import EXPEL_AFTER
from tests.repository.gc.workers import Worker, lost_of
from tests.storage.servers import Seaweed

ROUNDS = int(os.environ.get("KILL_ROUNDS", "2"))


class Site:
    """A repository with writers and a collector, and its copy with a copier and a collector of its own."""

    def __init__(self, source: str, copy: str, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._urls = source, copy
        self._seed = 0
        self.stored: list[dict[str, int]] = [{}, {}]
        self.forgotten: list[set[str]] = [set(), set()]
        for url in self._urls:
            Repository.create(open_backend(url, environment), PASSPHRASE, chunk_size=CHUNK).close()

    def open(self, number: int) -> Repository:
        return Repository.open(open_backend(self._urls[number], self._environment), PASSPHRASE)

    def live_and_die(self, more: float) -> None:
        """Let all work until something was stored on both sides, and ``more`` seconds; then kill them."""
        source, copy = self._urls
        with ExitStack() as stack:

            def start(*words: str) -> Worker:
                worker = Worker(*words, environment=self._environment)
                stack.callback(worker.kill)
                return worker

            self._seed += 2
            writers = [start(source, "write", str(self._seed + number)) for number in range(2)]
            copiers = [start(source, "copy", copy)]
            collectors = [start(source, "prune"), start(copy, "prune")]
            for worker in (*writers, *copiers):
                worker.waits_for(1)
            time.sleep(more)
        for number, workers in enumerate((writers, copiers)):
            for worker in workers:
                self.stored[number] |= worker.stored()
            self.forgotten[number] |= collectors[number].forgotten()

    def check(self, number: int) -> None:
        """Look for all that is to be there, and for nothing else, after two prunes."""
        repository = self.open(number)
        for _ in range(2):
            prune(repository, events.ignore, Cancellation(), keep_waste=0, expel_after=EXPEL_AFTER)
        repository = self.open(number)
        stored = self.stored[number]
        assert stored
        expected = {point: seed for point, seed in stored.items() if point not in self.forgotten[number]}
        assert lost_of(repository, expected) == []
        names = [item.name for item in repository.backend.list("")]
        assert not [name for name in names if name.startswith(("sessions/", "gc/condemned/"))]
        packs = {name for name in names if name.startswith(("data/", "meta/"))}
        assert packs == {pack.name for pack in repository.index().packs}


def kill_again_and_again(site: Site) -> None:
    source = random.Random(1)
    for _ in range(ROUNDS):
        site.live_and_die(source.uniform(0.0, 2.0))
    site.check(0)
    site.check(1)


@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_killed_at_a_local_store_they_lose_nothing(tmp_path: Path) -> None:
    kill_again_and_again(Site(str(tmp_path / "repository"), str(tmp_path / "copy"), os.environ))


@pytest.mark.soak
@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_killed_at_an_s3_store_they_lose_nothing(seaweed: Seaweed) -> None:
    site = Site(
        seaweed.url("plain/killed"), seaweed.url("plain/killed-copy"), {**os.environ, **seaweed.environment}
    )
    kill_again_and_again(site)
