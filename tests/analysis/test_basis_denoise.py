"""The paper's denoising task: loss and risk against loops, gates, and what its ledger says."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.testing import assert_allclose

from analysis.claims.claim import Test
from analysis.experiments import EXPERIMENTS
from analysis.experiments.base import silent
from analysis.experiments.basis_denoise import BasisDenoiseConfig
from analysis.problems import Training, fit
from analysis.problems.basis_denoise import BasisDenoiseProblem, SharedDraws, direction
from ssa_theory.mechanism import mechanism
from ssa_theory.seeds import Stream, member_generator
from tasks.basis_denoising import BasisDenoisingTask, unit
from tests.analysis.evidence import checks, found, missing, said

CPU = torch.device("cpu")
TASK = BasisDenoisingTask(dim=3, length=4, noise=0.4)
EXPERIMENT = EXPERIMENTS["basis-denoise"]
EXACT = ("naive", "threshold", "oracle", "bayes")


@pytest.fixture(scope="module")
def smoke():
    return EXPERIMENT.run(EXPERIMENT.preset("smoke"), silent)


def fitted(name, seeds=(5, 2), **settings):
    problem = BasisDenoiseProblem(TASK, batch_size=6, held_out=40, **settings)
    training = Training(4, 0.05, 2, dtype="float64")
    block, layer = problem.block(list(seeds), training, CPU), problem.layer(mechanism(name))
    return block, layer, fit(block, layer, training), training


def output(own, m, context):
    """Of the last token of one context, by loops, with the value gate 1 + tanh f + s(a) log L."""
    scores = np.array([context[-1] @ own["weight"][..., m] @ x for x in context])
    row = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    total, tau = np.zeros(3), np.ones(4)
    for j, x in enumerate(context):
        if "value.vector" in own:
            tau[j] = gate(own, m, x)
        total += tau[j] * row[j] * (x @ own["value"][..., m])
    return total, tau


def gate(own, m, x):
    hidden = torch.nn.functional.gelu(torch.from_numpy(x @ own["value"][..., m])).numpy()
    share = 1 / (1 + np.exp(-own["value.alpha"][m]))
    return 1 + np.tanh(own["value.vector"][..., m] @ hidden) + share * np.log(4)


@pytest.mark.parametrize("name", ["vanilla", "ssa-value"])
def test_risk_and_loss_are_the_formula(name):
    block, layer, done, training = fitted(name)
    found = {k: v.numpy() for k, v in block.evaluate(layer, done).items()}
    tokens, target = next(block.batches(training))
    loss = block.loss(layer, done.parameters, (tokens, target)).numpy()
    own = {k: v.numpy() for k, v in done.parameters.items()}
    for m, seed in enumerate(block.seeds):
        tested = TASK.sample(40, member_generator(seed, Stream.EVALUATION))
        outputs, taus = zip(*(output(own, m, x) for x in tested.tokens), strict=True)
        errors = TASK.expected_error(tested.tokens, np.array(outputs))
        assert_allclose(found["risk"][m], errors.mean(), rtol=1e-10)
        trained = TASK.sample(6 * 6, member_generator(seed, Stream.DATA))
        wanted = []
        for i in range(6):
            o = output(own, m, trained.tokens[i])[0]
            wanted.append(((np.eye(3)[trained.label[i]] - o / np.linalg.norm(o)) ** 2).sum())
        assert_allclose(loss[m], np.mean(wanted), rtol=1e-10)
        if name == "vanilla":
            assert np.isnan(found["filler_gate"][m])
            assert np.isnan(found["gate_by_peak"][:, m]).all()
            continue
        tau, peak = np.array(taus), tested.tokens.max(2)
        signal = tau[tested.relevant].mean()
        assert_allclose(found["filler_gate"][m], tau[~tested.relevant].mean() / signal, rtol=1e-9)
        bin_8 = tau[(peak >= 0.8) & (peak < 0.9)]
        assert_allclose(found["gate_by_peak"][8, m], bin_8.mean() / signal, rtol=1e-9)


def test_batches_are_the_tasks_own_samples():
    block, _, _, training = fitted("vanilla")
    batches = list(block.batches(training))
    assert len(batches) == 6
    drawn = TASK.sample(36, member_generator(2, Stream.DATA))
    assert_allclose(torch.cat([t for t, _ in batches])[..., 1], drawn.tokens)
    assert torch.cat([y for _, y in batches])[..., 1].argmax(1).tolist() == drawn.label.tolist()


def test_the_direction_of_zero_is_the_tasks_and_has_no_gradient():
    rows = torch.tensor([[3.0, -4.0], [0.0, 0.0]], dtype=torch.float64).unsqueeze(2)
    rows.requires_grad_()
    u = direction(rows)
    assert_allclose(u.detach()[..., 0], unit(rows.detach()[..., 0].numpy()))
    (gradient,) = torch.autograd.grad(u[:, 0].sum(), rows)
    assert_allclose(gradient[0, :, 0], [16 / 125, 12 / 125], atol=1e-12)  # (I - u u^T) e_1 / ||o||
    assert (gradient[1] == 0).all()


def test_baselines_are_those_of_the_held_out_samples():
    problem = BasisDenoiseProblem(TASK, held_out=40)
    described = problem.describe([3, 8])
    tested = TASK.sample(40, member_generator(8, Stream.EVALUATION))
    p = TASK.posterior(tested.tokens)
    assert_allclose(described["bayes"][1], (2 - 2 * np.linalg.norm(p, axis=1)).mean())
    mean = tested.tokens.mean(1)
    cosine = (p * mean).sum(1) / np.linalg.norm(mean, axis=1)
    assert_allclose(described["naive"][1], (2 - 2 * cosine).mean())


def test_no_trained_model_is_below_bayes(smoke):
    """Both risks are given the same tokens, so that this holds without an error of sampling."""
    assert not smoke["diverged"].any()
    trained = np.isfinite(smoke["risk"])
    assert trained.sel(setting="default").all()
    assert (trained.sum("mechanism") >= 3).all()
    assert trained.sizes["setting"] == 4
    assert (smoke["risk"] > smoke["bayes"]).where(trained, True).all()
    assert (smoke["threshold"] >= smoke["bayes"]).all()
    assert (smoke["naive"] >= smoke["bayes"]).all()


def test_a_sink_is_lost_in_the_direction(smoke):
    """It scales the whole output of a query."""
    at = smoke["risk"].sel(setting="default")
    assert_allclose(at.sel(mechanism="sink"), at.sel(mechanism="vanilla"), rtol=1e-3)


def test_settings_are_every_length_at_every_noise():
    config = BasisDenoiseConfig(noise=0.2, swept_noises=(0.7,), length=5, swept_lengths=(3, 9))
    laws = {k: (p.task.length, p.task.noise) for k, p in config.problems.items()}
    assert laws == {
        "default": (5, 0.2),
        "noise 0.7": (5, 0.7),
        "length 3": (3, 0.2),
        "length 3 noise 0.7": (3, 0.7),
        "length 9": (9, 0.2),
        "length 9 noise 0.7": (9, 0.7),
    }
    assert next(iter(laws)) == "default"
    paper = EXPERIMENT.preset("paper")
    laws = [(p.task.length, p.task.noise) for p in paper.problems.values()]
    assert sorted(laws) == [(n, s) for n in (8, 16, 32) for s in (0.1, 0.3, 0.5, 1.0)]


def test_problems_that_share_their_draws_have_the_data_of_their_own():
    training, draws, seeds = Training(3, 0.05, dtype="float64"), SharedDraws(), [5, 2]
    for task, own in (
        (TASK, seeds),
        (replace(TASK, noise=1.0), seeds),
        (replace(TASK, noise=1.0), [5, 3]),
        (replace(TASK, length=3), [5, 3]),
    ):
        shared = BasisDenoiseProblem(task, batch_size=6, draws=draws).block(own, training, CPU)
        sampled = task.sample(18, member_generator(own[1], Stream.DATA))
        assert torch.equal(shared.data[0][..., 1], torch.from_numpy(sampled.tokens))
        assert shared.data[1][..., 1].argmax(1).tolist() == sampled.label.tolist()


def test_every_setting_is_trained_on_its_own_data(smoke):
    """Though lengths share their draws: a run of one setting alone gives the same numbers."""
    config = EXPERIMENT.preset("smoke")
    for length, noise in itertools.product((8, 4), (0.3, 1.0)):
        name = next(
            k
            for k, p in config.problems.items()
            if (p.task.length, p.task.noise) == (length, noise)
        )
        at = {"length": length, "noise": noise, "swept_lengths": (), "swept_noises": ()}
        names = {"mechanisms": config.swept_mechanisms}
        alone = EXPERIMENT.run(config.model_copy(update=at | names), silent).sel(setting="default")
        whole = smoke.sel(setting=name, mechanism=list(config.swept_mechanisms))
        for variable in ("risk", "filler_gate", "bayes", "threshold"):
            assert_allclose(whole[variable], alone[variable], rtol=1e-6)
        assert float(whole["noise"]) == noise
        assert int(whole["length"]) == length


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"swept_noises": (0.3,)}, "noise and swept_noises must all be different"),
        ({"swept_noises": (-1.0,)}, "noise must be positive and finite, got -1.0"),
        ({"swept_lengths": (16, 16)}, "length and swept_lengths must all be different"),
        ({"swept_lengths": (1,)}, r"swept_lengths must lie in \[2, 4096\], got \[1\]"),
        ({"mechanisms": ("vanilla", "ssa-value")}, "swept_mechanisms must be among mechanisms"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        BasisDenoiseConfig(**settings)


def synthetic(seeds=12, **levels):
    """A result with the axes of the paper preset: each mechanism's and estimator's risk is its level
    times a factor of its own by seed and setting.
    """
    config = EXPERIMENT.preset("paper").model_copy(update={"seeds": seeds})
    tasks = [problem.task for problem in config.problems.values()]
    generator = np.random.default_rng(0)

    def risk(name):
        factor = np.exp(0.01 * generator.standard_normal((seeds, len(tasks))))
        return levels.get(name.replace("-", "_"), 1.0) * factor

    names, model = list(config.mechanisms), ("mechanism", "seed", "setting")
    dataset = xr.Dataset(
        {"risk": (model, np.stack([risk(name) for name in names]))}
        | {name: (model[1:], risk(name)) for name in EXACT}
        | {
            "noise": ("setting", [t.noise for t in tasks]),
            "length": ("setting", [t.length for t in tasks]),
        },
        coords={"mechanism": names, "seed": np.arange(seeds), "setting": list(config.problems)},
    )
    return dataset.assign_attrs(experiment="basis-denoise", config=config.model_dump_json())


def test_every_declared_cell_is_compared():
    topics = ("basis-denoising", "basis-controls", "basis-threshold", "basis-naive")
    assert not missing(EXPERIMENT.claims(synthetic()), *topics)


def test_tests_are_log_ratios_that_favour_the_sentence():
    """Vanilla as bad as the mean, the gate twice as bad as the threshold and half as bad as vanilla."""
    known = synthetic(ssa_value=0.5, threshold=0.25, sink=0.4)
    lines = EXPERIMENT.claims(known)
    for noise, length, setting in (
        ("0.3", "8", "default"),
        ("1", "16", "length 16 noise 1"),
        ("0.1", "8", "noise 0.1"),
    ):
        at = known.sel(setting=setting)
        own, peer = (at["risk"].sel(mechanism=m).values for m in ("ssa-value", "vanilla"))
        pairs = {
            ("basis-denoising", (length, noise, "vanilla"), "benefit"): (own, peer),
            ("basis-threshold", (length, noise), "harm"): (own, at["threshold"].values),
            ("basis-naive", (length, noise), "benefit"): (at["naive"].values, peer),
        }
        for (topic, cell, wanted), (first, second) in pairs.items():
            test = found(lines, topic)[cell]
            logs = [np.log(b) - np.log(a) for a, b in zip(first, second, strict=True)]
            assert test.effect.value == pytest.approx(sum(logs) / len(logs))
            assert (said(test), test.effect.seeds, test.requested_seeds) == (wanted, 12, 12)
    controls = found(lines, "basis-controls")
    wanted = {("scaled",): "benefit", ("key-bias",): "benefit", ("sink",): "harm"}
    assert {cell: said(test) for cell, test in controls.items()} == wanted
    at = known["risk"].sel(setting="default")
    logs = np.log(at.sel(mechanism="sink").values) - np.log(at.sel(mechanism="ssa-value").values)
    assert controls["sink",].effect.value == pytest.approx(logs.mean())


def test_diverged_seeds_count_as_lost():
    known = synthetic(ssa_value=0.5)
    known["risk"].loc[{"mechanism": "ssa-value", "seed": [3], "setting": "noise 1"}] = np.nan
    tests = found(EXPERIMENT.claims(known), "basis-denoising")
    assert (tests["8", "1", "vanilla"].effect.seeds, said(tests["8", "1", "vanilla"])) == (
        11,
        "missing",
    )
    assert said(tests["8", "0.5", "vanilla"]) == "benefit"


def test_the_oracle_mean_is_held_against_bayes():
    for level, passed in ((1.1, "passed"), (0.9, "failed")):
        data = synthetic(oracle=level)
        (check,) = checks(EXPERIMENT.claims(data)).values()
        at = data.sel(setting="default")
        assert check.estimate.value == pytest.approx(float((at["oracle"] - at["bayes"]).mean()))
        assert check.passed == passed


def test_no_more_is_claimed_than_is_trained(smoke):
    lines = EXPERIMENT.claims(smoke)
    assert set(found(lines, "basis-naive")) == {(n, s) for n in ("8", "4") for s in ("0.3", "1")}
    few = EXPERIMENT.preset("smoke").model_copy(
        update={"mechanisms": ("vanilla", "sink"), "swept_mechanisms": ("vanilla", "sink")}
    )
    at = smoke.sel(mechanism=["vanilla", "sink"]).assign_attrs(config=few.model_dump_json())
    assert {line.topic for line in EXPERIMENT.claims(at) if isinstance(line, Test)} == {
        "basis-naive"
    }


def test_the_figure_shows_every_setting(smoke):
    figure = EXPERIMENT.plot(smoke)
    assert [ax.get_title()[:3] for ax in figure.axes] == ["(a)", "(b)", "(c)", "(d)", "(e)", "(f)"]
    band = smoke["risk_band"].sel(estimate="value")
    for ax, name, over in zip(
        figure.axes[4:], ("vanilla", "ssa-value"), ("naive", "threshold"), strict=True
    ):
        for length in (4, 8):
            at = smoke.isel(setting=np.flatnonzero(smoke["length"] == length)).sortby("noise")
            share = band.sel(mechanism=name, setting=at["setting"])
            share = share / at[f"{over}_band"].sel(estimate="value")
            drawn = next(c for c in ax.containers if c.get_label() == f"L = {length}")
            assert_allclose(drawn.lines[0].get_ydata(), share)
