"""Running a program inside a guest through its agent; see QEMU's "guest agent protocol reference"."""

import base64
import json
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import libvirt
import libvirt_qemu

_AGENT = "org.qemu.guest_agent.0"
_ANSWER_SECONDS = 20
"""How long the agent may take to answer one request."""
_POLL_SECONDS = 0.05


class Ended(NamedTuple):
    """A program that ran to its end."""

    status: int
    """Exit status; 128 and more for signals."""
    output: str
    """What it printed, standard output before standard error."""


def agent_is_connected(domain: libvirt.virDomain) -> bool:
    """Tell whether a guest agent has opened its end of the channel."""
    try:
        definition = ET.fromstring(domain.XMLDesc(0))  # noqa: S314 - libvirt's own XML
    except libvirt.libvirtError:
        return False
    targets = definition.iterfind("devices/channel/target")
    return any(one.get("name") == _AGENT and one.get("state") == "connected" for one in targets)


def shell_request(script: str, arguments: Sequence[str], stdin: bytes = b"") -> str:
    """Give the request (JSON) that runs a shell script; its arguments are ``$1`` and so on."""
    request: dict[str, Any] = {
        "path": "/bin/sh",
        "arg": ["-c", script, "hotspare", *arguments],
        "capture-output": True,
    }
    if stdin:
        request["input-data"] = base64.b64encode(stdin).decode()
    return json.dumps({"execute": "guest-exec", "arguments": request})


def run_shell(
    domain: libvirt.virDomain,
    script: str,
    arguments: Sequence[str],
    *,
    stdin: bytes = b"",
    seconds: float,
    check: Callable[[], None] = lambda: None,
) -> Ended:
    """Run a shell script as root and wait for its end.

    Args:
        domain: the guest.
        script: for ``sh -c``.
        arguments: ``$1``, ``$2``…; nothing secret, every user of the guest can see them.
        stdin: what it reads; at most about 40 KiB.
        seconds: how long it may take.
        check: called while waiting; what it raises ends the waiting.

    Raises:
        libvirt.libvirtError: the agent does not answer, or does not know or allow ``guest-exec``.
        TimeoutError: the script goes on and is left alone.
    """
    pid = _ask(domain, shell_request(script, arguments, stdin))["pid"]
    question = json.dumps({"execute": "guest-exec-status", "arguments": {"pid": pid}})
    deadline = time.monotonic() + seconds
    while not (status := _ask(domain, question))["exited"]:
        check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not end within {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)
    printed = b"".join(base64.b64decode(status.get(stream, "")) for stream in ("out-data", "err-data"))
    ended = status["exitcode"] if "exitcode" in status else 128 + int(status.get("signal", 0))
    return Ended(ended, printed.decode(errors="replace"))


def _ask(domain: libvirt.virDomain, request: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads(libvirt_qemu.qemuAgentCommand(domain, request, _ANSWER_SECONDS, 0))["return"]
