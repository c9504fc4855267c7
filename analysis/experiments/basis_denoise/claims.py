"""The ledger lines of the paper's denoising task."""

import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean
from analysis.experiments.basis_denoise.train import DEFAULT, BasisDenoiseConfig
from analysis.experiments.mechanisms import chosen
from ssa_theory.mechanism import VANILLA

PAPERS = "ssa-value"


def judge(config: BasisDenoiseConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every line that the stored settings and mechanisms allow, paired over seeds."""
    lines = Lines("basis-denoise", dataset.sizes["seed"])
    for setting in dataset["setting"].values.tolist():
        at = dataset.sel(setting=setting)
        trained = config.mechanisms if setting == DEFAULT else config.swept_mechanisms
        risk = at["risk"].sel(mechanism=[m.name for m in chosen(trained)])
        parts = {"Bayes": mean(at["bayes"].values)}
        cell = {"length": f"{int(at['length'])}", "noise": f"{float(at['noise']):g}"}
        lines.against("basis-denoising", cell, "risk", risk, PAPERS, parts)
        if PAPERS in risk["mechanism"]:
            own = risk.sel(mechanism=PAPERS).values
            pair = {PAPERS: own, "threshold": at["threshold"].values}
            lines.compare("basis-threshold", cell, "risk", pair, parts)
        pair = {"naive": at["naive"].values, VANILLA: risk.sel(mechanism=VANILLA).values}
        lines.compare("basis-naive", cell, "risk", pair, parts)
        if setting == DEFAULT:
            lines.against("basis-controls", {}, "risk", risk, PAPERS, parts)
    at = dataset.sel(setting=DEFAULT)
    sentence = (
        "the mean of the tokens that carry the signal, though it knows them, has a larger risk than "
        "Bayes, which does not"
    )
    what = "mean over seeds of its risk less the Bayes risk on the same held-out samples, default"
    above = mean((at["oracle"] - at["bayes"]).values)
    parts = {name: mean(at[name].values) for name in ("oracle", "bayes")}
    lines.check("oracle-default", sentence, what, ">", 0, above, parts)
    return lines.claims
