"""docs/json-output.md against what the commands print."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotspare.documents.progress import EVENT_TYPES
from tests.cli.guest_image import make_guest_image, mounted
from tests.cli.images import change_image, make_image
from tests.cli.program import Program, interrupt

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "json-output.md").read_text(encoding="utf-8")
OPAQUE = {"description"}
"""Fields whose content the document leaves to others."""


def examples() -> dict[str, dict[str, Any]]:
    """Give the examples by their type."""
    found = [json.loads(example) for example in re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)]
    assert len({example["type"] for example in found}) == len(found)
    return {example["type"]: example for example in found}


def shape(value: Any, name: str = "") -> Any:
    """Give the fields of a document, with those that are in each other, without their values.

    A list is what its elements have together; an object that may be null is left out of the comparison
    when it is null on either side.
    """
    if isinstance(value, dict) and name not in OPAQUE:
        return {key: shape(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        merged: dict[str, Any] = {}
        for inner in value:
            if isinstance(inner, dict):
                known = {key: old for key, old in merged.items() if old is not None}
                merged = shape(inner) | known
        return [merged] if merged else None
    return None


def differences(documented: Any, printed: Any, where: str) -> list[str]:
    if isinstance(documented, list) and isinstance(printed, list):
        return differences(documented[0], printed[0], f"{where}[]")
    if not (isinstance(documented, dict) and isinstance(printed, dict)):
        return []
    found = [f"{where}.{key}" for key in documented.keys() ^ printed.keys()]
    for key in documented.keys() & printed.keys():
        found += differences(documented[key], printed[key], f"{where}.{key}")
    return found


def printed_documents(program: Program) -> list[dict[str, Any]]:
    """Use every command once, and give what each printed."""
    folder = program.folder
    printed = [program.run("repo", "info", "-o", "json").error()]

    def use(*words: str | Path, **variables: str) -> dict[str, Any]:
        printed.append(program.run(*words, "-o", "json", **variables).document())
        return printed[-1]

    use("repo", "create")
    image = folder / "images" / "web.raw"
    make_image(image)
    name = use("machine", "list")["machines"][0]["name"]
    use("backup", name, "--dry-run")
    use("backup", name, "nobody")
    change_image(image)
    use("backup", name)
    disk = use("point", "list")["points"][0]["disks"][0]["name"]
    use("machine", "list")
    use("machine", "show", name)
    use("point", "show", name)
    printed.append(first_document(program, "point", "serve", name))
    use("point", "definition", name)
    use("restore", name, "--to", "again", "--dry-run")
    use("restore", name, "--to", "again")
    use("restore", name, "--disk", f"{disk}={folder}/out.raw")
    use("verify", name, "--scan", "false")
    use("point", "list")
    use("repo", "info")
    use("doctor")
    use("sweep")
    documents_of_policies(use, folder)
    documents_of_history(use)
    use("recover", "list")
    printed.extend(documents_of_files(program))
    use("point", "keep", name)
    use("point", "release", name)
    use("point", "forget", name, "--yes")
    use("repo", "prune")
    use("repo", "reindex")
    use("key", "list")
    use("key", "add", "--key-file", folder / "key")
    removable = use("key", "recovery-kit", folder / "kit.txt")["slot"]
    use("key", "remove", removable)
    use("key", "rotate")
    program.expect("repo", "create", folder / "second", HOTSPARE_PASSPHRASE="other")
    use("repo", "copy", "--to", folder / "second", HOTSPARE_TO_PASSPHRASE="other")
    next(path for path in (program.repository / "data").rglob("*") if path.is_file()).write_bytes(b"")
    use("repo", "check", "--packs")
    use("repo", "check")
    use("verify")
    use("repo", "repair")
    lines = program.run("backup", name, "--progress", "jsonl").err.splitlines()
    printed.extend(json.loads(line) for line in lines if line.startswith("{"))
    damaged = next(path for path in (program.repository / "points").rglob("*") if path.is_file())
    damaged.write_bytes(b"")
    use("point", "forget", damaged.name, "--damaged", "--yes")
    use("key", "change-passphrase", HOTSPARE_NEW_PASSPHRASE="new")
    printed.extend(documents_of_access(program))
    return printed


def documents_of_history(use: Callable[..., dict[str, Any]]) -> None:
    """Use every command on what was done."""
    newest = use("run", "list")["runs"][0]["id"]
    use("run", "show", str(newest))
    use("report")


def documents_of_policies(use: Callable[..., dict[str, Any]], folder: Path) -> None:
    """Use every command on policies once, and those that keep them beyond this host."""
    use("policy", "add", "nightly", "--when", "22:00", "--window", "21:00-06:00", "--rpo", "26h")
    use("policy", "add", "nothing", "--include", "nothing*", "--keep-last", "1")
    use("policy", "list")
    use("policy", "show", "nightly")
    use("policy", "run", "nightly", "--dry-run")
    use("policy", "run", "nightly")
    use("policy", "preview", "nothing", "--no-retention")
    use("policy", "preview", "nightly")
    use("policy", "forget", "nightly", "--dry-run")
    use("config", "export")
    changed = folder / "changed.yaml"
    changed.write_text("policies: {nightly: {retention: {daily: 7}}}")
    use("config", "diff", changed)
    use("config", "apply", changed)
    use("load", "windows")
    use("mover", "host")
    use("policy", "remove", "nothing", "--yes")
    for words in (["backup"], ["list"], ["show"], ["rebuild", "--dry-run"]):
        use("self", *words)


def documents_of_access(program: Program) -> list[dict[str, Any]]:
    """Use every command about who may use the server, and serve."""
    program.environment["HOTSPARE_PASSPHRASE"] = "new"
    password = {"HOTSPARE_USER_PASSPHRASE": "correct horse battery"}
    commands = [
        ["user", "add", "anna", "--role", "admin"],
        ["user", "password", "anna"],
        ["user", "list"],
        ["audit", "list"],
        ["audit", "verify"],
    ]
    printed = [program.expect(*words, "-o", "json", **password).document() for words in commands]
    return [*printed, first_document(program, "server", "--listen", "127.0.0.1:0")]


def documents_of_files(program: Program) -> list[dict[str, Any]]:
    """Use every command that looks into restore points, and give what each printed."""
    image, folder = program.folder / "guest.raw", program.folder / "mounted"
    make_guest_image(image)
    folder.mkdir()
    points = []
    for content in ("one", "three"):
        with mounted(image) as root:
            (root / "etc/changed").write_text(content)
        program.expect("backup", "--image", image, "--name", "guest", "--index-files")
        points.append(program.expect("point", "list", "-o", "json").document()["points"][-1]["id"])
    commands: list[list[str | Path]] = [
        ["files", "ls", "guest"],
        ["files", "ls", "guest", "/etc"],
        ["files", "cat", "guest", "/etc/hosts"],
        ["files", "find", "*.conf", "--machine", "guest"],
        ["files", "versions", "/etc/hosts", "--machine", "guest"],
        ["files", "restore", "guest", "/etc", "--to", program.folder / "files", "--dry-run"],
        ["files", "restore", "guest", "/etc", "--to", program.folder / "files"],
        ["point", "diff", *points, "/etc/changed"],
    ]
    printed = [program.expect(*words, "-o", "json").document() for words in commands]
    return [*printed, first_document(program, "mount", "guest", str(folder))]


def first_document(program: Program, *words: str) -> dict[str, Any]:
    """Run a command until it has said what it has to say, and interrupt it."""
    process = program.start(*words, "-o", "json")
    assert process.stdout is not None
    said = "".join(iter(process.stdout.readline, "}\n")) + "}"
    done = interrupt(process)
    assert done.status == 0, done.err
    document: dict[str, Any] = json.loads(said)
    return document


def test_every_document_has_the_fields_of_its_example(program: Program) -> None:
    documented = examples()
    printed = printed_documents(program)
    wrong = [
        difference
        for one in printed
        for difference in differences(shape(documented[one["type"]]), shape(one), one["type"])
    ]
    assert wrong == []
    # Nothing warns and no guest runs here; the fields are those of the events, as their siblings' are. Images
    # cannot be marked: tests/cli/test_whole_host.py looks at that document. Locks take a store that has them:
    # tests/storage/test_object_lock.py compares those documents. Nor can they be restored in place:
    # tests/cli/test_restored_guest.py does that.
    elsewhere = {"warned", "held-back", "machine-marked", "locks-extended", "repository-recovered"}
    elsewhere |= {"restore-undone", "restore-confirmed"}
    # Nor do they run: tests/cli/test_boot_test.py starts machines.
    elsewhere |= {"boot-tests"}
    # Nor can machines run from a repository: tests/cli/test_recover.py does that.
    elsewhere |= {"recovery", "recovery-plan", "recovery-going", "recovery-undone"}
    elsewhere |= {"recoveries-done", "recovery-steps"}
    # Images use nothing: tests/platforms/libvirt/test_use.py compares what is sampled of a host.
    elsewhere |= {"restore-undone", "restore-confirmed", "load-sample"}
    # There are jobs only while a server runs: tests/jobs/test_server.py compares those documents.
    elsewhere |= {"jobs", "job"}
    # tests/cli/test_backup_continuous.py and tests/replication/plain/test_files.py compare these.
    elsewhere |= {"backup-cycle", "extracted"}
    # These take receivers and policies: tests/cli/test_notice.py and test_watchdog.py compare them.
    elsewhere |= {"notices", "notice", "notice-tested", "notices-sent", "notice-log", "watchdog"}
    # Replication takes agents: tests/cli/test_replica_failover.py compares what they print without machines.
    elsewhere |= {"peer", "peers", "pairing-token", "protection", "replicas", "replica-points"}
    elsewhere |= {"failover", "rehearsal", "lease", "failover-policy"}
    # Likewise tests/cli/test_replica_group.py.
    elsewhere |= {"replica-groups", "group-points", "group-failover", "group-rehearsal", "group-reprotected"}
    assert documented.keys() - {one["type"] for one in printed} == elsewhere


def test_every_type_that_the_program_knows_is_documented() -> None:
    folders = [ROOT / "src" / "hotspare" / name for name in ("cli", "documents")]
    sources = [path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.py")]
    known = {kind for source in sources for kind in re.findall(r'\bdocument\(\s*"([a-z-]+)"', source)}
    events = set(EVENT_TYPES.values())
    assert known | events == examples().keys()


@pytest.mark.parametrize(
    ("documented", "printed"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"a": 1}),
        ({"a": {"x": 1}}, {"a": {"y": 1}}),
        ({"a": [{"x": 1}]}, {"a": [{"x": 1, "y": 2}]}),
    ],
)
def test_a_difference_is_noticed(documented: Any, printed: Any) -> None:
    assert differences(shape(documented), shape(printed), "document")
