"""``hotspare doctor``: what this host lacks, and how to mend it."""

import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hotspare import __version__
from hotspare.cli import output
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.session import Session
from hotspare.errors import HotspareError
from hotspare.guest.files.appliance.kernel import find_kernel
from hotspare.platforms.platform import Finding

app = noun("doctor", "Say what this host lacks, and how to mend it.")

PROGRAMS = {"qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils"}
"""Programs that are needed whatever the platform, and the Debian package of each."""
_EMULATOR = "qemu-system-x86_64"


@app.default
def doctor(
    *, platform: Annotated[str | None, Parameter(name="--platform")] = None, options: Options = DEFAULTS
) -> None:
    """Say what this host lacks, and how to mend it. Changes nothing.

    Args:
        platform: URI of the platform to look at; else HOTSPARE_PLATFORM, else qemu:///system.
        options: See below.
    """
    findings = [_python(), *map(_program, PROGRAMS)]
    try:
        session = Session(options, platform=platform)
    except HotspareError as error:
        findings.append(_failed("configuration", error))
    else:
        with session:
            findings += [_configuration(session), _catalog(session), _repository(session)]
            known = {finding.subject for finding in findings}
            findings += [finding for finding in _platform(session) if finding.subject not in known]
    findings += [_micro_vm(), _fuse()]
    _tell(findings, as_json=options.output == "json")


app.help_epilogue = closing(
    ["hotspare doctor", "hotspare doctor --platform images:///srv/disks", "hotspare doctor -o json"]
)


def _tell(findings: list[Finding], *, as_json: bool) -> None:
    missing = [finding for finding in findings if finding.needed and not finding.ok]
    if as_json:
        fields = [asdict(finding) for finding in findings]
        output.print_document(output.document("doctor", ok=not missing, findings=fields))
    else:
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            state = "ok" if finding.ok else "MISSING" if finding.needed else "note"
            output.print_text(f"{state:7}  {finding.subject.ljust(width)}  {finding.detail}")
            if finding.hint:
                output.print_text(f"{'':{width + 11}}{finding.hint}")
    if missing:
        raise HotspareError(
            f"{len(missing)} of {len(findings)} findings need mending:"
            f" {', '.join(finding.subject for finding in missing)}",
            hint="Each says above what to do",
        )


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("hotspare", ok=True, detail=f"{__version__} with Python {version}")


def _program(name: str) -> Finding:
    path = shutil.which(name)
    if path:
        return Finding(name, ok=True, detail=path)
    return Finding(name, ok=False, detail="is not installed", hint=f"apt install {PROGRAMS[name]}")


def _micro_vm() -> Finding:
    """Look for what reads files of XFS, Btrfs, and whatever is not read in process."""
    subject = "micro-VM for files"
    try:
        kernel = find_kernel(os.environ)
    except HotspareError as error:
        return _failed(subject, error, needed=False)
    if shutil.which(_EMULATOR) is None:
        hint = "apt install qemu-system-x86"
        return Finding(subject, ok=False, detail=f"{_EMULATOR} is not installed", hint=hint, needed=False)
    return Finding(subject, ok=True, detail=f"boots {kernel.image}", needed=False)


def _fuse() -> Finding:
    there = Path("/dev/fuse").exists() and shutil.which("fusermount3")
    if there:
        return Finding("FUSE for mount", ok=True, detail=there, needed=False)
    detail = "/dev/fuse or fusermount3 is missing"
    return Finding("FUSE for mount", ok=False, detail=detail, hint="apt install fuse3", needed=False)


def _configuration(session: Session) -> Finding:
    path = session.settings.config_file
    detail = f"read from {path}" if path else "no file; the environment and defaults are used"
    return Finding("configuration", ok=True, detail=detail)


def _catalog(session: Session) -> Finding:
    try:
        return Finding("catalog", ok=True, detail=str(session.catalog().path))
    except HotspareError as error:
        return _failed("catalog", error)


def _repository(session: Session) -> Finding:
    if session.settings.repository is None:
        return Finding(
            "repository",
            ok=False,
            detail="none is set",
            hint="Set HOTSPARE_REPOSITORY; make one with: hotspare repo create file:///FOLDER",
        )
    if session.settings.passphrase is None:
        return Finding(
            "repository",
            ok=False,
            detail=f"{session.settings.repository} was not opened, for no passphrase is set",
            hint="Set HOTSPARE_PASSPHRASE_FILE or HOTSPARE_PASSPHRASE_COMMAND",
        )
    try:
        repository = session.repository()
        count = sum(1 for _ in repository.point_names())
    except HotspareError as error:
        return _failed("repository", error)
    return Finding("repository", ok=True, detail=f"{repository.backend.url} with {count} restore points")


def _platform(session: Session) -> list[Finding]:
    try:
        return session.platform().probe()
    except HotspareError as error:
        return [_failed(session.settings.platform, error)]


def _failed(subject: str, error: HotspareError, *, needed: bool = True) -> Finding:
    return Finding(subject, ok=False, detail=error.what, hint=error.hint, needed=needed)
