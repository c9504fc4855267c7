"""Effects and verdicts in words, the same on the page, in the shell and in the README."""

import numpy as np

from analysis.claims.claim import Test
from analysis.claims.ledger import Entry
from analysis.claims.registry import Measure, registry
from analysis.claims.statistics import EXACT, Estimate

_FACTOR = 3
"""Beyond it a ratio is said as a factor, not in percent."""
_FAR = 1e6
"""Beyond it a factor is said no closer."""


def amount(effect: float, measure: Measure) -> str:
    """An effect as what the first of a pair has more or less than the second: `24 % less`. Of a
    single number, the number.
    """
    value = measure.sign * effect
    if np.isnan(value):
        return "undefined"
    if measure.single:
        return f"{value:.3g}"
    if abs(value) > np.log(_FAR):
        return f"over {_FAR:,.0f} times" if value > 0 else f"under 1/{_FAR:,.0f}"
    ratio = float(np.exp(value))
    if abs(ratio - 1) < 0.005:
        return "the same"
    if ratio > 1:
        return f"{_two(ratio)} times" if ratio > _FACTOR else f"{100 * (ratio - 1):.0f} % more"
    return f"1/{_two(1 / ratio)}" if ratio < 1 / _FACTOR else f"{100 * (1 - ratio):.0f} % less"


def _two(value: float) -> str:
    """With two digits that count: 4.6, 46, 460, 4,600."""
    return f"{float(f'{value:.1e}'):,.0f}" if value >= 10 else f"{value:.2g}"


def effect_of(test: Test) -> str:
    """A test's effect with its interval: `24 % less (18 % less to 30 % less)`."""
    measure = registry().measures[test.measure]
    return with_interval(test.effect, measure)


def with_interval(effect: Estimate, measure: Measure) -> str:
    """An effect with its interval, which an exact one has not."""
    value = amount(effect.value, measure)
    if effect.method == EXACT or np.isnan(effect.low):
        return value
    ends = [amount(end, measure) for end in (effect.low, effect.high)]
    return f"{value} ({ends[0]} to {ends[1]})"


def effects_of(entry: Entry) -> str:
    """The median effect over the cells with the least and the largest, by measure."""
    texts = []
    for name in entry.topic.measures:
        measure = registry().measures[name]
        effects = [t.effect for t in entry.tests if t.measure == name]
        values = [e.value for e in effects if not np.isnan(e.value)]
        if not values or (measure.single and all(e.method == EXACT for e in effects)):
            continue  # yes or no has no median
        text = f"{measure.says}: {amount(float(np.median(values)), measure)}"
        if len(values) > 1:
            text += f" ({amount(min(values), measure)} to {amount(max(values), measure)})"
        texts.append(text)
    return "; ".join(texts)
