"""How an experiment writes its lines of the ledger: the one way, whatever is compared."""

import re
from collections.abc import Mapping

import numpy as np
import xarray as xr

from analysis.claims.claim import Check, Claim, Relation, Test
from analysis.claims.registry import Measure, Registry, of_name, registry
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
        any instance. Raises ValueError for a topic or measure that the registry does not declare,
        a measure of one number a model, and a cell without a level of each factor.
        """
        of = self._measure(measure, single=False)
        (first, x), (second, y) = pair.items()
        own = {first: mean(x), second: mean(y)} | dict(parts or {})
        log = of.sign * log_ratio(x, y, of.floor)
        self._test(topic, cell, measure, f"{first} against {second}: {of.says}", log, own)

    def against(
        self,
        topic: str,
        cell: Mapping[str, str],
        measure: str,
        errors: xr.DataArray,
        first: str,
        parts: Mapping[str, Estimate] | None = None,
    ) -> None:
        """`compare` of a mechanism with each peer that the topic declares, the levels of its factor
        `against`, as far as `errors` (mechanism, seed) are of both.
        """
        names = set(errors["mechanism"].values.tolist()) - {first}
        for peer in of_name("topic", topic, self.registry.topics).factors["against"]:
            if peer in names and first in errors["mechanism"]:
                pair = {name: errors.sel(mechanism=name).values for name in (first, peer)}
                self.compare(topic, {**cell, "against": peer}, measure, pair, parts)

    def single(
        self,
        topic: str,
        cell: Mapping[str, str],
        measure: str,
        values: Values,
        parts: Mapping[str, Estimate] | None = None,
    ) -> None:
        """A test of one number a model, such as a slope: its mean over seeds. Raises ValueError as
        `compare`, and for a measure of a pair.
        """
        of = self._measure(measure, single=True)
        self._test(topic, cell, measure, of.says, of.sign * np.asarray(values), dict(parts or {}))

    def exactly(
        self,
        topic: str,
        cell: Mapping[str, str],
        measure: str,
        value: float | int | tuple[float | int, float | int],
        statistic: str,
    ) -> None:
        """A test that no chance is in: a single number, or the two that are compared. Raises
        ValueError as these.
        """
        of = self._measure(measure, single=not isinstance(value, tuple))
        if isinstance(value, tuple):
            first, second = np.array(value, np.float64)[:, None]
            (effect,) = log_ratio(first, second, of.floor)
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

    def _measure(self, name: str, single: bool) -> Measure:
        of = of_name("measure", name, self.registry.measures)
        if of.single != single:
            what, got = ("one number", "a pair") if of.single else ("a pair", "one number")
            raise ValueError(f"measure {name} is of {what} a model, got {got}: give {what}")
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
        of = of_name("topic", topic, self.registry.topics)
        if of.instance:
            gains = np.where(np.isfinite(values), (values > of.delta).astype(float), np.nan)
            parts[f"share of {of.instance}s with a gain of {100 * of.margin:.0f} %"] = mean(gains)
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
        factors = of_name("topic", topic, self.registry.topics).factors
        if set(cell) != set(factors):
            raise ValueError(
                f"a cell of topic {topic} has a level of {', '.join(factors)}, got "
                f"{', '.join(cell)}: name a level of each"
            )
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
