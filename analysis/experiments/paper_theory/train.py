"""The paper's statements: every curve, every status, and the ledger lines."""

from typing import Any

import numpy as np
import xarray as xr
from pydantic import Field

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.experiments.base import Progress
from analysis.store.config import ExperimentConfig
from ssa_theory.theory.paper import (
    POSITIVE,
    SIGNED,
    VANILLA,
    SparseScores,
    TwoTokens,
    attained_weight,
    largest_weight_bound,
    least_loss,
    reachable_ratios,
    statements,
)

_TEMPERATURES = {"tau = 1": VANILLA, "tau > 0": POSITIVE, "any sign": SIGNED}
PRINTED = {"printed lower bound": "lower_bound", "printed converse": "converse_bound"}
_SOLVED = 13  # of the values of rho, by the general solver
LATE = 3  # the largest whole late ratio with which long sequences meet the converse's hypotheses


class PaperTheoryConfig(ExperimentConfig):
    """Compute the statements of the paper; nothing is random or trained."""

    gammas: tuple[float, ...] = Field(
        (0.3, 0.9), description="gamma of Proposition 1's map [[1 - gamma, gamma], [0, 1]]"
    )
    errors: tuple[float, ...] = Field(
        (0.05, 0.01), description="eps, how far each entry may be off, one for each gamma"
    )
    length: int = Field(16, ge=4, le=60, description="length L of the converse of Proposition 2")
    norms: tuple[float, ...] = Field((1.0, 2.0, 4.0), description="||W|| of the dilution bound")
    slopes: tuple[float, ...] = Field((0.25, 0.5), description="alpha of Lemma 2")
    power: float = Field(0.7, gt=0, description="p of Lemma 2: a share n^-p of the scores is high")

    def check(self) -> None:
        if len(self.gammas) != len(self.errors) or not self.gammas:
            raise ValueError(
                f"each gamma needs an eps, got {len(self.gammas)} and {len(self.errors)}: give as "
                "many errors as gammas"
            )
        for gamma, eps in zip(self.gammas, self.errors, strict=True):
            TwoTokens(gamma, eps, 0.0)
        self.require_distinct("norms", "slopes")


def train(config: PaperTheoryConfig, progress: Progress) -> xr.Dataset:
    """Compute every curve, and try every statement on its cases."""
    advance = progress("computing the paper's statements", 4)
    pairs = list(zip(config.gammas, config.errors, strict=True))
    rho, ratio = np.linspace(-0.98, 0.98, 99), np.linspace(0, 4, 81)
    some, many = rho[:: len(rho) // (_SOLVED - 1)], np.unique(np.geomspace(2, 1e5, 41).round())
    values = _expressivity(pairs, rho.tolist(), some.tolist())
    advance(1)
    least, counts = least_loss(config.length, LATE), [int(n) for n in many]
    values["converse_loss"] = ("edge",), [least.lower, least.upper]
    reach = [reachable_ratios(r) for r in ratio.tolist()]
    values["reachable_late_ratio"] = ("half_ratio", "end"), reach
    advance(1)
    weights = {"largest_weight": largest_weight_bound, "attained_weight": attained_weight}
    for name, of in weights.items():
        values[name] = ("norm", "count"), [[of(n, w) for n in counts] for w in config.norms]
    scores = [[SparseScores(n, a, 1.0, config.power) for n in counts] for a in config.slopes]
    for name in ("kept_share", "printed_share", "solved_share"):
        values[name] = ("slope", "count"), [[getattr(s, name) for s in row] for row in scores]
    advance(1)
    every = statements()
    for name in ("claim", "status", "truth", "source", "cases"):
        values[f"statement_{name}"] = ("statement",), [getattr(s, name) for s in every]
    cases = [(s.counter_example or {}).items() for s in every]
    examples = [", ".join(f"{k} = {v:.6g}" for k, v in case) for case in cases]
    values["statement_counter_example"] = ("statement",), examples
    advance(1)
    coords = {
        "map": [f"gamma {g:g}, eps {e:g}" for g, e in pairs],
        "temperatures": list(_TEMPERATURES),
        "rho": rho,
        "rho_solved": some,
        "statement": [s.name for s in every],
        "edge": ["lower", "upper"],
        "half_ratio": ratio,
        "end": ["least", "largest"],
        "norm": list(config.norms),
        "slope": list(config.slopes),
        "count": many,
    }
    variables = {k: (*values[k], {"description": about}) for k, about in _ABOUT.items()}
    return xr.Dataset(variables, coords)


def _expressivity(
    pairs: list[tuple[float, float]], rho: list[float], solved: list[float]
) -> dict[str, tuple[tuple[str, ...], list[Any]]]:
    """Proposition 1: exact minima, by closed form and by the solver, and the printed bounds."""
    every, some = ([[TwoTokens(g, e, r) for r in at] for g, e in pairs] for at in (rho, solved))
    temperatures, dims = _TEMPERATURES.values(), ("map", "temperatures")
    least = [[[t.least(k).norm for t in own] for k in temperatures] for own in every]
    solver = [[[t.solved_norm(k) for t in own] for k in temperatures] for own in some]
    return {
        "least_norm": ((*dims, "rho"), least),
        "solved_norm": ((*dims, "rho_solved"), solver),
        **{
            v: (("map", "rho"), [[getattr(t, v) for t in m] for m in every])
            for v in PRINTED.values()
        },
    }


_ABOUT = {
    "least_norm": "least effective norm max_i |tau_i| ||W||_2 that meets Proposition 1's map within "
    "eps, closed form",
    "solved_norm": "the same by a general constrained solver",
    "lower_bound": "the printed lower bound for vanilla attention; where negative it says nothing",
    "converse_bound": "the printed effective norm that is enough with a query temperature",
    "converse_loss": "least mean of (w_n - 1/2)^2 over all W and all sequences of the length with "
    f"kappa in [1, 2] on [L/4, L/2] and >= {LATE} from 3L/4: certified from below and above",
    "reachable_late_ratio": "least and largest kappa at 3L/4, as L grows, by kappa at L/2",
    "largest_weight": "the dilution bound on a softmax weight over n unit keys",
    "attained_weight": "the largest weight of one key u against n - 1 keys -u, W = ||W|| u u^T",
    "kept_share": "share of scores of Lemma 2, as corrected",
    "printed_share": "the same as printed",
    "solved_share": "the same by root finding",
    "statement_claim": "what the paper states, in our words",
    "statement_status": "computed: holds, holds as corrected, fails, or vacuous",
    "statement_truth": "what is the case, with its numbers",
    "statement_source": "the place in the paper",
    "statement_counter_example": "the smallest case in which the statement fails as printed",
    "statement_cases": "how many cases were computed",
}


def judge(config: PaperTheoryConfig, dataset: xr.Dataset) -> list[Claim]:
    """One exact line a statement: does it hold as printed?"""
    lines = Lines("paper-theory", 1)
    for name in dataset["statement"].values.tolist():
        one = dataset.sel(statement=name)
        status, truth, example = (
            str(one[f"statement_{k}"].values) for k in ("status", "truth", "counter_example")
        )
        against = f" Smallest case against it as printed: {example}." if example else ""
        value, what = 1 if status == "holds" else -1, f"{status}. {truth}{against}"
        lines.exactly("paper-theory", {"statement": name}, "status", value, what)
    return lines.claims
