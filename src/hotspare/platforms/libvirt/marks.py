"""Our marks on a domain, in the ``<metadata>`` of its definition.

libvirt keeps there one element for each XML namespace and never looks inside; it moves with the domain when
that is migrated, edited or dumped. Ours:

    <hotspare:machine xmlns:hotspare="urn:hotspare:machine:1">
      <hotspare:tag>prod</hotspare:tag>
      <hotspare:exclude-disk>vdb</hotspare:exclude-disk>
      <hotspare:hook>mariadb,on-failure=fail</hotspare:hook>
      <hotspare:check>tcp:3306,timeout=2m</hotspare:check>
    </hotspare:machine>
"""

import xml.etree.ElementTree as ET

import libvirt

from hotspare.platforms.libvirt.connection import explained
from hotspare.platforms.platform import MachineMarks

NAMESPACE = "urn:hotspare:machine:1"
_PREFIX = "hotspare"
_TAG = f"{{{NAMESPACE}}}tag"
_EXCLUDE_DISK = f"{{{NAMESPACE}}}exclude-disk"
_HOOK = f"{{{NAMESPACE}}}hook"
_CHECK = f"{{{NAMESPACE}}}check"


def marks_in(definition: ET.Element) -> MachineMarks:
    """Read the marks in a domain's definition; what is not known in them is passed over."""
    element = definition.find(f"metadata/{{{NAMESPACE}}}machine")
    if element is None:
        return MachineMarks()
    return MachineMarks(
        tags=tuple(sorted(_texts(element, _TAG))),
        excluded_disks=tuple(sorted(_texts(element, _EXCLUDE_DISK))),
        hooks=_texts(element, _HOOK),
        checks=_texts(element, _CHECK),
    )


def write_marks(domain: libvirt.virDomain, marks: MachineMarks) -> None:
    """Put marks into a domain's definition, and into that of its running instance.

    Raises:
        PermissionRefused: the connection is read-only.
        MachineNotFound: the domain is gone.
    """
    # The prefix of our own elements is libvirt's to choose: it adds the namespace to what it is given.
    element = ET.Element("machine")
    kinds = (
        ("tag", marks.tags),
        ("exclude-disk", marks.excluded_disks),
        ("hook", marks.hooks),
        ("check", marks.checks),
    )
    for tag, texts in kinds:
        for text in texts:
            ET.SubElement(element, tag).text = text
    empty = marks == MachineMarks()
    with explained(f"The marks of {domain.name()} cannot be written", meaning="Nothing was changed"):
        flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0
        if domain.isActive():
            flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            None if empty else ET.tostring(element, encoding="unicode"),
            None if empty else _PREFIX,
            NAMESPACE,
            flags,
        )


def _texts(element: ET.Element, tag: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(child.text for child in element.iterfind(tag) if child.text))
