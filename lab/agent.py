"""Doing things inside a guest through its agent; see QEMU's "guest agent protocol reference"."""

import base64
import hashlib
import json
import time
from typing import Any

import libvirt
import libvirt_qemu

from lab.errors import CommandError, LabError

# A request of more than about 64 KiB (a third is added on the way) makes the agent hang.
_WRITE_PIECE = 40 * 1024
# libvirt refuses an answer of 10 MiB.
_READ_PIECE = 2 * 1024 * 1024
_POLL_MIN, _POLL_MAX = 0.02, 0.3
"""Seconds between two questions, which an emulated processor has to answer while it works."""


def ping(domain: libvirt.virDomain, seconds: int = 1) -> bool:
    """Tell whether the agent answers within that time."""
    try:
        call(domain, "guest-ping", seconds=seconds)
    except (libvirt.libvirtError, LabError):
        return False
    return True


def call(domain: libvirt.virDomain, command: str, seconds: int = 20, **arguments: object) -> Any:  # noqa: ANN401 - JSON
    """Send one command of the agent's protocol and give what it returns."""
    request = {"execute": command, "arguments": {key.replace("_", "-"): arguments[key] for key in arguments}}
    return json.loads(libvirt_qemu.qemuAgentCommand(domain, json.dumps(request), seconds, 0))["return"]


def execute(domain: libvirt.virDomain, command: str, *, stdin: bytes = b"", timeout: float = 60) -> bytes:
    """Run a shell command and give its standard output.

    Raises:
        CommandError: it ended with a status other than zero.
        LabError: it did not end in time.
    """
    request: dict[str, Any] = {
        "path": "/bin/sh",
        "arg": ["-c", command],
        "env": ["PATH=/bin:/sbin:/usr/sbin", "HOME=/root"],
        "capture_output": True,
    }
    if stdin:
        request["input_data"] = base64.b64encode(stdin).decode()
    pid = call(domain, "guest-exec", **request)["pid"]
    deadline, pause = time.monotonic() + timeout, _POLL_MIN
    while not (status := call(domain, "guest-exec-status", pid=pid))["exited"]:
        if time.monotonic() > deadline:
            raise LabError(f"{domain.name()}: {command!r} did not end within {timeout:.0f} s")
        time.sleep(pause)
        pause = min(1.3 * pause, _POLL_MAX)
    output = base64.b64decode(status.get("out-data", ""))
    if exit_status := status.get("exitcode", -1):
        errors = base64.b64decode(status.get("err-data", "")).decode(errors="replace")
        raise CommandError(domain.name(), command, exit_status, output.decode(errors="replace"), errors)
    return output


def write(domain: libvirt.virDomain, path: str, content: bytes) -> None:
    """Write a file and flush it to the disk."""
    execute(domain, f": > '{path}'")
    for start in range(0, len(content), _WRITE_PIECE):
        execute(domain, f"cat >> '{path}'", stdin=content[start : start + _WRITE_PIECE])
    execute(domain, f"sync '{path}'")
    expected = hashlib.sha256(content).hexdigest()
    if (written := sha256(domain, path)) != expected:
        raise LabError(f"{domain.name()}: {path} should have the SHA-256 {expected} and has {written}")


def read(domain: libvirt.virDomain, path: str) -> bytes:
    """Read a file, in pieces that libvirt accepts as one answer."""
    content = b""
    while True:
        skip = len(content) // _READ_PIECE
        piece = execute(domain, f"dd if='{path}' bs={_READ_PIECE} skip={skip} count=1 2>/dev/null")
        content += piece
        if len(piece) < _READ_PIECE:
            return content


def sha256(domain: libvirt.virDomain, path: str) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    return execute(domain, f"sha256sum '{path}'").decode().split()[0]
