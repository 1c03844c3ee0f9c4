"""What every platform must do. A platform's test module subclasses ``PlatformSuite`` and gives ``case``."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest

from hotspare.block.extent import ExtentKind
from hotspare.cancellation import Cancellation
from hotspare.errors import Interrupted, MachineNotFound, TargetExists, UsageError
from hotspare.platforms.platform import (
    DiskChoice,
    Machine,
    MachineDisk,
    MachineMarks,
    Platform,
    PowerState,
    SnapshotRequest,
    StateFile,
    SweepRequest,
    TargetRequest,
)
from tests.platforms.disk_content import applied, whole_disk

MIB = 1024 * 1024


@dataclass
class PlatformCase:
    """A platform with one machine whose content is known."""

    platform: Platform
    machine: str
    content: dict[str, bytes]
    """Per disk name."""
    folder: Path
    """An empty folder for restored disks."""
    new_name: str
    """A free name for a restored machine."""
    keeps_marks: bool = True
    """Whether the platform has a place for tags and exclusions."""
    points: int = field(default=0)

    def request(self) -> SnapshotRequest:
        self.points += 1
        return SnapshotRequest(point_id=f"point-{self.points}", repository_id="0123456789", since={})

    def target_request(self) -> TargetRequest:
        return TargetRequest(name=self.new_name, folder=self.folder)


def files_in(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in folder.rglob("*"))


class PlatformSuite:
    def test_finds_a_machine_by_name_and_by_id(self, case: PlatformCase) -> None:
        machine = case.platform.inspect(case.machine)

        assert machine.name == case.machine
        assert case.platform.inspect(machine.id) == machine
        assert {disk.name: disk.size for disk in machine.disks} == {
            name: len(content) for name, content in case.content.items()
        }

    def test_lists_machines_by_name(self, case: PlatformCase) -> None:
        names = [machine.name for machine in case.platform.machines()]

        assert case.machine in names
        assert names == sorted(names)

    def test_names_the_machine_that_is_not_there(self, case: PlatformCase) -> None:
        with pytest.raises(MachineNotFound, match="no-such-machine"):
            case.platform.inspect("no-such-machine")

    def test_gives_the_whole_content_the_first_time(self, case: PlatformCase) -> None:
        machine = case.platform.inspect(case.machine)

        with case.platform.open_snapshot(machine, case.request(), Cancellation()) as snapshot:
            assert {disk.name for disk in snapshot.disks} == set(case.content)
            for disk in snapshot.disks:
                assert disk.full_because
                extents = list(snapshot.changed(disk.name))
                assert extents[0].offset == 0
                assert extents[-1].end == disk.size
                assert all(one.end == two.offset for one, two in pairwise(extents))
                assert applied(snapshot, disk.name, bytes(b"\xff" * disk.size)) == case.content[disk.name]
                assert whole_disk(snapshot, disk.name) == case.content[disk.name]
            snapshot.check()

    def test_leaves_out_the_disks_it_is_told_to(self, case: PlatformCase) -> None:
        machine = case.platform.inspect(case.machine)
        last = machine.disks[-1].name
        request = replace(case.request(), disks=DiskChoice(exclude=(last,)))
        if len(machine.disks) == 1:
            with (
                pytest.raises(UsageError, match="cannot be backed up"),
                case.platform.open_snapshot(machine, request, Cancellation()),
            ):
                pytest.fail("began")
            return
        with case.platform.open_snapshot(machine, request, Cancellation()) as snapshot:
            rest = [disk.name for disk in machine.disks[:-1]]
            assert [disk.name for disk in snapshot.disks] == rest
            assert [disk.name for disk in snapshot.machine.disks] == rest
            assert f"{last}: excluded from this run" in snapshot.machine.left_out
            snapshot.commit()
        with case.platform.open_snapshot(machine, case.request(), Cancellation()) as snapshot:
            assert {disk.name for disk in snapshot.disks} == set(case.content)

    def test_names_state_apart_from_disks(self, case: PlatformCase) -> None:
        machine = case.platform.inspect(case.machine)
        with case.platform.open_snapshot(machine, case.request(), Cancellation()) as snapshot:
            names = [state.name for state in snapshot.state]
            assert len(set(names) | set(case.content)) == len(names) + len(case.content)
            assert all(state.content for state in snapshot.state)

    def test_says_why_a_piece_of_state_cannot_be_kept(self, case: PlatformCase) -> None:
        target = case.platform.create_target(case.platform.inspect(case.machine), case.target_request())
        assert target.add_state(StateFile(name="unheard-of", content=b"x"))
        assert target.finalize().name == case.new_name

    def test_keeps_marks_or_refuses_them(self, case: PlatformCase) -> None:
        marks = MachineMarks(tags=("nightly", "prod"), excluded_disks=("vd[cd]",))
        if not case.keeps_marks:
            with pytest.raises(UsageError, match="cannot keep"):
                case.platform.mark(case.machine, marks)
            assert case.platform.inspect(case.machine).marks == MachineMarks()
            return
        marked = case.platform.mark(case.machine, marks)
        assert marked.marks == case.platform.inspect(case.machine).marks == marks
        case.platform.mark(marked.id, MachineMarks())
        assert case.platform.inspect(case.machine).marks == MachineMarks()

    def test_a_good_run_leaves_nothing_to_sweep(self, case: PlatformCase) -> None:
        machine = case.platform.inspect(case.machine)
        with case.platform.open_snapshot(machine, case.request(), Cancellation()) as snapshot:
            tokens = {disk.token.value for disk in snapshot.disks if disk.token}
            snapshot.commit()

        request = SweepRequest(
            dry_run=True,
            repository_id=case.request().repository_id,
            needed_tokens=lambda: {machine.id: tokens},
        )
        found = case.platform.sweep(request)

        assert [one for one in found if one.machine in {machine.name, machine.id}] == []

    def test_gives_several_readers_of_one_disk(self, case: PlatformCase) -> None:
        machine = case.platform.inspect(case.machine)
        name, content = next(iter(case.content.items()))

        with (
            case.platform.open_snapshot(machine, case.request(), Cancellation()) as snapshot,
            closing(snapshot.reader(name)) as first,
            closing(first.clone()) as second,
            closing(first.clone()) as third,
        ):
            for reader in (third, first, second):
                buffer = bytearray(MIB)
                reader.read_into(MIB, memoryview(buffer))
                assert buffer == content[MIB : 2 * MIB]

    def test_can_be_snapshot_again_after_a_failure(self, case: PlatformCase) -> None:
        machine = case.platform.inspect(case.machine)

        with (
            pytest.raises(ZeroDivisionError),
            case.platform.open_snapshot(machine, case.request(), Cancellation()) as snapshot,
        ):
            raise ZeroDivisionError
        snapshot.release()
        with case.platform.open_snapshot(machine, case.request(), Cancellation()) as again:
            again.commit()
            again.release()

    def test_does_not_begin_when_it_was_cancelled(self, case: PlatformCase) -> None:
        machine = case.platform.inspect(case.machine)
        cancelled = Cancellation()
        cancelled.cancel()

        with (
            pytest.raises(Interrupted),
            case.platform.open_snapshot(machine, case.request(), cancelled),
        ):
            pytest.fail("began")
        with case.platform.open_snapshot(machine, case.request(), Cancellation()) as snapshot:
            snapshot.check()

    def test_makes_a_machine_that_reads_as_written(self, case: PlatformCase) -> None:
        machine = case.platform.inspect(case.machine)
        target = case.platform.create_target(machine, case.target_request())
        for disk in machine.disks:
            with closing(target.writer(disk.name)) as writer, closing(writer.clone()) as other:
                writer.write(MIB, b"first" * 1000)
                other.write(disk.size - 512, b"\xaa" * 512)
                writer.write(2 * MIB, b"\xbb" * MIB)
                writer.write_zeroes(2 * MIB, MIB)
                writer.flush()

        made = target.finalize()
        target.discard()

        assert made.name == case.new_name
        assert made.state is PowerState.OFF
        again = case.platform.inspect(case.new_name)
        with case.platform.open_snapshot(again, case.request(), Cancellation()) as snapshot:
            for restored in snapshot.disks:
                expected = bytearray(restored.size)
                expected[MIB : MIB + 5000] = b"first" * 1000
                expected[restored.size - 512 :] = b"\xaa" * 512
                assert whole_disk(snapshot, restored.name) == bytes(expected)

    def test_makes_a_machine_that_came_from_elsewhere(self, case: PlatformCase) -> None:
        disk = MachineDisk(name="disk0", size=4 * MIB, format="vmdk", source="elsewhere.vmdk")
        foreign = Machine(id="x", name="x", platform="other://", state=PowerState.OFF, disks=(disk,))

        target = case.platform.create_target(foreign, case.target_request())
        with closing(target.writer("disk0")) as writer:
            writer.write(0, b"hello" * 100)
            writer.flush()
        target.finalize()

        made = case.platform.inspect(case.new_name)
        with case.platform.open_snapshot(made, case.request(), Cancellation()) as snapshot:
            content = whole_disk(snapshot, snapshot.disks[0].name)
        assert content == (b"hello" * 100).ljust(4 * MIB, b"\0")

    def test_discards_what_was_not_finished(self, case: PlatformCase) -> None:
        machine = case.platform.inspect(case.machine)
        before = files_in(case.folder)
        target = case.platform.create_target(machine, case.target_request())
        writer = target.writer(machine.disks[0].name)
        writer.write(0, b"half")
        writer.close()

        target.discard()
        target.discard()

        assert files_in(case.folder) == before
        with pytest.raises(MachineNotFound):
            case.platform.inspect(case.new_name)

    def test_leaves_alone_what_is_there(self, case: PlatformCase) -> None:
        machine = case.platform.inspect(case.machine)
        case.platform.create_target(machine, case.target_request()).finalize()
        before = files_in(case.folder)

        with pytest.raises(TargetExists):
            case.platform.create_target(machine, case.target_request())

        assert files_in(case.folder) == before

    def test_begins_restored_disks_with_zeroes(self, case: PlatformCase) -> None:
        machine = case.platform.inspect(case.machine)
        target = case.platform.create_target(machine, case.target_request())
        target.finalize()

        made = case.platform.inspect(case.new_name)
        with case.platform.open_snapshot(made, case.request(), Cancellation()) as snapshot:
            for disk in snapshot.disks:
                assert {extent.kind for extent in snapshot.changed(disk.name)} == {ExtentKind.ZERO}

    def test_has_findings_for_the_doctor(self, case: PlatformCase) -> None:
        findings = case.platform.probe()

        assert findings
        assert all(finding.hint for finding in findings if not finding.ok)

    def test_can_be_closed_twice(self, case: PlatformCase) -> None:
        case.platform.close()
        case.platform.close()
