"""The ledger lines of the paper's denoising task. Thresholds are fixed here, before any run."""

import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean, ratio
from analysis.claims.topics import BASIS, PROJECT
from analysis.experiments.basis_denoise.train import DEFAULT, BasisDenoiseConfig
from ssa_theory.mechanism import VANILLA, known

_WHAT = "the risk of the normalised output on the same held-out samples"


def judge(config: BasisDenoiseConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored settings and mechanisms allow, paired over seeds."""
    lines = Lines("basis-denoise", dataset.sizes["seed"])
    for setting in dataset["setting"].values.tolist():
        at = dataset.sel(setting=setting)
        trained = config.mechanisms if setting == DEFAULT else config.swept_mechanisms
        _compare(lines, setting, at, [name for name in trained if known(name).value is not None])
    _reach(lines, dataset.sel(setting=DEFAULT), config.mechanisms)
    return lines.claims


def _compare(lines: Lines, setting: str, at: xr.Dataset, gates: list[str]) -> None:
    """The paper's comparisons at one setting."""
    key, where = setting.replace(" ", "-"), f"at the setting {setting}"
    risk = {name: at["risk"].sel(mechanism=name).values for name in (VANILLA, *gates)}
    shut = at["filler_gate"]
    exact = {name: at[name].values for name in ("naive", "threshold", "oracle", "bayes")}
    for gate in gates:
        lines.ratio(
            BASIS,
            f"gate-{key}-{gate}",
            f"{gate} has a smaller risk than vanilla {where}",
            _WHAT,
            {gate: risk[gate], VANILLA: risk[VANILLA]},
            parts={"tau_v of fillers / of signal tokens": mean(shut.sel(mechanism=gate).values)},
        )
        lines.ratio(
            BASIS,
            f"threshold-{key}-{gate}",
            f"{gate} comes within 5 % of the mean of the tokens with a coordinate of at least 1/2 "
            f"{where}",
            _WHAT,
            {gate: risk[gate], "threshold": exact["threshold"]},
            "<",
            1.05,
        )
    lines.ratio(
        BASIS,
        f"needed-{key}-{VANILLA}",
        "the threshold needs a value temperature: vanilla attention does not come within 5 % of it "
        f"{where}",
        _WHAT,
        {VANILLA: risk[VANILLA], "threshold": exact["threshold"]},
        ">",
        1.05,
        source=PROJECT,
    )
    lines.ratio(
        BASIS,
        f"naive-{key}-{VANILLA}",
        f"vanilla attention is no better than the mean token, by 5 %, {where}",
        _WHAT,
        {VANILLA: risk[VANILLA], "naive": exact["naive"]},
        ">",
        0.95,
    )
    lines.difference(
        BASIS,
        f"oracle-{key}",
        "the mean of the tokens that carry the signal, though it knows them, has a larger risk than "
        f"Bayes, which does not, {where}",
        "mean over seeds of the risk of the oracle mean minus the Bayes risk, on the same held-out "
        "samples",
        {"oracle": exact["oracle"], "bayes": exact["bayes"]},
        ">",
        0.0,
        source=PROJECT,
    )


def _reach(lines: Lines, at: xr.Dataset, mechanisms: tuple[str, ...]) -> None:
    """How far each trained mechanism is from Bayes at the default."""
    bayes = at["bayes"].values
    for name in mechanisms:
        risk = at["risk"].sel(mechanism=name).values
        lines.difference(
            BASIS,
            f"bayes-{name}",
            f"{name} has a larger risk than the Bayes act at the default",
            f"mean over seeds of the risk of {name} minus the Bayes risk, on the same held-out "
            "samples",
            {name: risk, "bayes": bayes},
            ">",
            0.0,
            {f"{name} / bayes": ratio(risk, bayes)},
            source=PROJECT,
        )
