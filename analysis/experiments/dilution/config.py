"""The settings of the dilution experiment."""

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field

from analysis.experiments.mechanisms import Mechanisms, chosen
from analysis.problems.dilution import Haystack
from analysis.store.config import SeededConfig
from ssa_theory.mechanism import VANILLA
from ssa_theory.mechanism.schedules import Power
from ssa_theory.seeds import Stream, member_generator


class DilutionConfig(SeededConfig):
    """m needles with logit g among distractors with logits that are equal, bounded or Gaussian."""

    mechanisms: Mechanisms = Field(
        (VANILLA, "ssa-position", "released", "ssmax", "asentmax-position", "yarn", "power"),
        description="mechanisms whose tau(n) scales given logits, at their starting parameters",
    )
    lengths: tuple[int, ...] = Field(
        (10, 32, 100, 316, 1000, 3162, 10_000, 31_623, 100_000, 316_228, 1_000_000),
        description="numbers of keys n, needles included, ascending",
    )
    needles: tuple[int, ...] = Field(
        (1, 4), description="numbers of needles m; the figure's curves show the first"
    )
    gap: float = Field(4.0, gt=0, description="logit g of every needle over the mean distractor")
    bound: float = Field(
        1.0, gt=0, description="B of bounded distractors, uniform on [-B, B], in logits"
    )
    deviation: float = Field(
        1.0, gt=0, description="standard deviation s of Gaussian distractors, in logits"
    )
    trained_length: int = Field(
        128, ge=1, description="length up to which mechanism yarn leaves tau at 1"
    )
    power_exponent: float = Field(
        0.1,
        ge=0,
        le=1,
        description="gamma of mechanism power (at its starting value 0 it would be vanilla)",
    )
    target_mass: float = Field(
        0.5, gt=0, lt=1, description="mass on the needles that defines the critical tau"
    )
    critical_length: int = Field(
        31_623,
        ge=2,
        description="largest n at which the critical tau is also measured: each Newton step reads "
        "all keys",
    )
    freezing_lengths: tuple[int, ...] = Field(
        (100, 10_000, 1_000_000),
        description="numbers of Gaussian distractors of the freezing transition, ascending",
    )

    def check(self) -> None:
        self.require_distinct("needles")
        for name in ("lengths", "freezing_lengths"):
            self.require_ascending(name, 2, 100_000_000)
        if min(self.needles) < 1 or max(self.needles) >= self.lengths[0]:
            raise ValueError(
                "needles must be at least 1 and fewer than the shortest length "
                f"{self.lengths[0]}, got {self.needles}: use fewer needles or longer rows"
            )
        for mechanism in chosen(self.mechanisms):
            self.haystack.layer(mechanism)

    @property
    def haystack(self) -> Haystack:
        """What is probed."""
        return self.build(Haystack)

    def temperatures(self) -> Float[np.ndarray, "mechanism length"]:
        """tau(n) of every mechanism at its starting parameters, but for the exponent of powers."""
        rows = []
        for layer in map(self.haystack.layer, chosen(self.mechanisms)):
            start = layer.initial_parameters([member_generator(0, Stream.PARAMETER)])
            if isinstance(layer.mechanism.query, Power):
                start["query.gamma"] = torch.full_like(start["query.gamma"], self.power_exponent)
            rows.append(self.haystack.inverse_temperature(layer, start))
        return np.stack(rows)
