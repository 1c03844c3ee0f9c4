from xml.etree import ElementTree as ET

from benchmarks.chart import bar_chart

SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_long_as_their_values_and_text_is_escaped() -> None:
    chart = bar_chart('A & "B"', {"first <task>": {"one": 2.0, "two": 4.0}, "second": {"one": 1.0}}, "s")
    root = ET.fromstring(chart)
    bars = [(float(bar.attrib["width"]), bar.attrib["fill"]) for bar in root.iter(f"{SVG}rect")]
    assert [width for width, _ in bars] == [210.0, 420.0, 105.0]
    assert bars[0][1] == bars[2][1] != bars[1][1]
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert words == ['A & "B"', "first <task>", "one", "2.0 s", "two", "4.0 s", "second", "one", "1.0 s"]
    assert root.attrib["aria-label"] == 'A & "B"'
