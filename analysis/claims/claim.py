"""The lines of the ledger. A test is evidence for or against a topic of the registry; a check asks
whether the instrument works, and enters no topic.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, get_args

from analysis.claims.statistics import Estimate

Outcome = Literal["benefit", "harm", "equivalent", "unresolved", "missing"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Passed = Literal["passed", "failed", "open"]
Relation = Literal["<", ">"]


@dataclass(frozen=True)
class Test:
    """One comparison in one cell of a topic.

    id: stable name. topic: its name in the registry. cell: a level of each factor. measure: its
    name in the registry. statistic: what the effect is, with what is compared. effect: > 0 favours
    the topic's sentence; a log ratio, or the single number of the measure, with the interval of the
    topic's level. requested_seeds: of the run. parts: what it is made of, by name, with 95 %
    intervals.
    """

    __test__: ClassVar[bool] = False  # pytest collects classes of this name

    id: str
    topic: str
    cell: dict[str, str]
    measure: str
    statistic: str
    effect: Estimate
    requested_seeds: int
    parts: dict[str, Estimate] = field(default_factory=dict)

    @property
    def lost(self) -> float:
        """The share of the requested seeds that did not count: diverged, or never there."""
        return (self.requested_seeds - self.effect.seeds) / max(1, self.requested_seeds)


@dataclass(frozen=True)
class Check:
    """An identity, a theorem, a calibration or a count: the instrument, not a topic.

    passed where the whole interval of the estimate lies on the side that `relation` and `threshold`
    name.
    """

    id: str
    sentence: str
    source: str
    statistic: str
    relation: Relation
    threshold: float
    estimate: Estimate
    requested_seeds: int
    parts: dict[str, Estimate] = field(default_factory=dict)

    @property
    def passed(self) -> Passed:
        low, high, threshold = self.estimate.low, self.estimate.high, self.threshold
        if math.isnan(low) or math.isnan(high):
            return "open"
        if self.relation == ">":
            low, high, threshold = -high, -low, -threshold
        return "passed" if high < threshold else "failed" if low >= threshold else "open"


Claim = Test | Check


def to_dict(claim: Claim) -> dict[str, Any]:
    """For JSON: numbers that are not finite become null, as JSON has none."""
    return {"kind": "test" if isinstance(claim, Test) else "check"} | _clean(asdict(claim))


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _clean(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_dict(record: Mapping[str, Any]) -> Claim:
    """The claim that `to_dict` stored. Raises ValueError for a record that is not one."""
    try:
        fields = dict(record)
        claim_type = {"test": Test, "check": Check}[fields.pop("kind")]
        number = "effect" if claim_type is Test else "estimate"
        fields[number] = _estimate(fields[number])
        fields["parts"] = {k: _estimate(v) for k, v in fields["parts"].items()}
        return claim_type(**fields)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"a stored claim is damaged ({error}): run `ssa-theory plot` for its experiment"
        ) from error


def _estimate(record: Mapping[str, Any]) -> Estimate:
    finite = {
        k: math.nan if record[k] is None else float(record[k]) for k in ("value", "low", "high")
    }
    fields: dict[str, Any] = dict(record) | finite
    return Estimate(**fields)


def tests_of(claims: Sequence[Claim]) -> list[Test]:
    """The tests among claims."""
    return [claim for claim in claims if isinstance(claim, Test)]


def checks_of(claims: Sequence[Claim]) -> list[Check]:
    """The checks among claims."""
    return [claim for claim in claims if isinstance(claim, Check)]
