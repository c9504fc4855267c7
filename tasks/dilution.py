"""Dilution probes: a few needles in a haystack of n keys, given by their attention logits alone."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

Law = Literal["equal", "bounded", "gaussian"]
LAWS: tuple[Law, ...] = get_args(Law)


@dataclass(frozen=True)
class DilutionProbe:
    """One attention row before temperature: m needles with logit g among distractors centred at 0.

    law: the distractors' logits are `equal` (all 0), `bounded` (uniform on [-spread, spread]) or
    `gaussian` (standard deviation `spread`). needles: m. gap: g, the needles' logit above the mean
    distractor. spread: in logits, 0 for equal. A task without a label: the closed forms of
    `ssa_theory.theory.dilution` play the part of the Bayes baseline.

    Raises ValueError for an unknown law, m < 1, a gap that is not finite, or a spread that does not
    fit the law.

    >>> probe = DilutionProbe("equal", needles=1, gap=2.0)
    >>> probe.sample(4, 1, np.random.default_rng(0)).tolist()
    [[2.0, 0.0, 0.0, 0.0]]
    """

    law: Law
    needles: int
    gap: float
    spread: float = 0.0

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            raise ValueError(
                f"unknown law of distractors {self.law!r}: choose one of {', '.join(LAWS)}"
            )
        if self.needles < 1:
            raise ValueError(
                f"a probe needs at least 1 needle, got {self.needles}: choose needles >= 1"
            )
        if not np.isfinite(self.gap):
            raise ValueError(
                f"the gap must be finite, got {self.gap}: give the needles' logit over the mean "
                "distractor"
            )
        if self.law == "equal" and self.spread != 0:
            raise ValueError(
                f"equal distractors have no spread, got {self.spread}: drop it, or choose another "
                "law"
            )
        if self.law != "equal" and not (np.isfinite(self.spread) and self.spread > 0):
            raise ValueError(
                f"{self.law} distractors need a positive and finite spread, got {self.spread}: "
                "choose one above 0"
            )

    def distractors(
        self, count: int, generator: np.random.Generator
    ) -> Float[np.ndarray, " {count}"]:
        """The next `count` distractor logits of the generator's stream.

        Drawing in several calls gives the same logits as drawing at once, so a row of any length
        can be streamed.
        """
        if count < 0:
            raise ValueError(
                f"the number of distractors must be at least 0, got {count}: ask for none or more"
            )
        if self.law == "equal":
            return np.zeros(count)
        if self.law == "bounded":
            return self.spread * (2 * generator.random(count) - 1)
        return self.spread * generator.standard_normal(count)

    def sample(
        self, length: int, count: int, generator: np.random.Generator
    ) -> Float[np.ndarray, "{count} {length}"]:
        """`count` whole rows of `length` logits, the needles first. Raises ValueError for a length
        below m, or count < 1.
        """
        if length < self.needles:
            raise ValueError(
                f"the length counts the needles and must be at least their number {self.needles}, "
                f"got {length}: use longer rows"
            )
        if count < 1:
            raise ValueError(
                f"the number of rows must be at least 1, got {count}: ask for one or more"
            )
        rest = self.distractors(count * (length - self.needles), generator).reshape(count, -1)
        return np.concatenate([np.full((count, self.needles), float(self.gap)), rest], axis=1)
