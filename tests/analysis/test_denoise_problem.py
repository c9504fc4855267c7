"""The denoising problem: data drawn once, contexts of several lengths, and what it measures."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from analysis.problems import DenoiseProblem, Training, train_all
from ssa_theory import Stream, member_generator
from ssa_theory.mechanism import MECHANISMS, Misfit, mechanism
from tasks.denoising import DenoisingTask

CPU = torch.device("cpu")
TRAINING = Training(4, 0.05, 2)
TASK = DenoisingTask(dim=3, length=5)


def test_settings_and_mechanisms_share_one_draw(monkeypatch):
    drawn = []
    usual = DenoisingTask.sample

    def sample(task, count, generator):
        drawn.append(count)
        return usual(task, count, generator)

    monkeypatch.setattr(DenoisingTask, "sample", sample)
    problem = DenoiseProblem(TASK, batch_size=8, held_out=20)
    names = [mechanism("vanilla"), mechanism("gate-and-sink")]
    for noise in (2.5, 4.0):
        train_all(problem.at(noise), names, [0, 1], TRAINING, CPU)
    assert sorted(drawn) == [20] * 4 + [6 * 8] * 2  # held-out samples are each setting's own
    train_all(problem, names, [0, 2], TRAINING, CPU)
    assert drawn.count(6 * 8) == 4


@pytest.mark.parametrize("noise", [0.5, 4.0])
def test_scaled_fillers_are_the_tasks_own_samples(noise):
    """Step by step the batches are what the task would draw from the same stream."""
    problem = DenoiseProblem(TASK, "last", batch_size=8, held_out=2, lengths=(2, 4)).at(noise)
    training = Training(3, 0.05, dtype="float64")
    batches = list(problem.block([7], training, CPU).batches(training))
    own = DenoisingTask(dim=3, length=4, filler_noise=noise)
    sample = own.sample(3 * 8, member_generator(7, Stream.DATA))
    assert [tuple(x.shape) for x, _ in batches] == [(8, 2, 3, 1), (8, 4, 3, 1), (8, 2, 3, 1)]
    for i, (tokens, target) in enumerate(batches):
        part = slice(8 * i, 8 * i + 8)
        assert_allclose(tokens[..., 0], sample.tokens[part, : tokens.shape[1]], rtol=1e-12)
        assert_allclose(target[..., 0], sample.target[part])


def test_risks_by_length_are_those_of_the_prefixes():
    problem = DenoiseProblem(TASK, "last", batch_size=8, held_out=30, lengths=(4, 2))
    found = train_all(problem, [mechanism("vanilla")], [0, 1], TRAINING, CPU)
    assert found["length"].values.tolist() == [2, 4, 5]
    exact = found["bayes_by_length"].sel(length=[2, 4])
    assert np.isnan(found["bayes_by_length"].sel(length=5)).all()
    assert_allclose(exact.mean("length"), found["held_out_bayes"])
    risk = found["risk"].sel(length=[2, 4])
    assert_allclose(risk.mean("length"), found["mse"])
    assert_allclose((risk - exact).mean("length").transpose(*found["excess"].dims), found["excess"])
    assert (found["held_out_oracle"] < found["held_out_naive"]).all()


@pytest.mark.parametrize(
    ("name", "floor", "saturated"),
    [("vanilla", False, False), ("ssa-position", True, False), ("ssa-mlp", True, True)],
)
def test_gates_are_those_of_a_value_temperature(name, floor, saturated):
    problem = DenoiseProblem(TASK, batch_size=8, held_out=20)
    found = train_all(problem, [mechanism(name)], [0], Training(1, 1e-9), CPU)
    start = 0.5 * np.log(5)
    least = {"ssa-position": 1 + start, "ssa-mlp": start}.get(name, np.nan)
    assert_allclose(found["gate_floor"], least, rtol=1e-6)
    assert bool(np.isfinite(found["gate_by_norm"]).all()) == floor
    assert bool(np.isfinite(found["gate_saturation"]).all()) == saturated
    if floor:
        assert_allclose(found["gate_by_norm"], 1 + start, rtol=1e-6)


@pytest.mark.parametrize("lengths", [(0,), (6,), (2, 9)])
def test_training_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(ValueError, match="training lengths must lie between 1 and 5"):
        DenoiseProblem(TASK, lengths=lengths)


def test_contexts_without_exact_bayes_are_refused_for_training():
    with pytest.raises(ValueError, match="between 1 and 14"):
        DenoiseProblem(DenoisingTask(length=20))
    assert DenoiseProblem(DenoisingTask(length=20), lengths=(3,)).test_lengths == [3, 20]


@pytest.mark.parametrize("query", ["readout", "last"])
def test_every_mechanism_that_fits_is_trained_and_measured(query):
    problem = DenoiseProblem(TASK, query, batch_size=4, held_out=8, lengths=(2, 4))
    fitting, refused = [], set()
    for name, entry in MECHANISMS.items():
        try:
            problem.layer(entry)
        except Misfit:
            refused.add(name)
        else:
            fitting.append(entry)
    found = train_all(problem, fitting, [0, 1], TRAINING, CPU)
    assert np.isfinite(found["mse"]).all()
    assert (found["excess"] >= 0).all()
    unfit = {"ssa-feature", "ssa-feature-key", "ssa-feature-exp", "ssa-degree", "ssa-free"}
    only_last = {"gated", "gated-head", "constant-scale"}
    assert refused == (unfit | only_last if query == "readout" else unfit)
