"""What is known of a restore point from trying it, in words."""

from datetime import UTC, datetime

from hotspare.cli import output
from hotspare.repository.tested import BootRecord, ScanRecord, Tested
from hotspare.units import format_bytes, format_duration

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_VERDICTS = {"clean": "clean", "suspicious": "SUSPICIOUS", "not-scanned": "not scanned in full"}


def ago(moment: datetime) -> str:
    """Say how long ago something was: ``2 h ago``."""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for unit, length in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return "just now"


def boot_words(record: BootRecord) -> str:
    """Say how a trial went, in a few words."""
    if record.life == "none":
        return f"does not boot: {record.problem}"
    failed = [check for check in record.checks if check.outcome != "passed"]
    if failed:
        return "boots, but " + "; ".join(f"{one.name} failed ({one.detail})" for one in failed)
    if record.life == "activity":
        return "boots, as far as can be seen from outside: it works on its disks, and nobody inside was asked"
    return "boots"


def tested_words(known: Tested | None) -> str:
    """Say it in a cell of a table: ``boots, 2 h ago``."""
    words = []
    if known is not None and (boot := known.boot) is not None:
        words.append(f"{boot_word(passed=boot.passed, life=boot.life)}, {ago(boot.at)}")
    if known is not None and (scan := known.scan) is not None:
        words.append(f"{_VERDICTS[scan.verdict]}, {ago(scan.at)}")
    return "; ".join(words)


def boot_word(*, passed: bool, life: str) -> str:
    """Say how a trial went in one word or two."""
    if life == "none":
        return "DOES NOT BOOT"
    if not passed:
        return "CHECKS FAILED"
    return "boots" if life == "agent" else "boots (from outside)"


def print_tested(known: Tested) -> None:
    """Tell people all that is known of a restore point."""
    if (boot := known.boot) is not None:
        output.print_text(
            f"Boot test:     {boot_words(boot)} ({ago(boot.at)}, on {boot.host or 'some host'})"
        )
        for check in boot.checks:
            detail = f": {check.detail}" if check.detail else ""
            took = format_duration(check.seconds)
            output.print_text(f"  {check.name}: {check.outcome}{detail} ({took})")
            for line in check.output.splitlines()[-5:]:
                output.print_text(f"    | {line}")
        for line in boot.console.splitlines()[-10:]:
            output.print_text(f"  console: {line}")
    if (scan := known.scan) is not None:
        print_scan(scan)


def print_scan(scan: ScanRecord) -> None:
    """Tell people what a scan found, and what it looked at."""
    looked = f"{scan.files} files, {format_bytes(scan.bytes)}"
    which = f"changed since {scan.since}" if scan.since else "all of them"
    output.print_text(
        f"Malware scan:  {_VERDICTS[scan.verdict]} ({ago(scan.at)}; {looked}, {which}; {scan.scanner})"
    )
    for finding in scan.findings:
        output.print_text(f"  {finding.path or 'somewhere'}: {finding.said}")
    if scan.not_scanned:
        output.print_text(f"  {scan.not_scanned} files or volumes could not be looked at")
    for remark in scan.remarks:
        output.print_text(f"  remark: {remark}")
