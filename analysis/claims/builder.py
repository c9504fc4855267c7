"""How an experiment writes its lines of the ledger: the one way, whatever is compared."""

import re
from collections.abc import Mapping

import numpy as np

from analysis.claims.claim import Check, Claim, Relation, Test
from analysis.claims.registry import Measure, Registry, Topic, registry
from analysis.claims.statistics import Estimate, exact, log_ratio, mean, prediction

Values = np.ndarray
"""One number a seed."""
PROJECT = "this project"


class Lines:
    """The claims of one experiment, in order.

    experiment: begins every claim's id. requested_seeds: the number of seeds of the run. registry:
    of the topics and measures; by default that of this version.
    """

    def __init__(
        self, experiment: str, requested_seeds: int, own_registry: Registry | None = None
    ) -> None:
        self.experiment, self.requested_seeds = experiment, requested_seeds
        self.registry = own_registry or registry()
        self.claims: list[Claim] = []

    def compare(
        self,
        topic: str,
        cell: Mapping[str, str],
        measure: str,
        pair: Mapping[str, Values],
        parts: Mapping[str, Estimate] | None = None,
    ) -> None:
        """A test: the log ratio of geometric means over seeds of a pair of named values, paired by
        seed, signed so that > 0 favours the topic's sentence.

        Its interval has the topic's level, and is the prediction interval where the topic is about
        any instance. Raises KeyError for a topic or measure that the registry does not declare.
        """
        of = self.registry.measures[measure]
        (first, x), (second, y) = pair.items()
        own = {first: mean(x), second: mean(y)} | dict(parts or {})
        log = of.sign * log_ratio(x, y, of.floor)
        self._test(topic, cell, measure, f"{first} against {second}: {of.says}", log, own)

    def single(
        self,
        topic: str,
        cell: Mapping[str, str],
        measure: str,
        values: Values,
        parts: Mapping[str, Estimate] | None = None,
    ) -> None:
        """A test of one number a model, such as a slope: its mean over seeds."""
        of = self._single(measure)
        self._test(topic, cell, measure, of.says, of.sign * np.asarray(values), dict(parts or {}))

    def exactly(
        self,
        topic: str,
        cell: Mapping[str, str],
        measure: str,
        value: float | int | tuple[float | int, float | int],
        statistic: str,
    ) -> None:
        """A test that no chance is in: a single number, or the two that are compared."""
        of = self.registry.measures[measure]
        if isinstance(value, tuple):
            (effect,) = log_ratio(np.array(value[:1]), np.array(value[1:]), of.floor)
        else:
            effect = value
        estimate = exact(of.sign * float(effect), self.requested_seeds)
        self._add(topic, cell, measure, statistic, estimate, {})

    def check(
        self,
        key: str,
        sentence: str,
        statistic: str,
        relation: Relation,
        threshold: float | int,
        estimate: Estimate | float | int,
        parts: Mapping[str, Estimate] | None = None,
        source: str = PROJECT,
    ) -> None:
        """A line of the instrument. A number in place of an estimate is exact: a count, or a worst
        case.
        """
        if not isinstance(estimate, Estimate):
            estimate = exact(estimate, self.requested_seeds)
        name = f"{self.experiment}-{key}"
        self._keep(
            Check(
                name,
                sentence,
                source,
                statistic,
                relation,
                float(threshold),
                estimate,
                self.requested_seeds,
                dict(parts or {}),
            )
        )

    def _single(self, measure: str) -> Measure:
        of = self.registry.measures[measure]
        if not of.single:
            raise ValueError(f"measure {measure} compares a pair: use compare")
        return of

    def _test(
        self,
        topic: str,
        cell: Mapping[str, str],
        measure: str,
        statistic: str,
        values: Values,
        parts: dict[str, Estimate],
    ) -> None:
        of: Topic = self.registry.topics[topic]
        if of.instance:
            gains = np.where(np.isfinite(values), (values > of.delta).astype(float), np.nan)
            parts[f"share of {of.instance}s with a gain of {of.margin:.0%}"] = mean(gains)
        interval = prediction if of.instance else mean
        self._add(topic, cell, measure, statistic, interval(values, of.level), parts)

    def _add(
        self,
        topic: str,
        cell: Mapping[str, str],
        measure: str,
        statistic: str,
        effect: Estimate,
        parts: dict[str, Estimate],
    ) -> None:
        name = slug(self.experiment, topic, *cell.values(), measure)
        self._keep(
            Test(name, topic, dict(cell), measure, statistic, effect, self.requested_seeds, parts)
        )

    def _keep(self, claim: Claim) -> None:
        if any(claim.id == other.id for other in self.claims):
            raise ValueError(f"two claims are called {claim.id}: their cells must differ")
        self.claims.append(claim)


def slug(*words: str) -> str:
    """Words as one name for files and links: letters, digits, dots and hyphens."""
    text = "-".join(words).lower().replace("<=", " up to ").replace("<", " below ")
    return re.sub(r"[^a-z0-9.]+", "-", text).strip("-")
