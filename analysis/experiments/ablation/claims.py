"""The ledger lines of the ablation. Thresholds are fixed here, before any run."""

import xarray as xr

from analysis.claims.builder import Lines, Values
from analysis.claims.claim import Claim
from analysis.claims.statistics import ratio
from analysis.claims.topics import (
    ALTERNATIVES,
    DEFAULT,
    KEY,
    POSITION_TERM,
    PROJECT,
    QUERY,
    SHARING,
    TOKEN_TERM,
    Topic,
)
from analysis.experiments.ablation.train import AblationConfig
from ssa_theory.mechanism import VANILLA

CONTRIBUTES = 0.95  # a temperature contributes where it takes away at least 5 % of the excess
NO_CHANGE = 0.02  # "changes nothing": the error moves by less than 2 %
_TOPICS = {"query": QUERY, "key": KEY, "value": DEFAULT}
_OF = {"letters": "cross-entropy above H*", "denoise": "risk above Bayes"}
_ROLES = {
    "letters": {"query": ("ssa-query", "ssa-key"), "key": ("ssa-key", "ssa-query")},
    "denoise": {
        "query": ("ssa-mlp-query", "ssa-mlp-key-value"),
        "key": ("ssa-mlp-key", "ssa-mlp"),
        "value": ("ssa-mlp-value", "ssa-mlp-query-key"),
    },
}
"""By role: the mechanism that has its temperature alone, and the one that has all others."""
_ALL = {"letters": "ssa-query-key", "denoise": "ssa-mlp-query-key-value"}


def judge(config: AblationConfig, dataset: xr.Dataset) -> list[Claim]:
    """Which temperatures lower the error above Bayes, by part, as far as the mechanisms were
    trained. All comparisons are paired over seeds.
    """
    lines = Lines("ablation", config.seeds)
    trained = set(dataset["mechanism"].values.tolist())

    def pair(variable: str, part: str, *names: str) -> dict[str, Values]:
        at = dataset[variable]
        return {name: at.sel(mechanism=f"{part}-{name}").values for name in names}

    def there(part: str, *names: str) -> bool:
        return trained.issuperset(f"{part}-{name}" for name in names)

    def lowers(
        topic: Topic,
        part: str,
        key: str,
        better: str,
        worse: str,
        sentence: str,
        threshold: float = CONTRIBUTES,
    ) -> None:
        if not there(part, better, worse):
            return
        more = {}
        if part == "letters":
            more["L1 ratio"] = ratio(*pair("l1_error", part, better, worse).values())
        steps = config.training(part).total_steps
        lines.ratio(
            topic,
            f"{part}-{key}",
            f"{part}: {sentence}",
            f"the {_OF[part]} after {steps} steps",
            pair("excess", part, better, worse),
            "<",
            threshold,
            more,
        )

    contributes = f"takes away at least {1 - CONTRIBUTES:.0%} of the error above Bayes"
    for part, roles in _ROLES.items():
        for role, (alone, _) in roles.items():
            sentence = f"a {role} temperature alone {contributes}"
            lowers(_TOPICS[role], part, role, alone, VANILLA, sentence)
        for role, (_, rest) in roles.items():
            sentence = f"a {role} temperature added to all others {contributes}"
            lowers(_TOPICS[role], part, f"{role}-added", _ALL[part], rest, sentence)

    sentences = {
        "constant": (DEFAULT, "one learned constant temperature changes nothing"),
        "position": (
            POSITION_TERM,
            "where all queries see the same n, a position temperature changes nothing",
        ),
    }
    for term, (topic, sentence) in sentences.items():
        if there("letters", f"ssa-{term}"):
            lines.unchanged(
                topic,
                f"letters-{term}",
                f"letters: {sentence}: W absorbs it",
                "the cross-entropy above H*",
                pair("excess", "letters", f"ssa-{term}", VANILLA),
                NO_CHANGE,
                PROJECT,
            )
    sentence = "the token temperature of SSA beats a constant one"
    lowers(ALTERNATIVES, "letters", "beyond-constant", "ssa-query", "ssa-constant", sentence, 1.0)
    for role, frequency in (("query", "ssa-feature"), ("key", "ssa-feature-key")):
        sentence = (
            f"the token temperature of SSA on the {role} beats one that depends on the frequency "
            "alone"
        )
        key = f"{role}-beyond-frequency"
        lowers(ALTERNATIVES, "letters", key, f"ssa-{role}", frequency, sentence, 1.0)
    own = "an own MLP for f lowers the error below weight sharing"
    for roles in ("query", "query-key"):
        better, worse = f"ssa-mlp-{roles}", f"ssa-{roles}"
        lowers(SHARING, "letters", f"{roles}-mlp", better, worse, f"{roles}: {own}", 1.0)

    default, token, position = "ssa-mlp", "ssa-mlp-token", "ssa-position"
    about = f"{default}, the paper's default"
    lowers(DEFAULT, "denoise", "default", default, VANILLA, f"{about}: {contributes}")
    for term, topic, alone, without in (
        ("token", TOKEN_TERM, token, position),
        ("position", POSITION_TERM, position, token),
    ):
        other = {"token": "position", "position": "token"}[term]
        sentence = f"{about}: with the {term} terms alone it {contributes}"
        lowers(topic, "denoise", term, alone, VANILLA, sentence)
        sentence = f"{about}: adding the {term} terms to the {other} terms {contributes}"
        lowers(topic, "denoise", f"{term}-added", default, without, sentence)
    lowers(SHARING, "denoise", "mlp", default, "ssa", f"{about}: {own}", 1.0)

    longer, longest = int(dataset["length"][-1]), max(config.train_lengths)
    if there("denoise", default, token):
        risk = pair("risk", "denoise", default, token)
        lines.ratio(
            POSITION_TERM,
            "denoise-position-longer",
            f"denoise: {about}: the position terms lower the error in contexts of {longer} tokens, "
            f"trained up to {longest}",
            f"the squared error at {longer} tokens",
            {name: values[:, -1] for name, values in risk.items()},
        )
    return lines.claims
