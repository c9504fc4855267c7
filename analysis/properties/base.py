"""What a property is: a claim of the theory, the random arguments it is tried on, and the check of
one case.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssa_theory.seeds import Stream, member_generator

EPS = float(np.finfo(np.float64).eps)
"""One rounding, relative. Slacks are a number of roundings times how far the checked quantity
amplifies one.
"""


@dataclass(frozen=True)
class Integer:
    """A whole number in low..high; the lowest is the simplest."""

    low: int
    high: int

    def draw(self, generator: np.random.Generator) -> int:
        return int(generator.integers(self.low, self.high + 1))

    def simpler(self, value: int) -> Iterator[int]:
        middle = (self.low + value) // 2
        yield from (
            range(self.low, value) if value - self.low <= 16 else (self.low, middle, value - 1)
        )


@dataclass(frozen=True)
class Number:
    """A real number in [low, high], uniform; few digits are simple, `simplest` is the simplest."""

    low: float
    high: float
    simplest: float | None = None

    def draw(self, generator: np.random.Generator) -> float:
        return float(generator.uniform(self.low, self.high))

    def simpler(self, value: float) -> Iterator[float]:
        target = self.low if self.simplest is None else self.simplest
        candidates = [
            target,
            *(round(value, digits) + 0.0 for digits in range(3)),
            round((target + value) / 2, 2),
        ]

        def cost(x: float) -> tuple[bool, int, float]:
            return x != target, len(repr(x)), abs(x - target)

        yield from (
            x
            for x in dict.fromkeys(candidates)
            if self.low <= x <= self.high and cost(x) < cost(value)
        )


@dataclass(frozen=True)
class Choice:
    """One of several options; the first is the simplest."""

    options: tuple[Any, ...]

    def draw(self, generator: np.random.Generator) -> Any:
        return self.options[generator.integers(len(self.options))]

    def simpler(self, value: Any) -> Iterator[Any]:
        yield from self.options[: self.options.index(value)]


@dataclass(frozen=True)
class Row:
    """least to most numbers in [-1, 1], in half of all rows from a coarse grid with many ties; few
    numbers are simple.
    """

    least: int
    most: int

    def draw(self, generator: np.random.Generator) -> tuple[float, ...]:
        row = generator.uniform(-1, 1, generator.integers(self.least, self.most + 1))
        return tuple(
            (np.round(2 * row) / 2 + 0.0 if generator.random() < 0.5 else row).tolist()
        )  # no -0

    def simpler(self, value: tuple[float, ...]) -> Iterator[tuple[float, ...]]:
        if len(value) > self.least:
            yield from (value[:i] + value[i + 1 :] for i in range(len(value)))
        for i, entry in enumerate(value):
            yield from (
                (*value[:i], x, *value[i + 1 :]) for x in Number(-1.0, 1.0, 0.0).simpler(entry)
            )


Space = Integer | Number | Choice | Row
"""The values of one argument: draw(generator) gives a random one, simpler(value) strictly simpler
ones, the simplest first.
"""


class Violation(Exception):
    """A case in which a property does not hold."""


class Inapplicable(Exception):
    """A case about which a property says nothing. It is not counted."""


@dataclass(frozen=True, eq=False)
class Property:
    """A claim of the theory.

    name; sentence: the claim; source: where it comes from. spaces: the arguments it is tried on, by
    name. check(generator, **arguments) raises on a case that violates it; whatever random numbers
    the case needs beyond its arguments come from `generator`, so that arguments and seed are the
    case.
    """

    name: str
    sentence: str
    source: str
    spaces: Mapping[str, Space]
    check: Callable[..., None]

    def arguments(self, seed: int) -> dict[str, Any]:
        """The arguments of the case that a seed names."""
        generator = member_generator(seed, Stream.PARAMETER)
        return {name: space.draw(generator) for name, space in self.spaces.items()}

    def violation(self, seed: int, arguments: Mapping[str, Any]) -> str | None:
        """How the case violates the property; None where it holds. Raises Inapplicable."""
        try:
            self.check(member_generator(seed, Stream.DATA), **arguments)
        except Inapplicable:
            raise
        except Violation as violation:
            return str(violation)
        except (
            Exception
        ) as error:  # code that fails on a case of the theory is as wrong as a wrong value
            return f"{type(error).__name__}: {error}"
        return None


def states(source: str, **spaces: Space) -> Callable[[Callable[..., None]], Property]:
    """Make a property of a check: its name is the function's, its sentence the docstring's first
    paragraph.
    """

    def make(check: Callable[..., None]) -> Property:
        sentence = " ".join((check.__doc__ or "").split("\n\n")[0].split())
        return Property(check.__name__.replace("_", "-"), sentence, source, spaces, check)

    return make


def collect(module: Mapping[str, object]) -> tuple[Property, ...]:
    """The properties that a module defines, in order."""
    return tuple(value for value in module.values() if isinstance(value, Property))


def applies(condition: bool) -> None:
    """Leave out a case about which the property says nothing."""
    if not condition:
        raise Inapplicable


def at_most(smaller: Any, larger: Any, slack: Any, what: str) -> None:
    """Every entry of `smaller` is at most that of `larger` plus slack; NaN is a violation."""
    smaller, larger, slack = (np.asarray(v, np.float64) for v in (smaller, larger, slack))
    wrong = ~(smaller <= larger + slack)
    if wrong.any():
        excess = np.where(wrong, smaller - larger - slack, -math.inf)
        place = np.unravel_index(
            np.argmax(np.where(np.isnan(excess), math.inf, excess)), excess.shape
        )
        a, b, s = (np.broadcast_to(v, excess.shape)[place] for v in (smaller, larger, slack))
        raise Violation(f"{what}: {a:.10g} should be at most {b:.10g}, rounding allows {s:.2g}")


def equal(value: Any, wanted: Any, slack: Any, what: str) -> None:
    """Every entry of `value` equals that of `wanted` within slack; NaN is a violation."""
    value, wanted, slack = (np.asarray(v, np.float64) for v in (value, wanted, slack))
    wrong = ~(np.abs(value - wanted) <= slack)
    if wrong.any():
        distance = np.where(wrong, np.abs(value - wanted) - slack, -math.inf)
        place = np.unravel_index(
            np.argmax(np.where(np.isnan(distance), math.inf, distance)), distance.shape
        )
        a, b, s = (np.broadcast_to(v, distance.shape)[place] for v in (value, wanted, slack))
        raise Violation(f"{what}: {a:.10g} should be {b:.10g}, rounding allows {s:.2g}")


def exact(condition: Any, what: str) -> None:
    """A condition that no rounding excuses."""
    if not condition:
        raise Violation(f"{what}: not so")
