"""A small forest plot of a topic, as an SVG element: one line a test, on the scale of log ratios."""

from collections import Counter
from collections.abc import Sequence
from html import escape

import numpy as np

from analysis.claims.claim import Outcome, Test
from analysis.claims.registry import Topic

_WIDTH, _ROW, _EDGE = 300, 5, 10
_LEAST_ROW, _TALL = 1.5, 300
"""Of many tests a row is lower, so that the plot is not much taller than this."""
_REACH = 4.0
"""The effect at the edge; what lies beyond is drawn there."""
_MARK: dict[str, str] = {
    "benefit": '<circle cx="{x}" cy="{y}" r="2.2" fill="#1a6b3a"/>',
    "harm": '<path d="M{x} {y} m-2.6 2.2 h5.2 l-2.6 -4.6 z" fill="#fff" stroke="#8a1c1c"/>',
    "equivalent": '<rect x="{left}" y="{top}" width="4" height="4" fill="#777"/>',
    "unresolved": '<path d="M{x} {y} m0 -2.2 v4.4" stroke="#555"/>',
}
"""Shapes that stay apart in grey."""


def forest(topic: Topic, tests: Sequence[tuple[Test, Outcome]]) -> str:
    """Intervals and effects, sorted by effect; the grey band is the margin. Empty without tests."""
    drawn = [(t, o) for t, o in tests if o in _MARK and not np.isnan(t.effect.value)]
    if not drawn:
        return ""
    drawn.sort(key=lambda one: one[0].effect.value)
    step = max(_LEAST_ROW, min(_ROW, _TALL / len(drawn)))
    height = round(2 * _EDGE + step * len(drawn), 1)
    low, high = _place(-topic.delta), _place(topic.delta)
    parts = [
        f'<rect x="{low}" y="0" width="{high - low:.1f}" height="{height}" fill="#ececea"/>',
        f'<path d="M{_place(0)} 0 V{height}" stroke="#999"/>',
    ]
    for row, (test, said) in enumerate(drawn):
        y, x = round(_EDGE + step * (row + 0.5), 2), _place(test.effect.value)
        if not np.isnan(test.effect.low):
            ends = _place(test.effect.low), _place(test.effect.high)
            parts.append(f'<path d="M{ends[0]} {y} H{ends[1]}" stroke="#888"/>')
        mark = _MARK[said].format(x=x, y=y, left=x - 2, top=y - 2)
        about = escape(f"{', '.join(test.cell.values())}, {test.measure}: {said}")
        parts.append(f"<g><title>{about}</title>{mark}</g>")
    counts = Counter(said for _, said in drawn)
    tally = ", ".join(f"{n} {o}" for o, n in counts.items())
    return (
        f'<svg class="forest" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(f"{len(drawn)} tests: {tally}")}">{"".join(parts)}</svg>'
    )


def _place(effect: float | int) -> float:
    """Where an effect stands: linear near zero, logarithmic beyond, against at the left."""
    scaled = np.arcsinh(4 * np.clip(effect, -_REACH, _REACH)) / np.arcsinh(4 * _REACH)
    return round(float(_WIDTH / 2 + (_WIDTH / 2 - _EDGE) * scaled), 1)
