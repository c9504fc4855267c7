"""Try the properties of the theory on fresh random cases, and shrink what violates one to the
smallest counterexample.
"""

import builtins
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from analysis.experiments.base import Progress, silent
from analysis.properties import PROPERTIES, Property
from analysis.properties.base import Inapplicable

# At least so many turns of each property, and none longer: an interruption finds all of them tried.
_TURNS, _TURN_SECONDS = 5, 1.0
_SHRINK_SECONDS = 3.0


class VerifyConfig(BaseModel):
    """Try every property of the theory on fresh random cases for a chosen time."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float = Field(
        default=60.0, gt=0, description="how long to try, shared evenly among the properties"
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**32,
        description="seed of each property's first case; default: a fresh one",
    )
    only: tuple[str, ...] = Field(
        default=(), description="names of the properties to try; default: all"
    )

    @property
    def properties(self) -> list[Property]:
        """The chosen properties. Raises ValueError for an unknown name."""
        for name in self.only:
            if name not in PROPERTIES:
                raise ValueError(f"unknown property {name!r}: choose from {', '.join(PROPERTIES)}")
        return [PROPERTIES[name] for name in dict.fromkeys(self.only or PROPERTIES)]

    @property
    def first_seed(self) -> int:
        """`seed`, or a fresh one from the system's entropy."""
        return self.seed if self.seed is not None else secrets.randbits(32)


@dataclass(frozen=True)
class Counterexample:
    """A case that violates a property: arguments and seed are all of it.

    seed: names the case that was met; `verify --only NAME --seed` begins with it. arguments: the
    smallest that still violate the property with the random numbers of that seed. violation: how.
    """

    seed: int
    arguments: Mapping[str, Any]
    violation: str

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.violation}; at {given}, seed={self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What has come of a property so far.

    cases: independent random cases that it survived, without those about which it says nothing.
    counterexample: None where it survived all. seconds: spent.
    """

    property: Property
    cases: int = 0
    counterexample: Counterexample | None = None
    seconds: float = 0.0

    @builtins.property
    def verdict(self) -> str:
        """`violated`, `holds` on all cases tried, or `not tried`."""
        if self.counterexample is not None:
            return "violated"
        return "holds" if self.cases else "not tried"


class Trial:
    """One property under trial on the cases of a stream of seeds; `seed` itself is the first."""

    def __init__(self, property: Property, seed: int) -> None:
        self.property = property
        stream = np.random.default_rng(seed)
        self._seeds = chain([seed], (int(n) for n in iter(lambda: stream.integers(2**32), None)))
        self._cases, self._counterexample, self._seconds = 0, None, 0.0

    @property
    def outcome(self) -> Outcome:
        """What has come of the trial so far."""
        return Outcome(self.property, self._cases, self._counterexample, self._seconds)

    def go_on(self, seconds: float | None = None, cases: int | None = None) -> None:
        """Try further cases until `seconds` are over, `cases` more have survived, or one does not.
        At least one is tried.
        """
        start, survived, spent = time.monotonic(), self._cases, 0.0
        for seed in self._seeds:
            arguments = self.property.arguments(seed)
            try:
                violation = self.property.violation(seed, arguments)
            except Inapplicable:
                violation = None
            else:
                self._cases += violation is None
            if violation is not None:
                self._counterexample = smallest(
                    self.property, Counterexample(seed, arguments, violation)
                )
            spent = time.monotonic() - start
            if violation is not None or (seconds is not None and spent >= seconds):
                break
            if cases is not None and self._cases >= survived + cases:
                break
        self._seconds += spent


def smallest(
    property: Property, counterexample: Counterexample, seconds: float = _SHRINK_SECONDS
) -> Counterexample:
    """Replace arguments by simpler ones as long as the case violates the property, for `seconds` at
    most.
    """
    end, changed = time.monotonic() + seconds, True
    while changed:
        changed = False
        for name, space in property.spaces.items():
            for value in space.simpler(counterexample.arguments[name]):
                if time.monotonic() > end:
                    return counterexample
                arguments = {**counterexample.arguments, name: value}
                try:
                    violation = property.violation(counterexample.seed, arguments)
                except Inapplicable:
                    continue
                if violation is not None:
                    counterexample, changed = (
                        Counterexample(counterexample.seed, arguments, violation),
                        True,
                    )
                    break
    return counterexample


def verify(
    seconds: float, seed: int, properties: Sequence[Property], progress: Progress = silent
) -> Iterator[Outcome]:
    """Try the properties in turns until `seconds` are over, or all are violated; after each turn,
    what has come of one.

    Time goes to the property that has had least of it; a violated one needs no more. The same seed
    gives the same cases in the same order, and the time how many of them. May take one case and one
    counterexample's shrinking (3 s) longer.
    """
    start, trials = time.monotonic(), [Trial(p, seed) for p in properties]
    turn, reported = min(_TURN_SECONDS, seconds / (_TURNS * max(1, len(trials)))), 0
    advance = progress("verify", round(seconds))
    while True:
        spent = time.monotonic() - start
        advance(min(round(seconds), int(spent)) - reported)
        reported = min(round(seconds), int(spent))
        undecided = [trial for trial in trials if trial.outcome.counterexample is None]
        if spent >= seconds or not undecided:
            advance(round(seconds) - reported)
            return
        trial = min(undecided, key=lambda t: t.outcome.seconds)
        trial.go_on(min(turn, seconds - spent))
        yield trial.outcome
