"""The ledger lines of the atlas: who is a substitute for whom, and whether SSA is the best of all."""

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean
from analysis.experiments.atlas.problems import TRIGGER
from analysis.experiments.atlas.train import AtlasConfig
from analysis.experiments.mechanisms import SELECTIVE, chosen
from ssa_theory.mechanism import MECHANISMS, VANILLA, Mechanism
from ssa_theory.mechanism.normalizers import Softmax
from ssa_theory.mechanism.score_maps import Bilinear, QKNorm
from ssa_theory.mechanism.scores import Linear

RIVALS = ("gated", "sink", "qk-norm", "entmax15")
"""A gate, a sink, a norm control and a sparse normaliser."""
MARGIN = 0.05
"""How near a control has to come to what it reaches in the limit, as a share."""
FARTHEST = -4
"""Standard errors."""
ROUNDING = 1e-9


def judge(config: AtlasConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every line that the mechanisms allow, paired by seed. One's own is a rival, too."""
    above = dataset["risk"] - dataset["bayes"]
    lines = Lines("atlas", dataset.sizes["seed"])
    new = [m.name for m in chosen(config.mechanisms) if m.name not in MECHANISMS]
    # The best other is chosen on every second seed and judged on the rest, which chose nothing.
    chosen_on, judged_on = slice(0, None, 2), slice(1, None, 2)
    halved = Lines("atlas", len(dataset["seed"][judged_on]))
    for problem in dataset["problem"].values.tolist():
        at = above.sel(problem=problem)
        errors = {name: at.sel(mechanism=name).values for name in at["mechanism"].values.tolist()}
        errors = {name: error for name, error in errors.items() if np.isfinite(error).any()}
        if SELECTIVE not in errors:
            continue
        own = errors.pop(SELECTIVE)
        for rival in (r for r in (*RIVALS, *new) if r in errors):
            pair = {rival: errors[rival], SELECTIVE: own}
            cell = {"rival": rival, "problem": problem}
            lines.compare("substitute", cell, "excess", pair)
            lines.compare("substituted", cell, "excess", dict(reversed(pair.items())))
        if errors and len(own) > 1:
            best = min(errors, key=lambda name: np.nanmean(errors[name][chosen_on]))
            pair = {SELECTIVE: own[judged_on], best: errors[best][judged_on]}
            halved.compare("best", {"problem": problem}, "excess", pair)
    sentence = "no mechanism is below Bayes on any problem"
    what = "least mean error above Bayes over its standard error, of all cells"
    lines.check("bayes", sentence, what, ">", FARTHEST, _errors_away(dataset["excess"]))
    lost = dataset["diverged"].all("seed")
    names = [name for name in lost["mechanism"].values.tolist() if lost.sel(mechanism=name).any()]
    sentence = "every mechanism trains on every problem that it can wear"
    sentence += f"; not so {', '.join(names)}" if names else ""
    lines.check(
        "trained", sentence, "number of cells that diverge at every rate", "<", 1, int(lost.sum())
    )
    _check_controls(lines, config, dataset)
    return [*halved.claims, *lines.claims]


def _errors_away(excess: xr.DataArray) -> float:
    """The mean over seeds in standard errors, the least over all cells."""
    known = excess.notnull().sum("seed")
    spread = excess.std("seed", ddof=1) / np.sqrt(known)
    return float((excess.mean("seed") / spread.clip(min=ROUNDING)).min())


def _check_controls(lines: Lines, config: AtlasConfig, dataset: xr.Dataset) -> None:
    """Location, where vanilla is Bayes; trigger, where softmax alone has a floor; and what bounds
    the scores of normalised queries and keys.
    """
    models, there = chosen(config.mechanisms), dataset["problem"].values.tolist()
    excess = dataset["excess"]
    if "location" in there:
        sentence = "vanilla attention is Bayes on single-location regression"
        value = mean(excess.sel(problem="location", mechanism=VANILLA).values)
        what = "mean excess of vanilla, 0 Bayes and 1 naive"
        lines.check("location", sentence, what, "<", MARGIN, value)
    plain = [m.name for m in models if _is_plain(m)]
    if "trigger" in there and plain:
        # In units of the zero predictor the floor is 1 - p.
        floor = 1 - TRIGGER.task.probability
        over = excess.sel(problem="trigger", mechanism=plain) / floor - 1
        what = "mean of vanilla's excess over that of the floor, less 1"
        parts = {name: mean(over.sel(mechanism=name).values) for name in plain}
        plain_softmax = "softmax attention without sink, gate or anchor"
        sentence, value = f"{plain_softmax} reaches its exact floor on trigger", parts[VANILLA]
        lines.check("floor-reached", sentence, what, "<", MARGIN, value, parts)
        what = "least mean excess above the floor over its standard error, of all such mechanisms"
        sentence = f"no {plain_softmax} is below its exact floor on trigger"
        lines.check("floor", sentence, what, ">", FARTHEST, _errors_away(over))
    normed = [m.name for m in models if isinstance(m.score, QKNorm) and not (m.query or m.key)]
    bound = (dataset["largest_score"] / dataset["effective_norm"]).sel(mechanism=normed)
    if bound.notnull().any():
        sentence = "of normalised queries and keys the gain bounds every score"
        what, largest = "largest |score| over the gain, of all models", float(bound.max())
        lines.check("norm", sentence, what, "<", 1 + ROUNDING, largest)


def _is_plain(m: Mechanism) -> bool:
    """Whether the trigger's floor is its: rows sum to one, scores and values linear in tokens."""
    linear = isinstance(m.score, Bilinear) and (m.bias is None or isinstance(m.bias, Linear))
    rows = m.normalizer == Softmax() and m.evaluation is None
    return linear and rows and not (m.gate or m.value or m.key)
