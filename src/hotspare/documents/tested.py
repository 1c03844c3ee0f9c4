"""What is known of a restore point from trying it."""

from typing import Any

from hotspare.documents.form import utc_time
from hotspare.repository.tested import BootRecord, ScanRecord, Tested

_NOTHING = Tested()


def boot_fields(record: BootRecord | None) -> dict[str, Any] | None:
    """Describe a trial."""
    if record is None:
        return None
    return {
        "at": utc_time(record.at),
        "passed": record.passed,
        "life": record.life,
        "life_seconds": record.life_seconds,
        "problem": record.problem or None,
        "checks": [
            {
                "name": check.name,
                "outcome": check.outcome,
                "seconds": check.seconds,
                "detail": check.detail,
                "output": check.output,
            }
            for check in record.checks
        ],
        "host": record.host,
        "together": list(record.together),
        "console": record.console,
        "warnings": list(record.warnings),
    }


def scan_fields(record: ScanRecord | None) -> dict[str, Any] | None:
    """Describe a scan."""
    if record is None:
        return None
    return {
        "at": utc_time(record.at),
        "verdict": record.verdict,
        "scanner": record.scanner,
        "since": record.since,
        "files": record.files,
        "bytes": record.bytes,
        "not_scanned": record.not_scanned,
        "findings": [{"path": one.path, "said": one.said} for one in record.findings],
        "remarks": list(record.remarks),
    }


def tested_fields(known: Tested | None) -> dict[str, Any]:
    """Describe all that is known of a restore point."""
    known = known or _NOTHING
    return {"boot": boot_fields(known.boot), "scan": scan_fields(known.scan)}
