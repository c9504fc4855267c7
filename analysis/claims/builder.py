"""How an experiment writes its lines of the ledger: the one way, whatever is compared."""

from collections.abc import Mapping

import numpy as np

from analysis.claims.claim import Claim, Relation
from analysis.claims.statistics import Estimate, difference, estimate, mean, ratio
from analysis.claims.topics import Topic

Values = np.ndarray
"""One number a seed."""


class Lines:
    """The claims of one experiment, in order.

    experiment: begins every claim's id. requested_seeds: the number of seeds of the run. source: of
    claims that name no other; by default that of their topic.
    """

    def __init__(self, experiment: str, requested_seeds: int, source: str | None = None) -> None:
        self.experiment, self.requested_seeds, self.source = experiment, requested_seeds, source
        self.claims: list[Claim] = []

    def add(
        self,
        topic: Topic,
        key: str,
        sentence: str,
        statistic: str,
        relation: Relation,
        threshold: float,
        estimate: Estimate,
        parts: Mapping[str, Estimate] | None = None,
        source: str | None = None,
    ) -> None:
        """One line; its arguments are those of `Claim`."""
        self.claims.append(
            Claim(
                id=f"{self.experiment}-{key}",
                topic=topic.name,
                sentence=sentence,
                source=source or self.source or topic.source,
                statistic=statistic,
                relation=relation,
                threshold=threshold,
                estimate=estimate,
                requested_seeds=self.requested_seeds,
                parts=dict(parts or {}),
            )
        )

    def ratio(
        self,
        topic: Topic,
        key: str,
        sentence: str,
        what: str,
        pair: Mapping[str, Values],
        relation: Relation = "<",
        threshold: float = 1.0,
        parts: Mapping[str, Estimate] | None = None,
        source: str | None = None,
    ) -> None:
        """The ratio of means over seeds of the first of a pair to the second, paired by seed."""
        (first, x), (second, y) = pair.items()
        statistic = f"ratio of means over seeds, {first} / {second}, of {what}"
        own = {first: mean(x), second: mean(y)} | dict(parts or {})
        self.add(topic, key, sentence, statistic, relation, threshold, ratio(x, y), own, source)

    def difference(
        self,
        topic: Topic,
        key: str,
        sentence: str,
        statistic: str,
        pair: Mapping[str, Values],
        relation: Relation,
        threshold: float,
        parts: Mapping[str, Estimate] | None = None,
        source: str | None = None,
    ) -> None:
        """The mean over seeds of the first of a pair minus the second, paired by seed."""
        (first, x), (second, y) = pair.items()
        own = {first: mean(x), second: mean(y)} | dict(parts or {})
        self.add(
            topic, key, sentence, statistic, relation, threshold, difference(x, y), own, source
        )

    def unchanged(
        self,
        topic: Topic,
        key: str,
        sentence: str,
        what: str,
        pair: Mapping[str, Values],
        threshold: float,
        source: str | None = None,
    ) -> None:
        """How far the ratio of means over seeds of a pair is from 1, below a threshold."""
        (first, x), (second, y) = ((name, np.asarray(v, np.float64)) for name, v in pair.items())
        apart = estimate(
            lambda i: np.abs(x[i].mean(-1) / y[i].mean(-1) - 1), np.isfinite(x) & np.isfinite(y)
        )
        statistic = f"|ratio of means over seeds, {first} / {second}, of {what} - 1|"
        own = {"ratio": ratio(x, y), first: mean(x), second: mean(y)}
        self.add(topic, key, sentence, statistic, "<", threshold, apart, own, source)

    def exact(
        self,
        topic: Topic,
        key: str,
        sentence: str,
        statistic: str,
        relation: Relation,
        threshold: float,
        value: float,
        how: str = "exact count",
        seeds: int | None = None,
        source: str | None = None,
    ) -> None:
        """A number that no chance is in: a count, or a worst case over everything."""
        value = float(value)
        estimate = Estimate(
            value, value, value, self.requested_seeds if seeds is None else seeds, how
        )
        self.add(topic, key, sentence, statistic, relation, threshold, estimate, source=source)
