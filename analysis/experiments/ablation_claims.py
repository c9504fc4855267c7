"""The ledger lines of the ablation. Thresholds are fixed here, before any run."""

from typing import Any

import numpy as np
import xarray as xr

from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate, estimate, mean, ratio

CONTRIBUTES = 0.95  # a temperature contributes where it takes away at least 5 % of the error above Bayes
NO_CHANGE = 0.02  # "changes nothing": the error moves by less than 2 %
_PAPER = "paper, ablation of the temperatures"
_OWN = "this project"


def judge(config: Any, dataset: xr.Dataset) -> list[Claim]:
    """Which temperatures lower the error above Bayes, by part. All comparisons are paired over seeds."""
    steps = {"letters": config.letters_steps, "denoise": config.denoise_steps + config.cooldown_steps}
    lines = []

    def add(
        key: str,
        sentence: str,
        source: str,
        statistic: str,
        threshold: float,
        found: Estimate,
        parts: dict[str, Estimate],
    ) -> None:
        lines.append(Claim(f"ablation-{key}", sentence, source, statistic, "<", threshold, found, config.seeds, parts))

    def lowers(
        part: str,
        key: str,
        better: str,
        worse: str,
        sentence: str,
        threshold: float = CONTRIBUTES,
        source: str = _PAPER,
    ) -> None:
        x, y = (dataset["excess"].sel(variant=f"{part}-{v}").values for v in (better, worse))
        parts = {better: mean(x), worse: mean(y)}
        if part == "letters":
            parts["L1 ratio"] = ratio(*(dataset["l1_error"].sel(variant=f"{part}-{v}").values for v in (better, worse)))
        what = {"letters": "cross-entropy above H*", "denoise": "risk above Bayes"}[part]
        statistic = f"ratio of means over seeds, {better} / {worse}, of the {what} after {steps[part]} steps"
        add(f"{part}-{key}", f"{part}: {sentence}", source, statistic, threshold, ratio(x, y), parts)

    contributes = f"takes away at least {1 - CONTRIBUTES:.0%} of the error above Bayes"
    for part, roles in (("letters", ("query", "key")), ("denoise", ("query", "key", "value"))):
        for role in roles:
            lowers(part, role, role, "vanilla", f"a {role} temperature alone {contributes}")
        full = "-".join(roles)
        for role in roles:
            rest = "-".join(r for r in roles if r != role)
            sentence = f"a {role} temperature added to all others {contributes}"
            lowers(part, f"{role}-added", full, rest, sentence)

    def changes_nothing(variant: str, sentence: str) -> None:
        x, y = (dataset["excess"].sel(variant=f"letters-{v}").values for v in (variant, "vanilla"))
        apart = estimate(lambda i: np.abs(x[i].mean(-1) / y[i].mean(-1) - 1), np.isfinite(x) & np.isfinite(y))
        statistic = f"|ratio of means over seeds, {variant} / vanilla, of the cross-entropy above H* - 1|"
        add(f"letters-{variant}", f"letters: {sentence}", _OWN, statistic, NO_CHANGE, apart, {"ratio": ratio(x, y)})

    changes_nothing("constant", "one learned constant temperature changes nothing: W absorbs it")
    changes_nothing(
        "position", "where all queries see the same n, a position temperature changes nothing: W absorbs it"
    )
    lowers("letters", "beyond-constant", "query", "constant", "the token temperature of SSA beats a constant one", 1.0)
    for role in ("query", "key"):
        sentence = f"the token temperature of SSA on the {role} beats one that depends on the frequency alone"
        lowers("letters", f"{role}-beyond-frequency", role, f"{role}-frequency", sentence, 1.0)
    own = "an own MLP for f lowers the error below weight sharing"
    for full in ("query", "query-key"):
        lowers("letters", f"{full}-mlp", f"{full}-mlp", full, f"{full}: {own}", 1.0, _OWN)

    default = "query-value, the paper's default"
    lowers("denoise", "default", "query-value", "vanilla", f"{default}: {contributes}")
    for term, other in (("token", "position"), ("position", "token")):
        alone, without = f"query-value-{term}", f"query-value-{other}"
        lowers("denoise", term, alone, "vanilla", f"{default}: with the {term} terms alone it {contributes}")
        sentence = f"{default}: adding the {term} terms to the {other} terms {contributes}"
        lowers("denoise", f"{term}-added", "query-value", without, sentence)
    lowers("denoise", "mlp", "query-value", "query-value-shared", f"{default}: {own}", 1.0, _OWN)

    longer, trained = int(dataset["length"][-1]), max(config.train_lengths)
    risk = dataset["risk"].sel(length=longer)
    x, y = (risk.sel(variant=f"denoise-{v}").values for v in ("query-value", "query-value-token"))
    add(
        "denoise-position-longer",
        f"denoise: {default}: the position terms lower the error in contexts of {longer} tokens, trained up to {trained}",
        _PAPER,
        f"ratio of means over seeds, query-value / query-value-token, of the squared error at {longer} tokens",
        1.0,
        ratio(x, y),
        {"query-value": mean(x), "query-value-token": mean(y)},
    )
    return lines
