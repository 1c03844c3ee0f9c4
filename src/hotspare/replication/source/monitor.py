"""The monitor of a running machine's QEMU, reached through libvirt.

What is done here goes past libvirt, which notes that the domain is "tainted" by it; libvirt itself has no
words for a mirror that can be let go of when its target is silent. Protocol: QEMU's "QMP reference manual".
"""

import json
import time
import xml.etree.ElementTree as ET
from collections.abc import Collection
from typing import Any

import libvirt
import libvirt_qemu

from hotspare.errors import HotspareError, SourceLost
from hotspare.platforms.libvirt.connection import explained

_POLL_SECONDS = 0.01


class Monitor:
    """QEMU of one domain. Thread-safe, as libvirt is."""

    def __init__(self, domain: libvirt.virDomain) -> None:
        self.domain = domain
        self.name: str = domain.name()

    def ask(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Give a command and its result; ``node_name`` is written ``node-name``.

        Raises:
            SourceLost: the machine does not run any more.
            HotspareError: QEMU or libvirt refuses.
        """
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        request = json.dumps({"execute": command, "arguments": words})
        try:
            answer = json.loads(libvirt_qemu.qemuMonitorCommand(self.domain, request, 0))
        except libvirt.libvirtError as error:
            if error.get_error_code() in {libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN}:
                raise SourceLost(f"The machine {self.name} does not run") from error
            with explained(f"QEMU of {self.name} cannot be asked for {command}"):
                raise
        if "error" in answer:
            raise HotspareError(f"QEMU of {self.name} refuses {command}: {answer['error']['desc']}")
        return answer["return"]

    def disk_nodes(self, disks: Collection[str]) -> dict[str, str]:
        """Find the nodes that the guest's disks are, as it was before any mirror was put on them.

        Args:
            disks: names as libvirt has them: ``vda``.

        Raises:
            SourceLost: the machine does not run, or has no such disk.
        """
        with explained(f"The disks of {self.name} cannot be looked at"):
            definition = ET.fromstring(self.domain.XMLDesc(0))  # noqa: S314 - libvirt's own XML
        nodes = self.nodes()
        found = {}
        for element in definition.iterfind("devices/disk"):
            target, source = element.find("target"), element.find("source")
            if target is None or source is None or target.get("dev") not in disks:
                continue
            # Newer libvirt has no node of its own for the format of a raw image.
            for kind in ("format", "storage"):
                if (name := f"libvirt-{source.get('index')}-{kind}") in nodes:
                    found[target.get("dev", "")] = name
                    break
        if missing := set(disks) - set(found):
            raise SourceLost(f"QEMU of {self.name} has no disk {', '.join(sorted(missing))}")
        return found

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Give all nodes by name."""
        return {node["node-name"]: node for node in self.ask("query-named-block-nodes", flat=True)}

    def jobs(self, prefix: str) -> dict[str, dict[str, Any]]:
        """Give the jobs whose names begin so, with what is known of them as block jobs."""
        block = {job["device"]: job for job in self.ask("query-block-jobs")}
        return {
            job["id"]: {**block.get(job["id"], {}), **job}
            for job in self.ask("query-jobs")
            if job["id"].startswith(prefix)
        }

    def wait_concluded(self, prefix: str, seconds: float) -> bool:
        """Dismiss jobs as they come to their end; tell whether none is left after so long."""
        deadline = time.monotonic() + seconds
        while jobs := self.jobs(prefix):
            for name, job in jobs.items():
                if job["status"] == "concluded":
                    self.ask("job-dismiss", id=name)
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True
