"""The registry: what is claimed, where, by which measure and with which margin, declared as data in
`registry.toml` before results are known.

Each topic has a hash, which results store: a test whose result is older than its topic's present
form is post hoc, and is printed so.
"""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from analysis.claims.statistics import LEVEL

Named = TypeVar("Named")
Cell = tuple[str, ...]
"""One level of each factor of a topic, in the order of the topic's factors."""
MARGIN = 0.05
"""The least effect that counts, as a share, where a topic does not declare another."""
DELTA = float(-np.log1p(-MARGIN))
"""It on the scale of log ratios."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measure(_Record):
    """What is compared.

    says: what it is, with its unit. favours: whether the sentence wants the first of a pair
    `smaller` or `larger`. Of an `exactly` measure, a number a model and not a pair, `larger` wants it
    positive. floor: what is smaller counts as it, in the measure's unit.
    """

    says: str
    favours: Literal["smaller", "larger"]
    single: bool = Field(False, description="one number a model, not a ratio of two")
    floor: float = Field(0.0, ge=0)

    @property
    def sign(self) -> int:
        """What turns log(first / second), or the single number, so that > 0 favours the sentence."""
        return -1 if self.favours == "smaller" else 1


class Topic(_Record):
    """One sentence of the paper, or of this project, in our words, and the scope on which it is
    judged.

    factors: their levels; the scope is their product without the cells that match one of
    `without`. measures: the primary ones, each of which has to favour the sentence in a cell. margin:
    the least effect that counts, as a share. reaches: the sentence says that something is reached
    (an optimum, a bound): it holds where the first of a pair is not worse than the second by the
    margin. instance: what a seed draws at random, for which the interval is the prediction interval
    of a new one; empty where seeds are repetitions. headline: whether the report's first page tells
    of it.
    """

    name: str
    sentence: str
    source: str
    factors: dict[str, tuple[str, ...]]
    measures: tuple[str, ...]
    without: tuple[dict[str, tuple[str, ...]], ...] = ()
    margin: float = Field(MARGIN, gt=0, lt=1)
    reaches: bool = False
    instance: str = ""
    headline: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Topic":
        if not self.measures or not self.factors or not all(self.factors.values()):
            raise ValueError(f"topic {self.name} needs a measure, and a level of each factor")
        for rule in self.without:
            for factor, levels in rule.items():
                unknown = set(levels) - set(self.factors.get(factor, ()))
                if unknown or factor not in self.factors:
                    raise ValueError(
                        f"topic {self.name} leaves out {factor} {sorted(unknown)}, which it does "
                        "not have"
                    )
        if not self.cells:
            raise ValueError(f"topic {self.name} leaves out all of its cells")
        return self

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The declared scope, in the order of the factors' levels."""
        return tuple(c for c in itertools.product(*self.factors.values()) if not self._left_out(c))

    def _left_out(self, cell: Cell) -> bool:
        at = dict(zip(self.factors, cell, strict=True))
        return any(all(at[f] in levels for f, levels in rule.items()) for rule in self.without)

    @property
    def tests(self) -> int:
        """How many tests the scope declares: a cell and a measure each."""
        return len(self.cells) * len(self.measures)

    @property
    def level(self) -> float:
        """The coverage of each interval, so that all of the declared scope cover together with
        probability .95 (Bonferroni). Whether a test was run does not change it. A prediction
        interval is for one new instance, and does not narrow with more seeds: its level is .95.
        """
        return LEVEL if self.instance else 1 - (1 - LEVEL) / self.tests

    @property
    def delta(self) -> float:
        """The margin on the scale of log ratios, log(1 / (1 - margin))."""
        return float(-np.log1p(-self.margin))

    @property
    def hash(self) -> str:
        """Of everything that this record says."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Registry(_Record):
    """All measures and topics, in the order of the ledger."""

    measures: dict[str, Measure]
    topics: dict[str, Topic]

    @model_validator(mode="after")
    def _check(self) -> "Registry":
        for topic in self.topics.values():
            for name in topic.measures:
                if name not in self.measures:
                    raise ValueError(f"topic {topic.name} has an unknown measure, {name}")
        return self

    def declares(self, topic: str, measure: str) -> bool:
        """Whether it has both."""
        return topic in self.topics and measure in self.measures

    def hashes(self) -> dict[str, str]:
        """By topic: what results store."""
        return {name: topic.hash for name, topic in self.topics.items()}


def of_name(noun: str, name: str, known: Mapping[str, Named]) -> Named:
    """The one of that name. Raises ValueError for an unknown name, with the nearest ones."""
    if name in known:
        return known[name]
    near = get_close_matches(name, known, 3, 0.4) or list(known)
    raise ValueError(f"unknown {noun} {name!r}: choose one of {', '.join(near)}")


def parse(record: Mapping[str, Any]) -> Registry:
    """The registry that a TOML file says. Raises pydantic's ValidationError, a ValueError, where it
    is not one.
    """
    topics = {name: {"name": name, **one} for name, one in record["topics"].items()}
    return Registry.model_validate({"measures": record["measures"], "topics": topics})


@cache
def registry() -> Registry:
    """The one of this version."""
    text = Path(__file__).with_name("registry.toml").read_text(encoding="utf-8")
    return parse(tomllib.loads(text))
