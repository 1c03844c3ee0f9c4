"""What becomes of a backup or restore on another host when the connection ends; its mover is scripted."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hotspare.api.inside import PlanRequest, restore_words
from hotspare.backup.claim import UNDISPUTED, Claim
from hotspare.cancellation import Cancellation
from hotspare.cli.app import app
from hotspare.cli.heard import Heard
from hotspare.cli.options import Options
from hotspare.cli.other_host import OtherHost
from hotspare.cli.placement import PlacementOptions
from hotspare.cli.policy_engine import words_of
from hotspare.cli.session import Session
from hotspare.documents.machine import machine_fields
from hotspare.errors import Interrupted, PlatformUnavailable, RunExpelled, SourceLost, TargetExists
from hotspare.events import Event, PhaseStarted
from hotspare.mover.wire import MAGIC, VERSION, Begun, Committing, Ended, Hello, Message, Said
from hotspare.platforms.offers import Offers
from hotspare.platforms.platform import Machine, PowerState
from hotspare.policy.policy import Manner
from hotspare.repository.format import EXPELLED
from hotspare.repository.point import RestorePoint
from hotspare.storage.served.frames import encode_head
from tests.cli.images import make_image
from tests.cli.program import Program

MIB = 1024 * 1024
URI = "qemu+ssh://root@host2/system"
Step = tuple[Message, bytes] | Message
NO_ROUTE = "#!/bin/sh\necho 'ssh: no route' >&2; exit 255\n"
WRITING = b'{"type": "phase-started", "v": 1, "machine": "again", "phase": "transfer"}\n'


def scripted(*steps: Step, stays: bool = True) -> str:
    """Give a program that says these things as a mover would, and waits for what it asked."""
    said = [(step, b"") if not isinstance(step, tuple) else step for step in steps]
    frames = [(encode_head(one, len(body)) + body, isinstance(one, Begun | Committing)) for one, body in said]
    return f"""#!{sys.executable}
import os
os.write(1, {MAGIC + encode_head(Hello(VERSION, "1"))!r})
for frame, is_question in {frames!r}:
    os.write(1, frame)
    heard = b""
    while is_question and b"verdict" not in heard:
        heard += os.read(0, 65536)
while {stays} and os.read(0, 65536):
    pass
"""


class Site:
    """A repository with one restore point, and a host that says what it is told to."""

    def __init__(self, program: Program, session: Session) -> None:
        self.program = program
        self.session = session
        self.repository = session.repository()
        (self.point,) = self.repository.points()

    def play(self, *scripts: str) -> OtherHost:
        """Give a host that says one script for each connection, the last for all that follow."""
        folder = self.program.folder
        for number, script in enumerate(scripts):
            (folder / f"ssh-{number}").write_text(script)
            (folder / f"ssh-{number}").chmod(0o755)
        (folder / "ssh").write_text(
            f"#!/bin/sh\ncd {folder}; n=$(cat played); test -e ssh-$((n + 1)) && echo $((n + 1)) > played\n"
            "exec ./ssh-$n\n"
        )
        (folder / "ssh").chmod(0o755)
        (folder / "played").write_text("0")
        return OtherHost(URI, self.session.settings, self.session.credential)

    def restore(self, *scripts: str) -> tuple[dict[str, Any], list[Event], list[str]]:
        """Have ``again`` restored there; gives the document, and what was heard of it."""
        events: list[Event] = []
        asides: list[str] = []
        heard = Heard(events.append, asides.append)
        words = ["--to=again", "--", self.point.id]
        url = self.session.settings.repository
        return self.play(*scripts).restore(url, "again", words, heard, Cancellation()), events, asides

    def back_up(self, script: str, claim: Claim = UNDISPUTED) -> tuple[RestorePoint, list[Event]]:
        heard: list[Event] = []
        other = self.play(script)
        repository = self.repository, self.session.settings.repository
        machine = self.point.machine_id
        point = other.back_up(repository, machine, [], heard.append, Cancellation(), claim)
        return point, heard


@pytest.fixture
def there(program: Program, monkeypatch: pytest.MonkeyPatch) -> Site:
    make_image(program.folder / "images" / "web.raw", MIB, data=MIB, seed=1)
    program.expect("repo", "create")
    program.expect("backup", "web")
    program.environment["HOTSPARE_SSH_COMMAND"] = str(program.folder / "ssh")
    for name, value in program.environment.items():
        monkeypatch.setenv(name, value)
    return Site(program, Session(Options()))


def document(site: Site) -> bytes:
    return json.dumps({"results": [{"point": {"id": site.point.id}, "error": None}]}).encode()


def test_what_is_said_on_the_way_is_heard_and_the_point_is_read_here(there: Site) -> None:
    event = b'{"type": "phase-started", "v": 1, "machine": "web", "phase": "transfer"}\n'
    script = scripted(Begun("s"), (Said(2), event), Committing(), (Said(1), document(there)), Ended(0))
    point, heard = there.back_up(script)
    assert point == there.point
    assert heard[0] == PhaseStarted("web", "transfer")


def test_a_connection_lost_after_the_point_was_published_is_a_success(there: Site) -> None:
    point, _ = there.back_up(scripted(Begun(there.point.session), Committing(), stays=False))
    assert point == there.point


def test_a_connection_lost_before_that_leaves_nothing_that_counts_later(there: Site) -> None:
    with pytest.raises(PlatformUnavailable) as lost:
        there.back_up(scripted(Begun("0123456789abcdef"), Committing(), stays=False))
    assert URI in lost.value.what
    expelled = [item.name for item in there.repository.backend.list(EXPELLED)]
    assert expelled == [EXPELLED + "0123456789abcdef"]


def test_a_connection_lost_while_data_is_sent_expels_nobody(there: Site) -> None:
    # It may not publish without asking, so there is nothing to settle.
    with pytest.raises(PlatformUnavailable):
        there.back_up(scripted(Begun("0123456789abcdef"), stays=False))
    assert list(there.repository.backend.list(EXPELLED)) == []


def test_errors_are_those_of_the_host(there: Site) -> None:
    failed = b'{"results": [{"point": null, "error": {"code": "source-lost", "what": "The disk is gone"}}]}'
    with pytest.raises(SourceLost, match="The disk is gone"):
        there.back_up(scripted((Said(1), failed), Ended(25)))
    early = b'{"type": "error", "v": 1, "code": "interrupted", "what": "Interrupted"}\n'
    with pytest.raises(Interrupted):
        there.back_up(scripted((Said(2), early), Ended(130)))


def test_who_is_given_up_is_told_so_and_not_what_the_host_says(there: Site) -> None:
    class Lost:
        def begun(self, session: str) -> None:
            pass

        def before_commit(self) -> None:
            raise RunExpelled("another has it")

    failed = b'{"results": [{"point": null, "error": {"code": "failed", "what": "something"}}]}'
    with pytest.raises(RunExpelled, match="another has it"):
        there.back_up(scripted(Begun("s"), Committing(), (Said(1), failed), Ended(1)), Lost())


def test_a_host_without_an_answer_is_unavailable(there: Site) -> None:
    with pytest.raises(PlatformUnavailable, match="no route"):
        there.play(NO_ROUTE).machines()


def restored(name: str = "again") -> dict[str, Any]:
    machine = Machine(
        id="1", name=name, platform="qemu:///system", state=PowerState.OFF, cpus=1, memory=MIB, disks=()
    )
    return {"type": "restore", "v": 1, "point": "p", "machine": machine_fields(machine)}


def having(*names: str) -> str:
    """A host that is asked what machines it has, and has these."""
    machines = [{**restored(name)["machine"], "pools": []} for name in names]
    offers = {"pools": ["fast"], "networks": ["lab"], "bridges": []}
    said = {"type": "host", "v": 1, "machines": machines, "load": None, "offers": offers}
    return scripted((Said(1), json.dumps(said).encode()), Ended(0))


def lost_while_restoring(*, may_finish: bool) -> str:
    last = [Committing()] if may_finish else []
    return scripted((Said(2), WRITING), *last, stays=False)


def test_a_restore_is_heard_and_described_by_the_host(there: Site) -> None:
    warning = b"Warning: the network lab is not active\n"
    document = json.dumps(restored()).encode()
    script = scripted((Said(2), warning + WRITING), Committing(), (Said(1), document), Ended(0))
    made, events, asides = there.restore(script)
    assert (made, events) == (restored(), [PhaseStarted("again", "transfer")])
    assert asides == ["Warning: the network lab is not active"]


def test_a_restore_that_was_lost_before_it_might_finish_has_made_no_machine(there: Site) -> None:
    with pytest.raises(PlatformUnavailable, match="root@host2") as lost:
        there.restore(lost_while_restoring(may_finish=False), having("again"))
    assert lost.value.meaning.startswith("There is no machine again of this restore")
    with pytest.raises(PlatformUnavailable, match="no route") as never:
        there.restore(NO_ROUTE)
    assert never.value.meaning == "Nothing was restored"


def test_of_a_restore_lost_while_it_finished_the_host_is_asked(
    there: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotspare.cli.other_host.LOOKING_SECONDS", 0.0)
    monkeypatch.setattr("hotspare.cli.other_host._LOOKS_EVERY", 0.0)
    finishing = lost_while_restoring(may_finish=True)
    for afterwards, meaning, hint in (
        ([having("web", "again")], "The machine again is there, with all its data; it is off", "Use it"),
        ([having("web")], f"there was none on {URI} when it was looked for", "Look once more"),
        ([NO_ROUTE], "whether there is one is not known", "When it does, see 'hotspare machine list"),
    ):
        with pytest.raises(PlatformUnavailable) as lost:
            there.restore(finishing, *afterwards)
        assert meaning in lost.value.meaning
        assert lost.value.hint.startswith(hint)


def test_a_machine_that_appears_a_moment_later_is_found(there: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotspare.cli.other_host._LOOKS_EVERY", 0.0)
    with pytest.raises(PlatformUnavailable) as lost:
        there.restore(lost_while_restoring(may_finish=True), NO_ROUTE, having(), having("again"))
    assert "again is there" in lost.value.meaning


def test_what_stands_in_the_way_of_a_restore_is_said_as_the_host_says_it(there: Site) -> None:
    taken = (
        b'{"type": "error", "v": 1, "code": "target-exists", "what": "again is there", "hint": "Another"}\n'
    )
    with pytest.raises(TargetExists, match="again is there"):
        there.restore(scripted((Said(2), taken), Ended(26)))
    with pytest.raises(TargetExists):
        there.play(scripted((Said(2), taken), Ended(26))).plan_restore(None, ["--to=again", "--", "p"])
    plan = b'{"type": "restore-plan", "v": 1, "point": "p", "in_place": false, "plan": {"name": "again"}}'
    assert there.play(scripted((Said(1), plan), Ended(0))).plan_restore(None, []) == {"name": "again"}


def test_where_a_machine_goes_is_said_in_options_of_the_command(there: Site) -> None:
    whole = PlacementOptions(
        folder=Path("/srv/new machines"),
        pool="fast",
        place=["vda=slow", "vdb=/srv/x"],
        map_network=["lab=default", "a b=c"],
        map_bridge=["br0=br1"],
        map_machine=["pc-q35-9.2=q35"],
        keep_uuid=True,
        keep_macs=True,
    )
    assert understood([*whole.words(), "--to=x", "--", "p"])["where"] == whole
    networks, bridges = {"lab": "default", "dmz": "x=y"}, {"br0": "br1"}
    body = PlanRequest(name="-x", pool="fast", networks=networks, bridges=bridges, keep_id=True)
    asked = understood(restore_words(body, there.point, "--start"))
    placement = asked["where"].placement()
    assert (asked["to"], asked["start"], asked["point"]) == ("-x", True, there.point.id)
    assert (placement.pool, placement.networks, placement.bridges) == ("fast", networks, bridges)
    assert (placement.keep_id, placement.keep_macs) == (True, False)


def understood(words: list[str]) -> dict[str, Any]:
    """Read what follows ``hotspare restore``."""
    _, bound, *_ = app.parse_args(["restore", *words], exit_on_error=False, print_error=False)
    return bound.arguments


def test_a_host_says_what_a_new_machine_can_be_given(there: Site) -> None:
    assert there.play(having()).offers() == Offers(pools=("fast",), networks=("lab",))


def test_a_policy_is_said_in_options_of_the_command() -> None:
    manner = Manner(
        consistency="crash",
        require_consistency=True,
        hooks=("postgresql,timeout=60s",),
        skip_unused=False,
        index_files=True,
        read_limit="1MiB/s",
        exclude_disks=("-x", "scratch*"),
    )
    assert words_of(Manner()) == ["--latency-factor=2.0", "--check-tracking=0.0"]
    assert words_of(manner)[2:] == [
        "--consistency=crash",
        "--require-consistency",
        "--hook=postgresql,timeout=60s",
        "--exclude-disk=-x",
        "--exclude-disk=scratch*",
        "--read-limit=1MiB/s",
        "--no-skip-unused",
        "--index-files",
    ]
