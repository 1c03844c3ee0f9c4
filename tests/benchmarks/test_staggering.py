"""The simulated week, on an estate that is small enough for a test."""

import xml.etree.ElementTree as ET

from benchmarks.staggering import compare
from benchmarks.staggering_report import page, week_chart


def test_admission_keeps_what_fixed_times_do_not() -> None:
    found = compare(machines=36, hosts=3)
    at_once, spread, admission = found.values()
    assert at_once.most_on_a_host == 12
    assert admission.most_on_a_host == 1
    assert admission.slow_minutes < min(at_once.slow_minutes, spread.slow_minutes)
    assert admission.in_low_peak > 0.9 > spread.in_low_peak
    assert admission.broken_machine_hours <= 0.5
    assert admission.runs >= 36 * 7
    assert "| admission |" in page(found, 36, 3)
    assert ET.fromstring(week_chart(found)).tag.endswith("svg")
