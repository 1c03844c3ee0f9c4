"""Checking that everything a restore point needs is there, without reading the disks' data."""

from collections.abc import Iterator
from contextlib import suppress

import msgspec
import numpy as np

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import ObjectNotFound, RepositoryDamaged
from hotspare.repository.format import DATA, META
from hotspare.repository.gc.state import read_expulsions
from hotspare.repository.repository import Repository
from hotspare.repository.survey import Damage, Problem, Survey, slots_without_holes
from hotspare.repository.tested import unreadable_tested


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, and what is wrong."""

    points: int
    packs: int
    chunks: int
    """Chunks that the index knows."""
    bytes: int
    """Size of all packs."""
    void: tuple[str, ...]
    """Ids of points that do not count: their runs were given up before they reported success, or they were
    forgotten and a late PUT brought them back. They are not listed, and the next prune removes them."""
    problems: list[Problem]


def check_structure(
    repository: Repository, listener: events.Listener, cancellation: Cancellation
) -> CheckReport:
    """Check that every point, map page and pack is there, of the right size, and every chunk listed.

    What seems wrong is looked at once more with a fresh index: a prune may have moved it meanwhile.

    Raises:
        RepositoryDamaged: an index segment cannot be used.
        Interrupted: ``cancellation`` was requested.
    """
    listener(events.PhaseStarted("repository", "check"))
    report = _look(repository, cancellation)
    if report.problems:
        repository.forget_index()
        report = _look(repository, cancellation)
    return report


def _look(repository: Repository, cancellation: Cancellation) -> CheckReport:
    index = repository.index()
    unreadable = Damage()
    points = repository.points(
        lambda name, error: unreadable.on_point(name, error.what, name.rpartition("/")[2])
    )
    sizes = {item.name: item.size for kind in (DATA, META) for item in repository.backend.list(kind + "/")}
    bad_packs: dict[int, tuple[str, str]] = {}
    for number, record in enumerate(index.packs):
        size = sizes.get(record.name)
        if size is None:
            bad_packs[number] = record.name, "is missing"
        elif size != record.size and record.digest not in repository.damaged:
            bad_packs[number] = record.name, f"has {size} bytes where {record.size} were written"
    survey = Survey(repository, points)
    for name, detail in bad_packs.values():
        survey.damage.on_object(name, detail)
    bad_numbers = np.asarray(sorted(bad_packs), dtype=np.int64)
    for _, _, disk_map in survey.disks():
        for number, page_id, chunk_ids in survey.new_pages(disk_map):
            cancellation.check()
            positions = index.positions(chunk_ids)
            known = positions >= 0
            packs = np.full(len(positions), -1, dtype=np.int64)
            packs[known] = index.pack_numbers(positions[known])
            bases = index.bases(positions)
            upon = bases >= 0
            # A delta whose base lies in a bad pack is lost with it, and named by that pack.
            base_packs = np.full(len(positions), -1, dtype=np.int64)
            base_packs[upon] = index.pack_numbers(bases[upon])
            in_bad_base = np.isin(base_packs, bad_numbers) & ~np.isin(packs, bad_numbers)
            packs[in_bad_base] = base_packs[in_bad_base]
            bad = np.intersect1d(packs, bad_numbers)
            if known.all() and not len(bad):
                continue
            slots = slots_without_holes(disk_map.leaf(number))
            if not known.all():
                name, detail = _missing_chunks(page_id, int((~known).sum()))
                survey.damage.on_page(name, detail, page_id, slots[~known].tolist())
            for pack in bad.tolist():
                survey.damage.on_page(*bad_packs[pack], page_id, slots[packs == pack].tolist())
    return CheckReport(
        points=len(points),
        packs=len(sizes),
        chunks=len(index),
        bytes=sum(sizes.values()),
        void=tuple(_void_points(repository, {point.id for point in points})),
        problems=[
            *unreadable.problems([], [], repository.config.chunk_size),
            *survey.problems(),
            *_unreadable_tests(repository),
        ],
    )


def _unreadable_tests(repository: Repository) -> Iterator[Problem]:
    for name in unreadable_tested(repository.backend, repository.keyring):
        point_id = name.rpartition("/")[2]
        yield Problem(
            object=name,
            detail="is not what was written; the restore point is not affected, test it again",
            points=(point_id,),
        )


def _void_points(repository: Repository, counted: set[str]) -> Iterator[str]:
    expulsions = read_expulsions(repository.backend, repository.keyring)
    for name in repository.point_names():
        point_id = name.rpartition("/")[2]
        if point_id in counted:
            continue
        with suppress(ObjectNotFound, RepositoryDamaged):  # it was forgotten just now, or is a problem
            if not expulsions.counts(name, repository.load_point(name).session):
                yield point_id


def _missing_chunks(page_id: bytes, count: int) -> tuple[str, str]:
    what = "of its chunks are lost: no index segment lists them, or they were found damaged"
    return f"map page {page_id.hex()[:16]}", f"{count} {what}"
