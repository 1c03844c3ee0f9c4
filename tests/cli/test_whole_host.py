"""All machines of a host in one go; tags, patterns, excluded disks, machines that vanish meanwhile."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import libvirt
import pytest

from hotspare.errors import Interrupted
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from lab import LabGuest, connection, domain_name
from tests.cli.images import make_image
from tests.cli.lab_program import program_for_libvirt
from tests.cli.program import Program
from tests.cli.test_json_output import differences, examples, shape
from tests.platforms.libvirt.bare_machine import BareMachine

MIB = 1024 * 1024


def outcomes(document: dict[str, object]) -> dict[str, str]:
    results = document["results"]
    assert isinstance(results, list)
    return {result["machine"]: result["outcome"] for result in results}


class TestFolderOfImages:
    """What does not depend on the platform, on the one that is quick."""

    @pytest.fixture
    def program(self, program: Program) -> Program:
        for number, name in enumerate(("web1", "web2", "db"), 1):
            make_image(program.folder / "images" / f"{name}.raw", 2 * MIB, data=MIB, seed=number)
        program.expect("repo", "create")
        return program

    def test_all_machines_and_one_summary(self, program: Program) -> None:
        document = program.expect("backup", "--all", "-o", "json").document()

        assert outcomes(document) == {"db": "ok", "web1": "ok", "web2": "ok"}
        summary = document["summary"]
        assert (summary["machines"], summary["ok"], summary["failed"]) == (3, 3, 0)
        assert summary["bytes_read"] == 3 * 2 * MIB == sum(one["bytes_read"] for one in document["results"])
        assert summary["bytes_stored"] == sum(one["bytes_stored"] for one in document["results"]) > 3 * MIB
        assert len(program.expect("point", "list", "-o", "json").document()["points"]) == 3

    def test_patterns_choose(self, program: Program) -> None:
        chosen = program.expect("backup", "--include", "web*", "--exclude", "*2", "-o", "json").document()
        assert outcomes(chosen) == {"web1": "ok"}
        rest = program.expect("backup", "--exclude", "web*", "-o", "json").document()
        assert outcomes(rest) == {"db": "ok"}
        none = program.run("backup", "--include", "nothing*")
        assert none.status == 21
        assert "Nothing was backed up" in none.err

    def test_a_platform_is_named_by_host(self, program: Program, tmp_path: Path) -> None:
        (tmp_path / "others").mkdir()
        make_image(tmp_path / "others" / "mail.raw", MIB, data=MIB)
        chosen = program.expect("backup", "--host", tmp_path / "others", "-o", "json").document()
        assert outcomes(chosen) == {"mail": "ok"}

    def test_a_failure_stops_no_other_and_is_in_the_table(self, program: Program) -> None:
        (program.folder / "images" / "file.qcow2").write_bytes(b"no image at all")
        done = program.run("backup", "--all")

        assert done.status == 3
        table = [line.split() for line in done.out.splitlines()[-6:]]
        assert table[0] == ["MACHINE", "OUTCOME", "MODE", "READ", "STORED", "TIME", "CONSISTENCY"]
        assert [row[:2] for row in table[1:5]] == [
            ["db", "ok"],
            ["file", "failed"],
            ["web1", "ok"],
            ["web2", "ok"],
        ]
        assert done.out.splitlines()[-1].startswith("4 machines: 3 ok, 1 failed; read 6.0 MiB, stored ")
        assert "file: failed: " in done.err

    def test_what_an_interruption_left_out_is_said(
        self, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stopped(*_arguments: object) -> None:
            raise Interrupted("Interrupted")

        monkeypatch.setattr("hotspare.cli.backup_runs.backup_machine", stopped)
        done = program.run("backup", "--all", "-o", "json")

        assert done.status == 130
        document = json.loads(done.out)
        assert outcomes(document) == {"db": "interrupted", "web1": "not-begun", "web2": "not-begun"}
        assert document["summary"]["not_begun"] == 2

    def test_a_dry_run_names_those_that_are_chosen(self, program: Program) -> None:
        plan = program.expect("backup", "--include", "web*", "--dry-run", "-o", "json").document()
        assert [one["machine"]["name"] for one in plan["machines"]] == ["web1", "web2"]
        assert program.expect("point", "list", "-o", "json").document()["points"] == []

    @pytest.mark.parametrize(
        "words",
        [
            ("web1", "--all"),
            ("--all", "--image", "x.raw", "--name", "x"),
            ("--host", "images:///x", "--platform", "images:///y"),
            (),
        ],
    )
    def test_contradictions_are_refused(self, program: Program, words: tuple[str, ...]) -> None:
        assert program.run("backup", *words).status == 2

    def test_an_image_without_its_disk_is_refused(self, program: Program) -> None:
        refused = program.run("backup", "web1", "--exclude-disk", "disk*")
        assert refused.status == 2
        assert "excluded from this run" in refused.err

    def test_images_keep_no_tags(self, program: Program) -> None:
        assert program.run("machine", "tag", "web1", "add", "prod").status == 2
        assert program.run("machine", "tag", "web1", "add", "two words").status == 2
        assert program.run("machine", "tag", "web1", "add").status == 2


@pytest.mark.lab
class TestLibvirt:
    @pytest.fixture
    def program(self, tmp_path: Path, lab_host: None) -> Iterator[Program]:
        with program_for_libvirt(tmp_path) as program:
            yield program

    @pytest.fixture
    def tag(self) -> str:
        """A tag that no machine of another test on this host has."""
        return domain_name("tag")

    def test_tags_choose_machines_and_stay_with_them(self, program: Program, tag: str) -> None:
        with BareMachine("tag-a") as first, BareMachine("tag-b") as second, BareMachine("tag-c") as third:
            first.start()
            for machine in (first, second):
                program.expect("machine", "tag", machine.name, "add", tag, "common")
            second.start()  # what is noted on a machine that is off is there when it runs
            marked = program.expect(
                "machine", "tag", second.name, "remove", "common", "-o", "json"
            ).document()
            document = program.expect("backup", "--tag", tag, "-o", "json").document()
            listed = program.expect("machine", "list", "-o", "json").document()["machines"]
            first.domain.destroy()
            shown = program.expect("machine", "show", first.name, "-o", "json").document()["machine"]
            program.expect("machine", "tag", first.name, "remove", tag, "common")
            bare = first.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)

        assert outcomes(document) == {first.name: "ok", second.name: "ok"}
        assert {one["name"]: one["tags"] for one in listed if one["name"] in {first.name, third.name}} == {
            first.name: ["common", tag],
            third.name: [],
        }
        assert shown["tags"] == ["common", tag]
        assert marked["machine"]["tags"] == [tag]
        assert "urn:hotspare" not in bare
        assert differences(shape(examples()["machine-marked"]), shape(marked), "machine-marked") == []

    def test_marks_of_others_are_not_touched(self, program: Program, tag: str) -> None:
        with BareMachine("tag-others") as machine:
            machine.domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT, "<note>theirs</note>", "other", "urn:other", 0
            )
            program.expect("machine", "tag", machine.name, "add", tag)
            program.expect("machine", "tag", machine.name, "remove", tag)
            kept = machine.domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "urn:other")
        assert "theirs" in kept

    def test_a_disk_excluded_for_good(self, program: Program) -> None:
        new_name = domain_name("without")
        with BareMachine("exclude", ("qcow2", "qcow2")) as machine:
            machine.start()
            machine.write(0, MIB, 5, disk="vdb")
            program.expect("backup", machine.name)
            program.expect("machine", "disk", machine.name, "exclude", "vdb")
            without = program.expect("backup", machine.name, "-o", "json").document()["results"][0]["point"]
            text = program.expect("backup", machine.name).out
            try:
                restored = program.expect("restore", machine.name, "--to", new_name, "-o", "json").document()
            finally:
                LabGuest(new_name).remove()
            once = program.expect("backup", machine.name, "--disk", "vdb", "-o", "json").document()
            program.expect("machine", "disk", machine.name, "include", "vdb")
            machine.write(MIB, MIB, 6, disk="vdb")
            program.expect("backup", machine.name, "--exclude-disk", "vdb")
            again = program.expect("backup", machine.name, "-o", "json").document()["results"][0]["point"]

        assert [disk["name"] for disk in without["disks"]] == ["vda"]
        assert "vdb: excluded from backups for good" in without["left_out"]
        assert without["disks"][0]["mode"] == "increment"
        assert "left out: vdb: excluded from backups for good" in text
        assert [disk["name"] for disk in restored["machine"]["disks"]] == ["vda"]
        assert "vdb: excluded from backups for good" in restored["without"]
        assert [disk["name"] for disk in once["results"][0]["point"]["disks"]] == ["vdb"]
        modes = {disk["name"]: (disk["mode"], disk["full_because"]) for disk in again["disks"]}
        assert modes["vda"] == ("increment", None)
        assert modes["vdb"][0] == "full"
        assert "no record to go on from" in modes["vdb"][1]

    def test_disks_by_serial_and_alias(self, program: Program) -> None:
        with BareMachine("serials", ("qcow2", "raw", "qcow2")) as machine:
            definition = machine.domain.XMLDesc(0)
            for disk, extra in (("vdb", "<serial>SER-7</serial>"), ("vdc", "<alias name='ua-scratch'/>")):
                definition = definition.replace(
                    f"<target dev='{disk}' bus='virtio'/>", f"<target dev='{disk}' bus='virtio'/>{extra}"
                )
            connection().defineXML(definition)
            words = ("--exclude-disk", "SER-*", "--exclude-disk", "ua-scratch")
            point = program.expect("backup", machine.name, *words, "-o", "json").document()["results"][0][
                "point"
            ]
            plan = program.expect(
                "backup", machine.name, "--disk", "SER-7", "--dry-run", "-o", "json"
            ).document()

        assert [disk["name"] for disk in point["disks"]] == ["vda"]
        assert [disk["name"] for disk in plan["machines"][0]["machine"]["disks"]] == ["vdb"]

    def test_a_machine_that_vanishes_is_no_failure(
        self, program: Program, tag: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with BareMachine("vanish-a") as stays, BareMachine("vanish-b") as goes:
            for machine in (stays, goes):
                program.expect("machine", "tag", machine.name, "add", tag)
            listing = LibvirtPlatform.machines
            definition = goes.domain.XMLDesc(0)

            def then_remove(platform: LibvirtPlatform) -> object:
                found = listing(platform)
                goes.domain.undefine()
                return found

            monkeypatch.setattr(LibvirtPlatform, "machines", then_remove)
            done = program.run("backup", "--tag", tag, "-o", "json")
            monkeypatch.undo()
            goes.domain = connection().defineXML(definition)

        assert done.status == 0, done.err
        assert outcomes(json.loads(done.out)) == {stays.name: "ok", goes.name: "vanished"}
        assert json.loads(done.out)["summary"]["vanished"] == 1


@pytest.mark.lab
def test_listing_passes_over_a_machine_that_was_just_removed(
    lab_host: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(LibvirtPlatform("qemu:///system")) as platform, BareMachine("just-removed") as machine:
        listed = platform._open.listAllDomains()
        definition = machine.domain.XMLDesc(0)
        machine.domain.undefine()
        monkeypatch.setattr(platform._open, "listAllDomains", lambda: listed)
        assert machine.name not in {one.name for one in platform.machines()}
        machine.domain = connection().defineXML(definition)
