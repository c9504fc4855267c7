"""What may silently spoil a number is found, counted and said."""

import numpy as np
import torch
import xarray as xr

from analysis.draw.figures import left_out
from analysis.problems.base import Training, fit
from analysis.problems.rows import RowBlock
from analysis.store.guards import GUARDS, warnings_of
from ssa_theory.losses import Queries
from ssa_theory.mechanism import MECHANISMS, Form, Inputs, Layer, Tokens


def test_each_guard_has_its_phrase_and_its_count():
    flags = xr.Dataset({name: ("seed", [True, False, True]) for name in GUARDS})
    phrases = warnings_of(flags)
    assert [phrase.split()[0] for phrase in phrases] == ["2"] * len(GUARDS)
    assert phrases[0] == "2 diverged models left out"
    assert left_out(flags[["diverged"]]) == "\n2 diverged models left out"
    one = flags[["diverged"]].isel(seed=[0, 1]).assign(control_diverged=("seed", [False, False]))
    assert warnings_of(one) == ["1 diverged model left out"]
    assert warnings_of(one.assign(control_diverged=("seed", [True, True]))) == [
        "3 diverged models left out"
    ]
    assert warnings_of(flags.where(False, False)) == []
    assert left_out(xr.Dataset()) == ""


def test_training_finds_rank_deficient_embeddings_and_underflow():
    """Member 0 is sound; 1 has two equal columns of embeddings; 2 starts so spiky that weights
    underflow in float32.
    """
    rng = np.random.default_rng(0)
    embeddings = torch.from_numpy(rng.standard_normal((5, 3, 3)))
    embeddings[:, 1, 1] = embeddings[:, 0, 1]
    embeddings[..., 2] *= 30
    words = Tokens(embeddings)
    inputs = Inputs(words, words, count=5.0)
    target = torch.full((5, 5, 3), 0.2, dtype=torch.float64)
    exact = Queries(target, torch.full((5, 3), 0.2, dtype=torch.float64))
    layer = Layer(MECHANISMS["vanilla"], Form(3))

    def measured(dtype: str) -> dict[str, np.ndarray]:
        training = Training(0, 0.1, dtype=dtype)
        block = RowBlock([0, 1, 2], torch.device("cpu"), inputs, target, exact, training)
        fitted = fit(block, layer, training)
        return fitted.by_member(block.evaluate(layer, fitted))

    single = measured("float32")
    assert single["rank_deficient"].tolist() == [False, True, False]
    assert single["underflow"].tolist() == [False, False, True]
    assert (single["learned_transition_matrix"][2] < np.finfo(np.float32).tiny).any()
    assert not measured("float64")["underflow"].any()
