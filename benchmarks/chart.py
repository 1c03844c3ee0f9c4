"""A bar chart as SVG, readable on light and dark pages."""

from collections.abc import Mapping, Sequence
from html import escape

_BAR = 18
_GAP = 4
_GROUP_GAP = 26
_LABELS = 130
_BARS = 420
_WIDTH = _LABELS + _BARS + 110
_COLOURS = ("#0a7d5a", "#b3651f", "#5b6f9c", "#8f9bb8", "#777777")


def bar_chart(title: str, groups: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Draw horizontal bars: ``groups`` maps a heading to the bars below it, each a label and a value."""
    longest = max(value for bars in groups.values() for value in bars.values())
    labels = list(dict.fromkeys(label for bars in groups.values() for label in bars))
    shapes = [f'<text x="0" y="18" class="title">{escape(title)}</text>']
    y = 36
    for heading, bars in groups.items():
        shapes.append(f'<text x="0" y="{y + 12}" class="heading">{escape(heading)}</text>')
        y += _BAR + _GAP
        for label, value in bars.items():
            shapes.extend(_bar(y, label, value, longest, _COLOURS[labels.index(label) % len(_COLOURS)], unit))
            y += _BAR + _GAP
        y += _GROUP_GAP - _BAR
    return _document(shapes, y, title)


def _bar(y: int, label: str, value: float, longest: float, colour: str, unit: str) -> Sequence[str]:
    width = max(1.0, value / longest * _BARS)
    return (
        f'<text x="{_LABELS - 8}" y="{y + 13}" class="label">{escape(label)}</text>',
        f'<rect x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
        f'<text x="{_LABELS + width + 6:.1f}" y="{y + 13}">{value:.1f} {escape(unit)}</text>',
    )


def _document(shapes: Sequence[str], height: int, title: str) -> str:
    style = (
        "text{font:12px system-ui,sans-serif;fill:#1c1f23}"
        ".title{font-weight:600;font-size:14px}.heading{font-weight:600}.label{text-anchor:end}"
        "@media(prefers-color-scheme:dark){text{fill:#e6e8ea}}"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}"'
        f' height="{height}" role="img" aria-label="{escape(title, quote=True)}">',
        f"<style>{style}</style>",
        *shapes,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
