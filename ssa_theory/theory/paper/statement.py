"""The record of one statement of the paper."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final

Status = Literal["holds", "holds as corrected", "fails", "vacuous"]
PAPER = "arXiv 2411.12892"
ROUNDING = 1e-12
"""How far rounding may carry a computed quantity beyond a bound that holds."""


@final
@dataclass(frozen=True)
class Statement:
    """One statement of the paper.

    name; source: paper and place; claim: what is stated, in our words. status: computed; truth:
    what is the case, with its numbers; cases: how many were computed. counter_example: the smallest
    case in which the claim fails as stated, or None; numbers: the quantities of `truth`, by name.
    """

    name: str
    source: str
    claim: str
    status: Status
    truth: str
    cases: int
    counter_example: Mapping[str, int | float] | None = None
    numbers: Mapping[str, int | float] = field(default_factory=dict)


def at_least(value: float) -> str:
    """A lower bound in text: four decimals, rounded down so that it stays one."""
    return f"{math.floor(1e4 * value) / 1e4:.4f}"
