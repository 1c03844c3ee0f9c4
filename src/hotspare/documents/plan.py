"""What a restore would make."""

from typing import Any

from hotspare.platforms.placement import TargetPlan


def plan_fields(plan: TargetPlan) -> dict[str, Any]:
    """Describe a plan for a JSON document."""
    return {
        "name": plan.name,
        "id": plan.id or None,
        "disks": [
            {
                "disk": disk.name,
                "size": disk.size,
                "bytes_data": disk.data,
                "bytes_free": disk.free,
                "format": disk.format,
                "pool": disk.pool or None,
                "path": disk.path,
            }
            for disk in plan.disks
        ],
        "cards": [{"mac": card.mac or None, "network": card.network} for card in plan.cards],
        "warnings": list(plan.warnings),
    }
