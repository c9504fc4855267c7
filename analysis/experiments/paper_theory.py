"""The paper's statements, computed exactly: each with what is true of it, and where it fails."""

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field, model_validator

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.topics import PAPER_THEORY as TOPIC
from analysis.draw.figures import label_log, letter, new_figure
from analysis.experiments.base import Experiment, Progress
from analysis.store.config import ExperimentConfig
from ssa_theory.theory.paper import (
    POSITIVE,
    SIGNED,
    VANILLA,
    SparseScores,
    TwoTokens,
    largest_weight_bound,
    least_loss,
    reachable_ratios,
    statements,
)

_TEMPERATURES = {"tau = 1": VANILLA, "tau > 0": POSITIVE, "any sign": SIGNED}
_PRINTED = {"printed lower bound": "lower_bound", "printed converse": "converse_bound"}
_LINES = {"tau = 1": "-", "tau > 0": "--", "any sign": ":"}
_COLORS = ("#222222", "#0072b2", "#d55e00", "#009e73")
_SOLVED = 13  # of the values of rho, by the general solver
_LATE = 3  # the largest whole late ratio with which long sequences meet the converse's hypotheses


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

    @model_validator(mode="after")
    def _possible(self) -> "PaperTheoryConfig":
        if len(self.gammas) != len(self.errors) or not self.gammas:
            raise ValueError(
                f"each gamma needs an eps, got {len(self.gammas)} and {len(self.errors)}: give as "
                "many errors as gammas"
            )
        for gamma, eps in zip(self.gammas, self.errors, strict=True):
            TwoTokens(gamma, eps, 0.0)
        self.require_distinct("norms", "slopes")
        return self


def train(config: PaperTheoryConfig, progress: Progress) -> xr.Dataset:
    """Compute every curve, and try every statement on its cases."""
    advance = progress("computing the paper's statements", 4)
    dataset = _expressivity(config)
    advance(1)
    least, many = least_loss(config.length, _LATE), np.unique(np.geomspace(2, 1e5, 41).round())
    ratio = np.linspace(0, 4, 81)
    dataset["converse_loss"] = (("edge",), [least.lower, least.upper])
    reach = [reachable_ratios(r) for r in ratio.tolist()]
    dataset["reachable_late_ratio"] = (("half_ratio", "end"), reach)
    advance(1)
    bounds = [[largest_weight_bound(int(n), w) for n in many] for w in config.norms]
    dataset["largest_weight"] = (("norm", "count"), bounds)
    odds = [
        [1 / (1 + (n - 1) * math.exp(-2 * w)) for n in many] for w in config.norms
    ]  # u against -u
    dataset["attained_weight"] = (("norm", "count"), odds)
    scores = [[SparseScores(int(n), a, 1.0, config.power) for n in many] for a in config.slopes]
    for name in ("kept_share", "printed_share", "solved_share"):
        values = [[getattr(s, name) for s in row] for row in scores]
        dataset[name] = (("slope", "count"), values)
    advance(1)
    every = statements()
    for name in ("claim", "status", "truth", "source"):
        dataset[f"statement_{name}"] = ("statement", [getattr(s, name) for s in every])
    examples = [
        ", ".join(f"{k} = {v:.6g}" for k, v in (s.counter_example or {}).items()) for s in every
    ]
    dataset["statement_counter_example"] = ("statement", examples)
    dataset["statement_cases"] = ("statement", [s.cases for s in every])
    advance(1)
    for name, about in _ABOUT.items():
        dataset[name].attrs["description"] = about
    return dataset.assign_coords(
        statement=[s.name for s in every],
        edge=["lower", "upper"],
        half_ratio=ratio,
        end=["least", "largest"],
        norm=list(config.norms),
        slope=list(config.slopes),
        count=many,
    )


def _expressivity(config: PaperTheoryConfig) -> xr.Dataset:
    """Proposition 1: exact minima, by closed form and by the solver, and the printed bounds."""
    rho = np.linspace(-0.98, 0.98, 99)
    some = rho[:: len(rho) // (_SOLVED - 1)]
    pairs = list(zip(config.gammas, config.errors, strict=True))

    def table(points: np.ndarray, value: str) -> list[list[list[float]]]:
        maps = [[TwoTokens(g, e, r) for r in points.tolist()] for g, e in pairs]
        if value == "solved":
            rows = [[[t.solved_norm(k) for t in m] for k in _TEMPERATURES.values()] for m in maps]
        else:
            rows = [[[t.least(k).norm for t in m] for k in _TEMPERATURES.values()] for m in maps]
        return rows

    def printed(name: str) -> list[list[float]]:
        return [[getattr(TwoTokens(g, e, r), name) for r in rho.tolist()] for g, e in pairs]

    return xr.Dataset(
        {
            "least_norm": (("map", "temperatures", "rho"), table(rho, "closed")),
            "solved_norm": (("map", "temperatures", "rho_solved"), table(some, "solved")),
            **{v: (("map", "rho"), printed(v)) for v in _PRINTED.values()},
        },
        coords={
            "map": [f"gamma {g:g}, eps {e:g}" for g, e in pairs],
            "temperatures": list(_TEMPERATURES),
            "rho": rho,
            "rho_solved": some,
        },
    )


_ABOUT = {
    "least_norm": "least effective norm max_i |tau_i| ||W||_2 that meets Proposition 1's map within "
    "eps, closed form",
    "solved_norm": "the same by a general constrained solver",
    "lower_bound": "the printed lower bound for vanilla attention; where negative it says nothing",
    "converse_bound": "the printed effective norm that is enough with a query temperature",
    "converse_loss": "least mean of (w_n - 1/2)^2 over all W and all sequences of the length with "
    f"kappa in [1, 2] on [L/4, L/2] and >= {_LATE} from 3L/4: certified from below and above",
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
        one = {k: str(dataset[f"statement_{k}"].sel(statement=name).values) for k in _SAID}
        example = one["counter_example"]
        lines.exact(
            TOPIC,
            name,
            one["claim"],
            f"{one['status']}. {one['truth']}"
            + (f" Smallest case against it as printed: {example}." if example else ""),
            ">",
            0.5,
            float(one["status"] == "holds"),
            how=f"exact: {one['status']}",
            source=one["source"],
        )
    return lines.claims


_SAID = ("claim", "status", "truth", "source", "counter_example")


def draw(config: PaperTheoryConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is computed here."""
    maps = dataset["map"].values.tolist()
    figure = new_figure(14.0, 7.6)
    axes = figure.subplots(2, 2 + math.ceil(len(maps) / 2), squeeze=False)
    flat = axes.flat
    for name in maps:
        _draw_norms(next(flat), dataset.sel(map=name), name)
    _draw_region(next(flat), dataset)
    _draw_converse(next(flat), dataset, config)
    _draw_dilution(next(flat), dataset)
    _draw_shares(next(flat), dataset)
    for ax in flat:
        ax.set_visible(False)
    for i, ax in enumerate(a for a in axes.flat if a.get_visible()):
        letter(ax, i)
    counts = {s: list(dataset["statement_status"].values).count(s) for s in _STATUSES}
    said = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    figure.suptitle(f"the paper's {sum(counts.values())} statements, exactly: {said}")
    return figure


_STATUSES = ("holds", "holds as corrected", "fails", "vacuous")


def _draw_norms(ax: Axes, at: xr.Dataset, name: str) -> None:
    for color, (kind, line) in zip(_COLORS, _LINES.items(), strict=False):
        own = at.sel(temperatures=kind)
        ax.plot(at["rho"], own["least_norm"], line, color=color, label=f"least, {kind}")
        ax.plot(at["rho_solved"], own["solved_norm"], "o", color=color, mfc="none", ms=4)
    for color, (label, variable) in zip(("#8c8c8c", "#cc79a7"), _PRINTED.items(), strict=True):
        bound = at[variable].where(at[variable] > 0)
        ax.plot(at["rho"], bound, color=color, linewidth=1, label=label)
    ax.set(
        yscale="log",
        xlabel="similarity of the tokens rho = e1.e2",
        ylabel="effective norm |tau| ||W||",
        title=f"Prop. 1, {name} (circles: solver)",
    )
    label_log(ax.yaxis)
    ax.legend(fontsize=7.5, loc="upper center")


def _draw_region(ax: Axes, dataset: xr.Dataset) -> None:
    x, reach = dataset["half_ratio"].values, dataset["reachable_late_ratio"]
    low, high = (reach.sel(end=e).values for e in ("least", "largest"))
    ax.fill_between(x, low, high, color="#0072b2", alpha=0.15, linewidth=0, label="possible")
    for late, color in ((4, "#d55e00"), (_LATE, "#009e73")):
        ax.plot([1, 1, 2, 2], [6, late, late, 6], color=color, label=f"hypotheses, late >= {late}")
    ax.set(
        xlim=(0, 4),
        ylim=(0, 6),
        xlabel="kappa at L/2",
        ylabel="kappa at 3L/4",
        title="Prop. 2, converse: can its hypotheses hold?",
    )
    ax.legend(fontsize=7.5, loc="lower right")


def _draw_converse(ax: Axes, dataset: xr.Dataset, config: PaperTheoryConfig) -> None:
    distance = np.linspace(0.02, 4, 200)
    low, high = dataset["converse_loss"].values
    ax.fill_between(distance, low * distance, high * distance, color="#009e73", alpha=0.4)
    ax.plot(distance, high * distance, color="#009e73", label="least loss of any W and sequence")
    ax.axhline(1 / 500, color="#d55e00", linestyle="--", label="printed bound, 1/500")
    ax.axvline(2, color="#8c8c8c", linewidth=1, label="a orthogonal to b")
    ax.set(
        xlabel="||a - b||^2",
        ylabel="mean squared error",
        title=f"Prop. 2, converse with late kappa >= {_LATE}, L = {config.length}",
        ylim=(0, None),
    )
    ax.legend(fontsize=7.5)


def _draw_dilution(ax: Axes, dataset: xr.Dataset) -> None:
    n = dataset["count"].values
    for color, norm in zip(_COLORS, dataset["norm"].values, strict=False):
        own = dataset.sel(norm=norm)
        ax.plot(n, own["largest_weight"], color=color, label=f"bound, ||W|| = {norm:g}")
        ax.plot(n[::5], own["attained_weight"][::5], "o", color=color, mfc="none", ms=4)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="number of keys",
        ylabel="largest weight",
        title="dilution bound (circles: a case that attains it)",
    )
    label_log(ax.xaxis, ax.yaxis)
    ax.legend(fontsize=7.5)


def _draw_shares(ax: Axes, dataset: xr.Dataset) -> None:
    n = dataset["count"].values
    for color, slope in zip(_COLORS, dataset["slope"].values, strict=False):
        own = dataset.sel(slope=slope)
        ax.plot(n, own["kept_share"], color=color, label=f"corrected, alpha = {slope:g}")
        ax.plot(n, own["printed_share"], "--", color=color, label=f"printed, alpha = {slope:g}")
        ax.plot(n[::5], own["solved_share"][::5], "o", color=color, mfc="none", ms=4)
    ax.axhline(1, color="#8c8c8c", linewidth=1)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="number of scores",
        ylabel="share of scores kept",
        title="Lemma 2 (circles: root finding; above 1 is no share)",
    )
    label_log(ax.xaxis, ax.yaxis)
    ax.legend(fontsize=7.5)


PAPER_THEORY = Experiment(
    name="paper-theory",
    question="Which statements of the paper hold as printed, which as corrected, and which fail?",
    caption=(
        "(a, b) Proposition 1: the least effective norm that meets its map within eps, vanilla, with "
        "positive and with signed temperatures, beside the printed bounds; (c) where the hypotheses "
        "of Proposition 2's converse lie among all sequences that exist; (d) its bound against the "
        "certified least loss with the ratio that long sequences can have; (e) the dilution bound "
        "and a case that attains it; (f) Lemma 2 as printed and as corrected. Circles are second, "
        "independent computations. Nothing is random or trained."
    ),
    config=PaperTheoryConfig,
    train=train,
    draw=draw,
    judge=judge,
)
