"""What becomes of a backup on another host when the connection ends; the mover there is scripted."""

import json
import sys

import pytest

from hotspare.backup.claim import UNDISPUTED, Claim
from hotspare.cancellation import Cancellation
from hotspare.cli.options import Options
from hotspare.cli.other_host import OtherHost
from hotspare.cli.policy_engine import words_of
from hotspare.cli.session import Session
from hotspare.errors import Interrupted, PlatformUnavailable, RunExpelled, SourceLost
from hotspare.events import Event, PhaseStarted
from hotspare.mover.wire import MAGIC, VERSION, Begun, Committing, Ended, Hello, Message, Said
from hotspare.policy.policy import Manner
from hotspare.repository.format import EXPELLED
from hotspare.repository.point import RestorePoint
from hotspare.storage.served.frames import encode_head
from tests.cli.images import make_image
from tests.cli.program import Program

MIB = 1024 * 1024
URI = "qemu+ssh://root@host2/system"
Step = tuple[Message, bytes] | Message


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

    def back_up(self, script: str, claim: Claim = UNDISPUTED) -> tuple[RestorePoint, list[Event]]:
        (self.program.folder / "ssh").write_text(script)
        (self.program.folder / "ssh").chmod(0o755)
        heard: list[Event] = []
        other = OtherHost(URI, self.session.settings, self.session.credential)
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
    (there.program.folder / "ssh").write_text("#!/bin/sh\necho 'ssh: no route' >&2; exit 255\n")
    (there.program.folder / "ssh").chmod(0o755)
    with pytest.raises(PlatformUnavailable, match="no route"):
        OtherHost(URI, there.session.settings, there.session.credential).machines()


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
