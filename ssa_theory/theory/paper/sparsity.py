"""Lemma 2 of arXiv 2411.12892: a temperature that grows with the length acts like keeping a share
of the scores.

Of n scores the share s = n^-p is c + gamma and the rest c. Both with tau = 1 + alpha log n over all
scores, and with tau = 1 over the largest kappa n of them, the largest weights are equal:

    1 / (n (s + (1 - s) e^(-tau gamma)))    =    1 / (n (s + (kappa - s) e^-gamma))

for kappa = s + (1 - s) n^(-alpha gamma). The paper prints s + n^(-alpha gamma) / (1 - s).
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import logsumexp


@final
@dataclass(frozen=True)
class SparseScores:
    """n scores of two levels. length: n > 1; slope: alpha >= 0; gap: gamma > 0; power: p > 0, for
    the share n^-p of high scores. High and kept scores need not be whole numbers. Raises ValueError
    otherwise.
    """

    length: int
    slope: float
    gap: float
    power: float

    def __post_init__(self) -> None:
        if not self.length > 1:
            raise ValueError(f"the length must be above 1, got {self.length}: use longer rows")
        if not (np.isfinite(self.slope) and self.slope >= 0):
            raise ValueError(f"the slope must be at least 0, got {self.slope}: raise it")
        for name in ("gap", "power"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(
                    f"the {name} must be positive, got {getattr(self, name)}: raise it"
                )

    @property
    def high_share(self) -> float:
        """s = n^-p."""
        return self.length**-self.power

    @property
    def kept_share(self) -> float:
        """kappa as corrected: s + (1 - s) n^(-alpha gamma); in (s, 1]."""
        return self.high_share + (1 - self.high_share) * self.length ** (-self.slope * self.gap)

    @property
    def printed_share(self) -> float:
        """kappa as printed: s + n^(-alpha gamma) / (1 - s); above 1 for small slopes."""
        return self.high_share + self.length ** (-self.slope * self.gap) / (1 - self.high_share)

    def log_largest_weight(self, kept_share: float, inverse_temperature: float) -> float:
        """log of the largest softmax weight over the largest kept_share n scores."""
        high, low = self.high_share, max(kept_share - self.high_share, 0.0)
        scores = inverse_temperature * np.array([self.gap, 0.0])
        total = logsumexp(scores, b=self.length * np.array([high, low]))
        return float(scores[0] - total)

    @property
    def solved_share(self) -> float:
        """The kept share at which the two largest weights are equal, by root finding."""
        tau = 1 + self.slope * np.log(self.length)
        wanted = self.log_largest_weight(1.0, tau)

        def excess(share: float) -> float:
            return self.log_largest_weight(share, 1.0) - wanted

        if excess(self.high_share) <= 0:  # the kept low scores are within rounding of none
            return self.high_share
        return float(root_scalar(excess, bracket=(self.high_share, 2.0), xtol=1e-15).root)
