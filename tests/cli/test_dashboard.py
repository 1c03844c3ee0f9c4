"""The dashboard that we ship, by Grafana's own description of what one is made of."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

DASHBOARD = Path(__file__).resolve().parents[2] / "packaging/grafana/hotspare.json"


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    register_default_plugins()
    content: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return content


def not_understood(content: dict[str, Any]) -> list[str]:
    """Give the places of what Grafana's types do not take in, or take for something else."""
    return list(differences(content, json.loads(JSONEncoder().encode(Dashboard.from_json(content))), ""))


def differences(ours: object, theirs: object, place: str) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from differences(value, theirs.get(key, KeyError), f"{place}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{place}[{number}]")
    elif ours != theirs:
        yield place


def test_grafana_understands_all_of_it(dashboard: dict[str, Any]) -> None:
    assert not_understood(dashboard) == []


def test_what_grafana_does_not_know_is_noticed(dashboard: dict[str, Any]) -> None:
    broken = copy.deepcopy(dashboard)
    broken["panels"][0]["gridPosition"] = broken["panels"][0].pop("gridPos")
    broken["panels"][1]["fieldConfig"]["defaults"]["threshold"] = {}
    broken["panels"][2]["targets"][0]["expression"] = broken["panels"][2]["targets"][0].pop("expr")
    assert sorted(not_understood(broken)) == [
        ".panels[0].gridPosition",
        ".panels[1].fieldConfig.defaults.threshold",
        ".panels[2].targets[0].expression",
    ]


def test_panels_lie_side_by_side(dashboard: dict[str, Any]) -> None:
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24  # columns that Grafana has
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
