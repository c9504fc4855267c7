"""A claim: a sentence, a statistic, a threshold fixed beforehand, and a verdict that is computed, never written."""

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from analysis.statistics import Estimate

Verdict = Literal["supported", "not supported", "inconclusive"]


@dataclass(frozen=True)
class Claim:
    """One line of the ledger.

    id: stable name. sentence: what is claimed, in our words. source: where the claim comes from. statistic: what the
    estimate measures. relation and threshold: the claim holds where `estimate relation threshold`. estimate: with
    interval. asked: the number of seeds of the run. parts: the estimates the statistic is made of, by name.
    """

    id: str
    sentence: str
    source: str
    statistic: str
    relation: Literal["<", ">"]
    threshold: float
    estimate: Estimate
    asked: int
    parts: dict[str, Estimate] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Supported (not supported) where the whole interval lies on the claim's (the other) side of the threshold."""
        low, high = self.estimate.low, self.estimate.high
        if math.isnan(low) or math.isnan(high):
            return "inconclusive"
        if self.relation == ">":
            low, high, threshold = -high, -low, -self.threshold
        else:
            threshold = self.threshold
        return "supported" if high < threshold else "not supported" if low >= threshold else "inconclusive"

    def to_dict(self) -> dict:
        """For JSON: numbers that are not finite become null, as JSON has none."""

        def clean(value: object) -> object:
            if isinstance(value, dict):
                return {k: clean(v) for k, v in value.items()}
            return None if isinstance(value, float) and not math.isfinite(value) else value

        record = clean(asdict(self)) | {"verdict": self.verdict}
        if self.estimate.seeds < self.asked:
            record["note"] = f"computed on {self.estimate.seeds} of the {self.asked} seeds asked for"
        return record
