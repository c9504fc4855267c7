"""What tuning found, as results store it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from jaxtyping import Float

from analysis.problems.base import Variable
from analysis.problems.settled import CHANGE

TUNING_SEEDS = range(2**63 - 8, 2**63)
"""The last that there are."""
TRIED_STEPS = (0.25, 0.5, 1.0)
"""Shares of the steps at the full rate after which a tuning is scored; rates are chosen at the last."""
TUNED = "learning rate of the mechanism, tuned on seeds that are not reported"
"""What a result says of it."""
STARTED = "factor on the mechanism's initial query-key weights, tuned together with its rate"
TRIED = (
    "the problem's objective in tuning at each rate (and start), after each share of the steps, of each "
    "tuning seed, which are not reported; infinite where it diverged"
)
"""What it says of `tuning_error`."""
TRACKED = "of the models of `tuning_error`; infinite where one diverged"
"""What it says of other measures."""
LONGER = 4
"""Times the steps at the full rate: what the second budget is of the first."""
LASTED = (
    f"the problem's objective of each tuning seed after {LONGER} times the steps, at the rate (and "
    "start) that was chosen after all steps, the cooldown as it is; infinite where it diverged"
)
"""What it says of `longer_error`."""
STAYED = (
    f"whether that objective changed by under {CHANGE:.0%} over the last third of this longer "
    "training, or over its cooldown where that is more; no diverged model has"
)
"""And of `longer_settled`."""
SMALLEST = 1e-9
"""Of an objective: below it lies rounding."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found for the mechanisms of a comparison, in order.

    rates, starts: that were tried, all pairs. members: the dimensions of the problem's members.
    scores: the log of the problem's objective, infinite where the model diverged; of a single pair
    there is no choice, nothing is trained, and they are 0. longer: those of the chosen rate and start
    two thirds through the longer training and at its end; NaN without a choice. tracked: by name
    what the problem tracks: the measure of the registry, and the logs, shaped as scores.
    """

    rates: tuple[float, ...]
    starts: tuple[float, ...]
    members: tuple[str, ...]
    scores: Float[np.ndarray, "mechanism rate start step *members seed"]
    longer: Float[np.ndarray, "mechanism point *members seed"]
    tracked: Mapping[str, tuple[str, np.ndarray]] = field(default_factory=dict)

    @property
    def rate(self) -> np.ndarray:
        """That of the least mean score after all steps (mechanism, *members)."""
        return np.array(self.rates, np.float64)[best_pair(self.scores)[0]]

    @property
    def start(self) -> np.ndarray:
        """The start that goes with it (mechanism, *members)."""
        return np.array(self.starts, np.float64)[best_pair(self.scores)[1]]

    @property
    def variables(self) -> dict[str, Variable]:
        """`learning_rate` (mechanism, *members); where there was a choice `tuning_error` (mechanism,
        tried_rate, tried_step, *members, tuning_seed) with its labels, `tuning_NAME` of the same
        dimensions for what else is tracked, and `longer_error` and `longer_settled` (mechanism,
        *members, tuning_seed); where starts were tried `start`, and `tried_start` after `tried_rate`.
        """
        by_model = "mechanism", *self.members
        stored: dict[str, Variable] = {
            "learning_rate": (by_model, self.rate, {"description": TUNED})
        }
        if len(self.rates) * len(self.starts) == 1:
            return stored
        tried = {"tried_rate": self.rates, "tried_start": self.starts, "tried_step": TRIED_STEPS}
        single = len(self.starts) == 1
        if single:
            del tried["tried_start"]
        else:
            stored["start"] = by_model, self.start, {"description": STARTED}
        dims = ("mechanism", *tried, *self.members, "tuning_seed")
        logs = {"error": (self.scores, {"description": TRIED})} | {
            name: (values, {"description": f"{name} {TRACKED}", "measure": measure})
            for name, (measure, values) in self.tracked.items()
        }
        for name, (values, about) in logs.items():
            each = np.exp(values[:, :, 0] if single else values)
            stored[f"tuning_{name}"] = dims, each, about
        then, end = np.exp(np.moveaxis(self.longer, 1, 0))
        with np.errstate(invalid="ignore"):  # of what diverged
            settled = np.abs(end - then) < CHANGE * then
        by_seed = (*by_model, "tuning_seed")
        stored["longer_error"] = by_seed, end, {"description": LASTED}
        stored["longer_settled"] = by_seed, settled, {"description": STAYED}
        labels = {**tried, "tuning_seed": TUNING_SEEDS}
        return stored | {name: ((name,), np.array(at), {}) for name, at in labels.items()}


def best_pair(scores: np.ndarray) -> tuple[np.ndarray, ...]:
    """The rate and the start of the least mean score after all steps, by place (mechanism, *members).
    One at which a seed diverged is not chosen while another is left.
    """
    last = scores[:, :, :, -1].mean(-1)
    pair = last.reshape(len(last), -1, *last.shape[3:]).argmin(1)
    return np.unravel_index(pair, last.shape[1:3])


def tuning_error(error: xr.DataArray, smallest: float = SMALLEST) -> xr.DataArray:
    """That of an experiment which reports every rate, and tunes on seeds of its own.

    error: of these seeds, along `seed`, `learning_rate` and `tried_step`. smallest: what is below
    counts as it.
    """
    tried = error.clip(min=smallest).fillna(np.inf)
    tried = tried.rename(learning_rate="tried_rate", seed="tuning_seed")
    return tried.assign_attrs(description=TRIED)
