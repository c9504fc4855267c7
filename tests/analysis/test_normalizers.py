"""The normaliser experiment end to end, its baselines recomputed, its claims on known data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from pydantic import ValidationError
from scipy.optimize import brentq
from scipy.special import softmax

from analysis.claims.claim import Check
from analysis.draw.figures import FILES
from analysis.experiments.base import silent
from analysis.experiments.normalizers import NORMALIZERS, measure_rows
from analysis.experiments.normalizers.config import NormalizersConfig
from analysis.problems.tuning import tune
from analysis.report.sensitivity import strips
from analysis.run.runner import execute
from analysis.store.claims import load_evidence
from ssa_theory.mechanism import mechanism
from ssa_theory.mechanism.normalizers import Normalizer
from ssa_theory.seeds import Stream, member_generator
from tasks import KernelRegressionTask, NoisyRetrievalTask
from tests.analysis import evidence

SMOKE = dict(NORMALIZERS.presets["smoke"]) | {"device": "cpu"}
SEEDS = range(4)
NAMES = ["softmax", *NormalizersConfig().mechanisms[1:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def result(folder: Path, undrawn: Any) -> xr.Dataset:
    """The smoke preset, from training to files."""
    with undrawn():
        return execute(NORMALIZERS, NormalizersConfig(**SMOKE), folder)[0]


def test_variables_and_dimensions(result: xr.Dataset) -> None:
    model = ("normalizer", "temperature", "seed")
    for name in (
        "score",
        "error",
        "l1_error",
        "effective_support",
        "largest_weight",
        "zero_fraction",
        "dead_rows",
    ):
        assert result[name].dims == ("task", *model)
    for name in ("stuck_rows", "alpha", "unmoved", "diverged"):
        assert result[name].dims == ("task", *model)
    assert result["accuracy"].dims == model
    assert (
        result["mse_by_length"].dims
        == result["effective_support_by_length"].dims
        == (*model, "length")
    )
    assert all("description" in result[name].attrs for name in result if not name.endswith("_band"))
    assert result["normalizer"].values.tolist() == NAMES
    assert result["temperature"].values.tolist() == ["without", "with"]
    assert result["length"].values.tolist() == [4, 16, 32, 64]
    assert not result["diverged"].any()
    assert not result["unmoved"].any()
    assert result["alpha"].notnull().sum() == 3 * 2 * 4
    assert result["alpha"].sel(normalizer="entmax").notnull().all()
    assert ((result["alpha"] > 1.01) & (result["alpha"] < 2) | result["alpha"].isnull()).all()
    for name in ("l1_error", "stuck_rows"):
        assert result[name].isnull().all(("normalizer", "temperature", "seed")).values.tolist() == [
            False,
            False,
            True,
        ]
    for name in ("error", "effective_support", "zero_fraction"):
        assert result[name].notnull().all()


def expected_brier(row: np.ndarray, truth: np.ndarray) -> float:
    """E sum_j (row_j - 1[j = y])^2 over y from `truth`, answer by answer."""
    return float(sum(p * ((row - np.eye(len(row))[y]) ** 2).sum() for y, p in enumerate(truth)))


def test_graph_baselines_answer_by_answer(result: xr.Dataset) -> None:
    degrees = [1, 1, 2, 2, 3, 4, 6, 8]
    rows = [
        np.isin(np.arange(8), [(i + k) % 8 for k in range(1, d + 1)]) / d
        for i, d in enumerate(degrees)
    ]
    bayes = np.mean([expected_brier(row, row) for row in rows])
    uniform = np.mean([expected_brier(np.full(8, 1 / 8), row) for row in rows])
    np.testing.assert_allclose(result["bayes"].sel(task="graph"), bayes)
    np.testing.assert_allclose(result["uniform"].sel(task="graph"), uniform - bayes)
    assert 0.1 < bayes < uniform < 1
    assert result["best_softmax"].sel(task="graph").isnull().all()


def test_retrieval_baselines_answer_by_answer(result: xr.Dataset) -> None:
    posteriors, scores = [], []
    for seed in SEEDS:
        generator = member_generator(seed, Stream.EVALUATION)
        for s in (0.1, 0.2, 0.4, 0.8):
            task = NoisyRetrievalTask(8, 16, (s,))
            problems = task.sample(8, generator)
            posteriors.append(task.posterior(problems))
            scores.append(np.einsum("skd,sd->sk", problems.keys, problems.query))
    posterior, scores = (np.array(a).reshape(4, 32, 16) for a in (posteriors, scores))
    one = result.sel(task="retrieval")
    bayes = [np.mean([expected_brier(p, p) for p in seed]) for seed in posterior]
    np.testing.assert_allclose(one["bayes"], bayes)
    np.testing.assert_allclose(one["bayes_accuracy"], posterior.max(2).mean(1))
    uniform = [
        np.mean([expected_brier(np.full(16, 1 / 16), p) for p in seed]) for seed in posterior
    ]
    np.testing.assert_allclose(one["uniform"] + one["bayes"], uniform)
    dense = [
        ((softmax(c * scores, axis=2) - posterior) ** 2).sum(2).mean()
        for c in np.geomspace(1.6, 100, 400)
    ]
    assert float(one["best_softmax"].mean()) == pytest.approx(min(dense), rel=1e-3)
    assert 0.01 < min(dense) < float(one["uniform"].mean())


def test_length_baselines_by_direct_solves(result: xr.Dataset) -> None:
    task = KernelRegressionTask(4, 1.0, 0.3)
    contexts = [
        task.sample_contexts(1, 64, member_generator(s, Stream.EVALUATION), 4) for s in SEEDS
    ]

    def squared_error(n: int, weights: np.ndarray, context) -> float:
        k, q = context.keys[0, :n], context.query[0]
        covariance, cross = np.exp(k @ k.T - 1) + 0.09 * np.eye(n), np.exp(q @ k.T - 1)
        return float(
            np.mean(
                [w @ covariance @ w - 2 * w @ c + 1 for w, c in zip(weights, cross, strict=True)]
            )
        )

    for n in (4, 16, 32, 64):
        at = result.sel(length=n)
        for i, context in enumerate(contexts):
            k, q = context.keys[0, :n], context.query[0]
            covariance, cross = np.exp(k @ k.T - 1) + 0.09 * np.eye(n), np.exp(q @ k.T - 1)
            bayes = np.mean([1 - c @ np.linalg.solve(covariance, c) for c in cross])
            assert float(at["bayes_by_length"][i]) == pytest.approx(bayes)
            uniform = squared_error(n, np.full((4, n), 1 / n), context)
            assert float(at["uniform_by_length"][i]) == pytest.approx(uniform)
        dense = [
            np.mean(
                [
                    squared_error(n, softmax(t * c.query[0] @ c.keys[0, :n].T, axis=1), c)
                    for c in contexts
                ]
            )
            for t in np.geomspace(0.5, 60, 120)
        ]
        assert float(at["best_softmax_by_length"].mean()) == pytest.approx(min(dense), rel=1e-3)
    # One number, c, decides rows without a temperature: the effective support at n = 16 gives it,
    # and it gives all errors.
    for name in ("softmax", "sparsemax", "entmax15", "threshold"):
        normalizer = mechanism("vanilla" if name == "softmax" else name).normalizer
        model = result.sel(normalizer=name, temperature="without")
        for i, context in enumerate(contexts):

            def rows(
                c: float, n: int, normalizer: Normalizer = normalizer, context=context
            ) -> np.ndarray:
                scores = torch.from_numpy(c * context.query[0] @ context.keys[0, :n].T)[..., None]
                return normalizer.rows({}, scores, 1)[..., 0].numpy()

            def support(c: float, n: int = 16, rows=rows) -> float:
                p = rows(c, n)
                some = p.any(1)  # a row without a key has no support
                return float(np.exp(-(p * np.log(np.where(p > 0, p, 1))).sum(1))[some].mean())

            wanted = float(model.sel(length=16)["effective_support_by_length"][i])
            c = brentq(lambda c, w=wanted, support=support: support(c) - w, 0.01, 100, xtol=1e-13)
            assert c != pytest.approx(1, abs=1e-3)  # it has learned
            for n in (4, 64):
                at = model.sel(length=n)
                assert float(at["mse_by_length"][i]) == pytest.approx(
                    squared_error(n, rows(c, n), context), rel=1e-6
                )
                assert float(at["effective_support_by_length"][i]) == pytest.approx(
                    support(c, n), rel=1e-6
                )
    longest = result.sel(length=64)
    at = result.sel(task="length")
    np.testing.assert_allclose(at["score"], longest["mse_by_length"])
    np.testing.assert_allclose(at["error"], longest["mse_by_length"] - longest["bayes_by_length"])
    np.testing.assert_allclose(
        at["best_softmax"], longest["best_softmax_by_length"] - longest["bayes_by_length"]
    )
    np.testing.assert_allclose(at["effective_support"], longest["effective_support_by_length"])


def test_no_model_beats_bayes_and_training_helps(result: xr.Dataset) -> None:
    assert (result["error"] > 0).all()
    np.testing.assert_allclose(
        result["score"], (result["error"] + result["bayes"]).transpose(*result["score"].dims)
    )
    assert (result["mse_by_length"] > result["bayes_by_length"]).all()
    assert (result["accuracy"] <= result["bayes_accuracy"] + 1e-12).all()
    at = result.sel(normalizer="softmax").mean("seed")
    assert (at["error"] < at["uniform"]).all()
    ratio = np.exp(np.log(result["mse_by_length"] / result["best_softmax_by_length"]).mean("seed"))
    np.testing.assert_allclose(result["mse_over_best_band"].sel(estimate="value"), ratio)


def test_rela_does_not_feel_its_temperature_and_softmax_does() -> None:
    """In float64, where rounding has no time to matter."""
    small = {"dtype": "float64", "mechanisms": ("vanilla", "rela"), "seeds": 2}
    found = NORMALIZERS.train(NormalizersConfig(**SMOKE | small), silent)
    for task in ("graph", "retrieval"):
        soft, rela = (found["error"].sel(task=task, normalizer=n) for n in ("softmax", "rela"))
        with_it, without = (rela.sel(temperature=t) for t in ("with", "without"))
        np.testing.assert_allclose(with_it, without, rtol=1e-5)
        gain = soft.sel(temperature="with").values / soft.sel(temperature="without").values
        assert (np.abs(gain - 1) > 1e-3).all()


def test_a_seed_does_not_depend_on_its_company(result: xr.Dataset) -> None:
    few = {"seeds": 1, "first_seed": 2, "mechanisms": ("vanilla", "sparsemax")}
    alone = NORMALIZERS.run(NormalizersConfig(**SMOKE | few), silent)
    together = result.sel(normalizer=["softmax", "sparsemax"], seed=2)
    for name in ("error", "zero_fraction", "bayes", "uniform", "mse_by_length"):
        np.testing.assert_allclose(
            alone[name].squeeze("seed"), together[name], rtol=2e-3, atol=1e-6, err_msg=name
        )


def test_what_tuning_found_is_stored_by_task_and_model() -> None:
    few = {"mechanisms": ("vanilla", "rela"), "seeds": 1, "learning_rates": (0.001, 0.3)}
    config = NormalizersConfig(**SMOKE | few)
    found = NORMALIZERS.train(config, silent)
    for cell in config.cells:
        device = torch.device(config.device)
        own = tune(cell.problem, cell.mechanisms, cell.training, config.learning_rates, device)
        at = found.sel(task=cell.name)
        np.testing.assert_array_equal(at["learning_rate"], own.rate)
        np.testing.assert_allclose(at["tuning_error"], own.variables["tuning_error"][1], rtol=1e-12)
    names = ["vanilla with a temperature", "rela", "rela with a temperature"]
    assert [strip.name for strip in strips(found)] == names


def test_one_key_alone_never_has_a_gradient() -> None:
    few = {"mechanisms": ("vanilla", "top-k"), "graph_top": 1, "seeds": 2}
    found = NORMALIZERS.train(NormalizersConfig(**SMOKE | few), silent).sel(task="graph")
    soft, top = (found.sel(normalizer=n) for n in ("softmax", "top-k"))
    assert not soft["unmoved"].any()
    assert top["unmoved"].all()
    assert (soft["dead_rows"] == 0).all()
    assert (top["dead_rows"] == 1).all()
    assert (top["stuck_rows"] > 0.5).all()
    assert (top["zero_fraction"] == 7 / 8).all()


def test_a_diverged_model_is_nan_and_leaves_the_baselines_alone() -> None:
    large = {"learning_rates": (1e38,)}
    with np.errstate(all="ignore"):
        found = NORMALIZERS.run(
            NormalizersConfig(**SMOKE | large | {"seeds": 2, "mechanisms": ("vanilla", "entmax")}),
            silent,
        )
    assert found["diverged"].any()
    assert (found["error"].isnull() == found["diverged"]).all()
    assert found["bayes"].notnull().all()
    for (task, name), test in by_cell(found, "normalizer-gain").items():
        lost = found["diverged"].sel(task=task, normalizer=name).any("temperature").sum()
        assert test.effect.seeds == 2 - int(lost)


def test_measures_of_rows_by_hand() -> None:
    rows = torch.tensor(
        [[0.5, 0.5, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0.25, 0.25, 0.25, 0.25]]
    ).double()[..., None]
    found = {k: v.item() for k, v in measure_rows(rows, None).items()}
    assert found["effective_support"] == pytest.approx(
        (2 + 1 + 4) / 3
    )  # the row without a key does not count
    assert found["largest_weight"] == pytest.approx((0.5 + 1 + 0.25) / 3)
    assert found["zero_fraction"] == pytest.approx((2 + 4 + 3 + 0) / 16)
    assert found["dead_rows"] == pytest.approx(2 / 4)
    target = torch.tensor(
        [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0.25, 0.25, 0.25, 0.25]]
    ).double()[..., None]
    found = {k: v.item() for k, v in measure_rows(rows, target).items()}
    assert found["error"] == pytest.approx((0.5 + 1 + 2 + 0) / 4)
    assert found["l1_error"] == pytest.approx((1 + 1 + 2 + 0) / 4)
    assert found["stuck_rows"] == pytest.approx(
        1 / 4
    )  # the empty row's L1 distance is 1, not above


def synthetic(seeds: int = 20) -> xr.Dataset:
    """Errors with known levels: softmax 2 without and 1 with; sparsemax 3, 1.5, 0.5 by task without,
    1.5, 1.5, 0.5 with; the others 1.25 without and 1 with; rela 2 either way. Each model and seed
    has a factor of its own.
    """
    rng = np.random.default_rng(0)
    lengths, exponents = [8, 16, 32, 64], {"sparsemax": 0.4, "entmax15": 0.55, "entmax": 0.95}
    level = np.ones((3, len(NAMES), 2, 1))
    level[:, :, 0] = 1.25
    level[:, NAMES.index("softmax"), 0] = 2.0
    sparsemax = NAMES.index("sparsemax")
    level[:, sparsemax, 0, 0], level[:, sparsemax, 1, 0] = (3.0, 1.5, 0.5), (1.5, 1.5, 0.5)
    level[:, NAMES.index("rela")] = 2.0
    shape = (3, len(NAMES), 2, seeds)
    zero, alpha = np.full(shape, 0.5), np.full(shape, np.nan)
    zero[:, NAMES.index("softmax")] = 0.0
    alpha[:, NAMES.index("entmax")] = 1.25
    growth = np.array([exponents.get(name, 1.0) for name in NAMES])
    support = np.array(lengths, dtype=float) ** growth[:, None, None, None] * np.ones(
        (len(NAMES), 2, seeds, 1)
    )
    support[..., 0] = 7.0  # within the training range, where the slope is not taken
    model = ("normalizer", "temperature", "seed")
    return xr.Dataset(
        {
            "error": (("task", *model), level * np.exp(0.01 * rng.standard_normal(shape))),
            "zero_fraction": (("task", *model), zero),
            "alpha": (("task", *model), alpha),
            "effective_support_by_length": ((*model, "length"), support),
        },
        coords={
            "task": ["graph", "retrieval", "length"],
            "normalizer": NAMES,
            "temperature": ["without", "with"],
            "length": lengths,
        },
        attrs={
            "experiment": "normalizers",
            "config": NormalizersConfig(length_train=(8, 16)).model_dump_json(),
        },
    )


def by_cell(data: xr.Dataset, topic: str) -> dict:
    return evidence.found(NORMALIZERS.claims(data), topic)


def test_every_declared_cell_is_compared() -> None:
    data = synthetic()
    paper = NORMALIZERS.preset("paper")
    assert data["task"].values.tolist() == [cell.name for cell in paper.cells]
    assert ["softmax", *paper.mechanisms[1:]] == NAMES
    assert not evidence.missing(NORMALIZERS.claims(data), "normalizers", "normalizer-gain")


def test_tests_are_log_ratios_that_favour_the_sentence() -> None:
    data = synthetic()
    substitute, gain = (by_cell(data, t) for t in ("normalizers", "normalizer-gain"))
    assert len(substitute) + len(gain) + 4 == len(NORMALIZERS.claims(data))
    wanted = {
        ("graph", "sparsemax"): (np.log(3), "benefit", np.log(2), "benefit"),
        ("retrieval", "sparsemax"): (np.log(1.5), "benefit", 0, "equivalent"),
        ("length", "sparsemax"): (np.log(0.5), "harm", 0, "equivalent"),
        ("length", "entmax15"): (np.log(1.25), "benefit", np.log(1.25), "benefit"),
        ("graph", "rela"): (np.log(2), "benefit", 0, "equivalent"),
    }
    for cell, (value, says, gained, says_of_gain) in wanted.items():
        task, name = cell
        error = data["error"].sel(task=task)
        without = error.sel(normalizer=name, temperature="without").values
        for test, better, level, outcome in (
            (substitute[cell], error.sel(normalizer="softmax", temperature="with"), value, says),
            (gain[cell], error.sel(normalizer=name, temperature="with"), gained, says_of_gain),
        ):
            logs = [np.log(w) - np.log(b) for w, b in zip(without, better.values, strict=True)]
            assert test.effect.value == pytest.approx(sum(logs) / 20), cell
            assert test.effect.value == pytest.approx(level, abs=0.02), cell
            assert (evidence.said(test), test.requested_seeds) == (outcome, 20), cell
    assert evidence.said(gain["graph", "softmax"]) == "benefit"


def test_checks_are_of_zeros_and_of_dilution() -> None:
    found = evidence.checks(NORMALIZERS.claims(synthetic()))
    wanted = {
        "zeros": (0.0, "passed"),
        "dilution-sparsemax": (0.4, "passed"),
        "dilution-entmax15": (0.55, "passed"),
        "dilution-entmax": (0.95, "failed"),
    }
    assert set(found) == {f"normalizers-{key}" for key in wanted}
    for key, (value, passed) in wanted.items():
        assert found[f"normalizers-{key}"].estimate.value == pytest.approx(value), key
        assert found[f"normalizers-{key}"].passed == passed, key
    limits = {
        k: found[f"normalizers-dilution-{k}"].parts["limit of long contexts"].value
        for k in ("sparsemax", "entmax")
    }
    assert limits == pytest.approx({"sparsemax": 0.4, "entmax": 1 / 1.375})
    softmax_grows = found["normalizers-dilution-entmax"].parts["softmax"].value
    assert softmax_grows == pytest.approx(1)
    data = synthetic()
    share = count_of_zeros(data).parts["sparsemax"].value
    assert share == pytest.approx(float(data["zero_fraction"].sel(normalizer="sparsemax").mean()))
    data["zero_fraction"].loc[{"normalizer": "softmax", "seed": data["seed"][3]}] = 0.1
    count = count_of_zeros(data)
    softmax = data["zero_fraction"].sel(normalizer="softmax", seed=data["seed"][3])
    assert (count.estimate.value, count.passed) == (softmax.size, "failed")


def count_of_zeros(data: xr.Dataset) -> Check:
    return evidence.checks(NORMALIZERS.claims(data))["normalizers-zeros"]


def test_lost_models_count_and_no_more_is_claimed_than_is_stored() -> None:
    data = synthetic()
    data["error"][0, 1, 0, :2] = np.nan
    for topic in ("normalizers", "normalizer-gain"):
        tests = by_cell(data, topic)
        lost, kept = tests["graph", "sparsemax"], tests["graph", "entmax15"]
        assert (lost.effect.seeds, evidence.said(lost)) == (18, "missing")
        assert (kept.effect.seeds, evidence.said(kept)) == (20, "benefit")
    few = NORMALIZERS.claims(synthetic().sel(normalizer=["softmax"], length=[64]))
    assert [c.id for c in few] == [
        *(f"normalizers-normalizer-gain-{t}-softmax-excess" for t in data["task"].values),
        "normalizers-zeros",
    ]
    short = NORMALIZERS.claims(synthetic().sel(length=[64]))
    assert not [c for c in short if "dilution" in c.id]


def test_figure_shows_both_temperatures_baselines_and_growth(result: xr.Dataset) -> None:
    figure = NORMALIZERS.plot(result)
    assert len(figure.axes) == 8
    upper, lower = figure.axes[:4], figure.axes[4:]
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert {"softmax", "entmax15", "rela", "open: without temperature", "uniform attention"} <= set(
        labels
    )
    for ax, task in zip(upper, ("graph", "retrieval", "length"), strict=False):
        assert ax.get_xscale() == "log"
        assert len(ax.containers) == 14
        for i, temperature in enumerate(("without", "with")):
            line = ax.containers[2 * 1 + i].lines[0]  # sparsemax
            band = result["error_band"].sel(
                task=task, normalizer="sparsemax", temperature=temperature
            )
            assert line.get_xdata()[0] == pytest.approx(float(band.sel(estimate="value")))
            assert (line.get_markerfacecolor() == "white") == (temperature == "without")
        uniform = float(result["uniform_band"].sel(task=task, estimate="value"))
        assert uniform in [
            line.get_xdata()[0] for line in ax.get_lines() if len(line.get_xdata()) == 2
        ]
    assert upper[0].get_yticklabels()[0].get_text() == "softmax"
    assert all(ax.get_ylim()[0] < 0 < 1 < ax.get_ylim()[1] for ax in lower[:3])
    for ax, name in (
        (upper[3], "mse_over_best_band"),
        (lower[3], "effective_support_by_length_band"),
    ):
        assert ax.get_xscale() == ax.get_yscale() == "log"
        wanted = result[name].sel(normalizer="entmax", temperature="without", estimate="value")
        assert any(np.array_equal(line.get_ydata(), wanted) for line in ax.get_lines())
    assert not (result["dead_rows"] == 1).any()
    assert "no gradient" not in figure.get_suptitle()
    dead = result.copy(deep=True)
    dead["dead_rows"][0, 1, 0, :2] = 1.0
    assert "; 2 models ended with no gradient in any row" in NORMALIZERS.plot(dead).get_suptitle()


def test_files_claims_and_presets(folder: Path, result: xr.Dataset) -> None:
    stored = {p.name for p in (folder / "normalizers").iterdir()}
    assert stored == {"result.nc", "claims.json", *FILES}
    lines = load_evidence("normalizers", folder).claims
    assert len(lines) == 3 * 6 + 3 * 7 + 4 == len({line.id for line in lines})
    assert all(line.requested_seeds == 4 == result.sizes["seed"] for line in lines)
    assert NORMALIZERS.preset("paper").seeds >= 64
    assert NORMALIZERS.preset("large").seeds > NORMALIZERS.preset("paper").seeds


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mechanisms": ("rela",)}, "mechanisms must be vanilla, the peer, and at least one other"),
        ({"mechanisms": ("vanilla", "vanilla")}, "mechanisms must be different and at least one"),
        ({"mechanisms": ("vanilla", "gumbel")}, "unknown mechanism 'gumbel'"),
        ({"mechanisms": ("vanilla", "ssa")}, "cannot be joined, both change query"),
        ({"retrieval_noise": (0.1, 0.0)}, "a noise level must be positive and finite, got 0.0"),
        ({"length_train": ()}, r"train_lengths must be different lengths in \[1, 8192\], got \(\)"),
        (
            {"length_test": (4, 4)},
            r"test_lengths must be different lengths in \[1, 8192\], got \(4, 4\)",
        ),
        (
            {"length_test": (4, 9000)},
            r"test_lengths must be different lengths in \[1, 8192\], got \(4, 9000\)",
        ),
        ({"length_batch": 48}, "batch_size must divide the 256 training queries"),
        ({"graph_top": 0}, "greater than or equal to 1"),
        ({"top": 3}, "Extra inputs are not permitted"),
    ],
)
def test_bad_config(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NormalizersConfig(**fields)
