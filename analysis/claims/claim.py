"""A claim: a sentence, a statistic, a threshold fixed beforehand, and a verdict that is computed,
never written.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from analysis.claims.statistics import Estimate

Verdict = Literal["supported", "not supported", "inconclusive"]
Relation = Literal["<", ">"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
FALSE_DISCOVERY_RATE = 0.05


@dataclass(frozen=True)
class Claim:
    """One line of the ledger.

    id: stable name. sentence: what is claimed, in our words. source: where the claim comes from.
    statistic: what the estimate measures. relation and threshold: the claim holds where `estimate
    relation threshold`. estimate: with interval. requested_seeds: the number of seeds of the run.
    parts: the estimates the statistic is made of, by name. p_value: two-sided, of the statistic
    being at the threshold; None for an exact count or a worst case, which no chance is in.
    corrected_p_value: adjusted for all claims of the ledger; None before that. topic: the name of
    the topic it belongs to.
    """

    id: str
    topic: str = field(kw_only=True)
    sentence: str
    source: str
    statistic: str
    relation: Relation
    threshold: float
    estimate: Estimate
    requested_seeds: int
    parts: dict[str, Estimate] = field(default_factory=dict)
    p_value: float | None = None
    corrected_p_value: float | None = None

    def __post_init__(self) -> None:
        if self.estimate.pseudo is not None:
            object.__setattr__(self, "p_value", self.estimate.p_value(self.threshold))

    @property
    def verdict(self) -> Verdict:
        """Supported (not supported) where the whole interval lies on the claim's (the other) side
        of the threshold.

        Within a ledger the corrected p-value has to agree: above the false discovery rate of 5 %
        the claim is inconclusive.
        """
        low, high = self.estimate.low, self.estimate.high
        if math.isnan(low) or math.isnan(high):
            return "inconclusive"
        if self.corrected_p_value is not None and self.corrected_p_value > FALSE_DISCOVERY_RATE:
            return "inconclusive"
        if self.relation == ">":
            low, high, threshold = -high, -low, -self.threshold
        else:
            threshold = self.threshold
        return (
            "supported"
            if high < threshold
            else "not supported"
            if low >= threshold
            else "inconclusive"
        )

    @property
    def note(self) -> str:
        """What a reader has to know of the seeds: empty where all of them counted."""
        if self.estimate.seeds < self.requested_seeds:
            return (
                f"computed on {self.estimate.seeds} of the {self.requested_seeds} requested seeds"
            )
        return ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON: numbers that are not finite become null, as JSON has none; single seeds' values
        are left to the result.
        """

        def clean(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: clean(v) for k, v in value.items() if k != "pseudo"}
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return clean(asdict(self)) | {"verdict": self.verdict, "note": self.note}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Claim":
        """The claim that `to_dict` stored. Raises ValueError for a record that is not one."""
        try:
            fields = {k: v for k, v in record.items() if k not in ("verdict", "note")}
            fields["estimate"] = _estimate(fields["estimate"])
            fields["parts"] = {k: _estimate(v) for k, v in fields["parts"].items()}
            return cls(**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"a stored claim is damaged ({error}): run `ssa-theory plot` for its experiment"
            ) from error


def _estimate(record: Mapping[str, Any]) -> Estimate:
    finite = {
        k: math.nan if record[k] is None else float(record[k]) for k in ("value", "low", "high")
    }
    fields: dict[str, Any] = dict(record) | finite
    return Estimate(**fields)


def count_verdicts(claims: Sequence[Claim]) -> dict[Verdict, int]:
    """How many of the claims have each verdict."""
    return {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in VERDICTS}


def correct(claims: Sequence[Claim]) -> list[Claim]:
    """The claims with p-values adjusted for testing all m of them: Benjamini and Hochberg's false
    discovery rate, the least p_(j) m / j over j >= i for the i-th smallest.

    As `scipy.stats.false_discovery_control`, which takes half a second to import.
    """
    tested = [i for i, claim in enumerate(claims) if claim.p_value is not None]
    p = np.array([claims[i].p_value for i in tested], np.float64)
    descending = np.argsort(p)[::-1]
    scaled = p[descending] * len(p) / np.arange(len(p), 0, -1)
    corrected = list(claims)
    for place, adjusted in zip(descending, np.minimum.accumulate(scaled), strict=True):
        i = tested[place]
        corrected[i] = replace(claims[i], corrected_p_value=min(1.0, float(adjusted)))
    return corrected
