"""The phase experiment: cells against single trainings, blocks, tests against enumeration, claims
from known maps, figure.
"""

from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure
from pydantic import ValidationError
from scipy import stats

from analysis.claims.claim import Claim
from analysis.claims.statistics import sign_flip_tests
from analysis.experiments.base import silent
from analysis.experiments.phase import PHASE, PhaseConfig
from analysis.experiments.phase.train import ALL
from analysis.problems import GraphProblem, Training, train_all
from analysis.run.runner import execute
from ssa_theory.mechanism import MECHANISMS

TINY = {
    "seeds": 3,
    "nodes": 4,
    "families": ("graded", "erdos-renyi"),
    "dims": (2, 4),
    "similarities": (0.0, 0.7),
    "steps": (1, 5, 20),
    "device": "cpu",
}
MEASURED = ("l1_error", "cross_entropy_gap", "diverged")


@cache
def _result() -> xr.Dataset:
    return PHASE.run(PhaseConfig(**TINY), silent)


@pytest.mark.parametrize(
    ("mechanism", "dim", "family", "similarity", "seed"),
    [
        ("vanilla", 2, "graded", 0.7, 1),
        ("ssa", 4, "erdos-renyi", 0.0, 2),
        ("ssa-free", 2, "erdos-renyi", 0.7, 0),
        ("ssa", 2, "graded", 0.0, 2),
    ],
)
def test_a_cell_is_a_training_of_its_own(
    mechanism: str, dim: int, family: str, similarity: float, seed: int
) -> None:
    problem = GraphProblem(family=family, nodes=4, dim=dim, similarity=similarity)
    alone = train_all(
        problem,
        [MECHANISMS[mechanism]],
        [seed],
        Training(20, 0.05),
        torch.device("cpu"),
        record=(1, 5, 20),
    ).squeeze()
    cell = _result().sel(
        mechanism=mechanism, dim=dim, family=family, similarity=similarity, seed=seed
    )
    gap, gap_alone = cell["cross_entropy_gap"], alone["cross_entropy_gap"]
    np.testing.assert_allclose(cell["l1_error"], alone["l1_by_step"], rtol=2e-5)
    np.testing.assert_allclose(gap, gap_alone, rtol=2e-5, atol=1e-6)
    assert cell["l1_error"].std() > 1e-3


def test_the_cells_of_a_seed_differ() -> None:
    last = _result()["l1_error"].isel(step=-1)
    assert len(np.unique(last.values.round(9))) == last.size


@pytest.mark.parametrize("seeds", [1, 2])
def test_results_do_not_depend_on_the_block(seeds: int) -> None:
    config = PhaseConfig(**TINY, block_seeds=seeds)
    assert [s for part in PHASE.blocks(config) for s in part.seed_range] == list(config.seed_range)
    assert len(PHASE.blocks(config)) == {1: 3, 2: 2}[seeds]
    other = PHASE.run(config, silent)
    for name in MEASURED:
        xr.testing.assert_allclose(other[name], _result()[name], rtol=1e-4, atol=1e-6)
    assert other["l1_error"].dims == ("mechanism", "dim", "similarity", "step", "family", "seed")


def test_a_block_needs_no_more_than_the_config_and_its_seeds() -> None:
    alone = PHASE.train(PhaseConfig(**TINY | {"seeds": 1, "first_seed": 1}), silent)
    assert alone["seed"].values.tolist() == [1]
    for name in MEASURED:
        xr.testing.assert_allclose(alone[name], _result()[name].sel(seed=[1]), rtol=1e-4, atol=1e-6)


def test_progress_ends_at_its_total() -> None:
    heard = {}

    def progress(description: str, total: int):
        heard.update(total=total, done=0, description=description)
        return lambda finished: heard.update(done=heard["done"] + finished)

    PHASE.run(PhaseConfig(**TINY | {"steps": (3,)}), progress)
    assert heard["done"] == heard["total"] == 3 * 2 * 3
    assert "72 models" in heard["description"]


def test_the_result_counts_its_models_and_tests_every_cell() -> None:
    data = _result()
    assert int(data["models"]) == 3 * 2 * 2 * 2 * 3 == data["diverged"].size
    assert data["difference"].dims == ("measure", "selective", "map", "step", "similarity", "dim")
    by_hand = data["l1_error"].sel(mechanism="ssa") - data["l1_error"].sel(mechanism="vanilla")
    at = {"dim": 4, "similarity": 0.7, "step": 20}
    shown = data["difference"].sel(measure="l1_error", selective="ssa", **at)
    assert float(shown.sel(map="graded")) == pytest.approx(
        float(by_hand.sel(family="graded", **at).mean())
    )
    assert float(shown.sel(map=ALL)) == pytest.approx(float(by_hand.sel(**at).mean()))
    gap = data["cross_entropy_gap"].sel(family="graded", **at).mean("seed")
    shown = data["difference"].sel(
        measure="cross_entropy_gap", selective="ssa-free", map="graded", **at
    )
    assert float(shown) == pytest.approx(
        float(gap.sel(mechanism="ssa-free") - gap.sel(mechanism="vanilla"))
    )
    assert not data["significant"].any()  # three seeds have eight sign patterns
    np.testing.assert_allclose(
        data["adjusted_p_value"].values.ravel(),
        stats.false_discovery_control(data["p_value"].values.ravel()),
    )
    assert all(data[name].attrs["description"] for name in data)


def test_diverged_models_are_counted_and_left_out() -> None:
    with np.errstate(all="ignore"):
        data = PHASE.run(PhaseConfig(**TINY | {"learning_rate": 1e38}), silent)
    assert data["diverged"].any()
    assert (data["l1_error"].isnull().all("step") == data["diverged"]).all()
    assert (data["p_value"] <= 1).all()
    for line in PHASE.claims(_stored(data, PhaseConfig(**TINY))):
        assert line.verdict in ("supported", "not supported", "inconclusive")


# The tests of the cells


def _enumerated(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The exact p-values, over all sign patterns."""
    n = difference.shape[1]
    flipped = np.array(list(product([1.0, -1.0], repeat=n)))[:, None, :] * difference
    t = np.abs(stats.ttest_1samp(flipped, 0, axis=2).statistic)
    observed = t[0] * (1 - 1e-9)
    return (t >= observed).mean(0), (t.max(1, keepdims=True) >= observed).mean(0)


def test_sign_flips_agree_with_enumeration() -> None:
    generator = np.random.default_rng(3)
    difference = generator.standard_normal((5, 10)) * np.array([[0.1], [1], [1], [2], [5]])
    difference += np.array([[0.0], [0.4], [0.9], [-3.0], [1.0]])
    exact, found = _enumerated(difference), sign_flip_tests(difference)
    for p, q in zip(found, exact, strict=True):
        assert np.ptp(q) > 0.3
        assert (abs(p - q) < 5 * np.sqrt(q * (1 - q) / 9999) + 2e-4).all()
    assert (found[1] >= found[0]).all()
    scipy = stats.permutation_test(
        (difference[1],),
        lambda x, axis: x.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=10**5,
    )
    assert scipy.pvalue == pytest.approx(exact[0][1])


def test_degenerate_cells_are_never_significant() -> None:
    difference = np.zeros((4, 12))
    difference[1] = np.nan
    difference[2, 0] = 1.0
    difference[3] = 0.2  # constant: infinitely many standard errors from zero
    alone, together = sign_flip_tests(difference)
    np.testing.assert_array_equal(alone[:3], 1)
    np.testing.assert_array_equal(together[:3], 1)
    assert alone[3] == together[3] < 0.01
    np.testing.assert_array_equal(sign_flip_tests(np.array([[0.3], [-2.0]])), 1)


def test_a_missing_seed_is_left_out() -> None:
    difference = np.random.default_rng(1).normal(0.3, 1, (1, 12))
    with_hole = np.concatenate([difference, np.full((1, 1), np.nan)], 1)
    alone, together = sign_flip_tests(with_hole)
    np.testing.assert_array_equal(alone, together)
    exact = _enumerated(difference)[0]
    assert 0.01 < exact[0] < 0.5
    assert abs(alone - exact)[0] < 5 * np.sqrt(exact * (1 - exact) / 9999)[0]


def test_false_alarms_are_as_rare_as_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.claims.statistics.SIGN_FLIPS", 199)
    generator = np.random.default_rng(5)
    alone, together = [], []
    for _ in range(400):
        common = generator.standard_normal((1, 20))
        found = sign_flip_tests(common + generator.standard_normal((6, 20)))
        alone.append(found[0][0] <= 0.05)
        together.append((found[1] <= 0.05).any())
    error = 4 * np.sqrt(0.05 * 0.95 / 400)
    assert 0.05 - error < np.mean(alone) < 0.05 + error
    assert 0.05 - error < np.mean(together) < 0.05 + error


# Claims and figure, from maps that are known


def _stored(dataset: xr.Dataset, config: PhaseConfig) -> xr.Dataset:
    return dataset.assign_attrs(config=config.model_dump_json(), experiment="phase")


def _known(
    gain: dict[str, float], full_rank: float = 0.0, seeds: int = 32, spread: float = 0.02
) -> xr.Dataset:
    """A result in which ssa lowers the L1 error by a known gain a family; at d = K it changes it by
    `full_rank`.
    """
    config = PhaseConfig(
        seeds=seeds,
        families=tuple(gain),
        dims=(2, 4, 8),
        similarities=(0.0, 0.9),
        steps=(50, 200, 1000),
        mechanisms=("vanilla", "ssa"),
    )
    generator = np.random.default_rng(
        1
    )  # noise in which no cell without a difference stands family-wise
    dims = ("mechanism", "dim", "similarity", "step", "family", "seed")
    error = xr.DataArray(
        np.broadcast_to(
            1 + 0.1 * generator.standard_normal(seeds), (2, 3, 2, 3, len(gain), seeds)
        ).copy(),
        dims=dims,
        coords={
            "mechanism": list(config.mechanisms),
            "dim": list(config.dims),
            "similarity": list(config.similarities),
            "step": list(config.steps),
            "family": list(config.families),
            "seed": list(config.seed_range),
        },
    )
    effect = -xr.DataArray(list(gain.values()), dims="family", coords={"family": list(gain)}) * (
        error.dim < 8
    )
    step = xr.DataArray([0.8, 1.0, 1.2], dims="step", coords={"step": list(config.steps)})
    effect = (
        effect * (1 + (error.similarity > 0)) * step + full_rank * (error.dim == 8) * step / 1.2
    )
    noise = spread * generator.standard_normal(error.isel(mechanism=1).shape)
    error[1] = error[1] + effect + noise
    data = xr.Dataset(
        {
            "l1_error": error,
            "cross_entropy_gap": error,
            "diverged": (error.isel(step=0, drop=True)).isnull(),
        }
    )
    return _stored(PHASE.summarise(config, data, silent), config)


def _by_id(dataset: xr.Dataset) -> dict[str, Claim]:
    lines = PHASE.claims(dataset)
    found = {c.id: c for c in lines}
    assert len(found) == len(lines)
    return found


def test_claims_find_the_known_gains() -> None:
    found = _by_id(_known({"graded": 0.4, "erdos-renyi": -0.1}, full_rank=0.05))
    assert set(found) == {
        "phase-l1-graded-ssa",
        "phase-l1-erdos-renyi-ssa",
        "phase-full-rank-ssa",
        "phase-similarity-ssa",
        "phase-better-ssa",
        "phase-worse-ssa",
    }
    graded = found["phase-l1-graded-ssa"]
    assert graded.estimate.value == pytest.approx(-0.4, abs=0.02)
    assert (graded.verdict, graded.relation, graded.threshold) == ("supported", "<", 0)
    assert found["phase-l1-erdos-renyi-ssa"].verdict == "not supported"
    assert found["phase-full-rank-ssa"].estimate.value == pytest.approx(0.05, abs=0.005)
    assert found["phase-full-rank-ssa"].verdict == "not supported"
    # The gain, 0.15 a family on average, is twice as large at similarity 0.9.
    assert found["phase-similarity-ssa"].estimate.value == pytest.approx(0.15, abs=0.02)
    assert found["phase-similarity-ssa"].verdict == "supported"
    # Of 36 cells, graded is better in 2 of 3 dimensions; everything else is worse; all are far
    # beyond chance.
    better, worse = found["phase-better-ssa"], found["phase-worse-ssa"]
    assert (better.estimate.value, better.estimate.low, better.estimate.high) == pytest.approx(
        (1 / 3,) * 3
    )
    assert (worse.estimate.value, worse.threshold, worse.relation) == (
        pytest.approx(2 / 3),
        0.05,
        "<",
    )
    assert better.verdict == worse.verdict == "not supported"
    assert better.p_value is None


def test_shares_count_what_is_certain_and_what_is_open() -> None:
    found = _by_id(_known({"graded": 0.4, "erdos-renyi": 0.3}))
    better, worse = (found[f"phase-{key}-ssa"].estimate for key in ("better", "worse"))
    assert 2 / 3 <= better.value < 0.75
    assert 2 / 3 <= better.low < 0.75
    assert better.high > 0.95  # at d = K nothing is known
    assert worse.low == 0
    assert worse.high == pytest.approx(1 - better.low)
    assert found["phase-better-ssa"].verdict == "supported"
    assert found["phase-worse-ssa"].verdict == "inconclusive"
    assert found["phase-full-rank-ssa"].verdict == "inconclusive"


def test_claims_without_numbers_are_inconclusive() -> None:
    known = _known({"graded": 0.4}, seeds=20)
    known["l1_error"] = known["l1_error"] * np.nan
    found = _by_id(known)
    for key in ("l1-graded", "full-rank", "similarity"):
        assert found[f"phase-{key}-ssa"].verdict == "inconclusive"
        assert found[f"phase-{key}-ssa"].estimate.seeds == 0


def test_claims_need_their_cells() -> None:
    whole = _known({"graded": 0.4})
    part = _by_id(whole.isel(dim=[0], similarity=[0]))
    assert set(part) == {"phase-better-ssa", "phase-worse-ssa"}


def _hatched(figure: Figure, column: int) -> int:
    return sum(bool(p.get_hatch()) for ax in _panels(figure)[:, column] for p in ax.patches)


def _panels(figure: Figure) -> np.ndarray:
    maps = [ax for ax in figure.axes if ax.images]
    return np.array(maps).reshape(3, -1)


def test_the_figure_marks_who_wins_without_colour() -> None:
    known = _known({"graded": 0.4, "erdos-renyi": -0.2})
    figure = PHASE.plot(known)
    panels = _panels(figure)
    assert panels.shape == (3, 4)  # L1 and cross-entropy over all families, then two families
    graded, other = panels[1, 2], panels[1, 3]
    assert graded.get_title() == ""
    assert panels[0, 2].get_title().startswith("graded")
    cells = known.sel(measure="l1_error", selective="ssa", map="erdos-renyi", step=200)
    np.testing.assert_array_equal(other.images[0].get_array(), cells["difference"].values)
    assert [t.get_text() for t in graded.texts[:2]] == ["-.40", "-.40"]
    expected = [f"{v:+.2f}".replace("0", "", 1) for v in cells["difference"].values[0, :2]]
    assert [t.get_text() for t in other.texts[:2]] == expected
    framed = [p for p in other.patches if not p.get_hatch()]
    assert len(framed) == int((cells["significant"] & (cells["difference"] > 0)).sum()) >= 4
    for column, name in ((2, "graded"), (3, "erdos-renyi")):
        open_cells = ~known["significant"].sel(measure="l1_error", selective="ssa", map=name)
        assert _hatched(figure, column) == int(open_cells.sum()) > 0
    assert "768 trained models" in figure.get_suptitle()
    assert figure.get_size_inches()[0] <= 14
    assert figure.get_size_inches()[1] <= 8


def test_the_colours_are_centred_at_zero() -> None:
    norm = _panels(PHASE.plot(_known({"graded": 0.4})))[0, 0].images[0].norm
    assert norm(0.0) == 0.5
    np.testing.assert_allclose(norm(0.1) - 0.5, 0.5 - norm(-0.1))
    assert norm.vmax == -norm.vmin


def test_the_experiment_runs_end_to_end(tmp_path: Path, quick_figures: None) -> None:
    config = PHASE.preset("smoke").model_copy(update={"steps": (5, 10), "similarities": (0.0,)})
    dataset, lines, trained = execute(PHASE, config, tmp_path)
    assert trained
    assert int(dataset["models"]) == config.models == 4 * 5 * 2 * 3
    assert len(lines) == 2 * (5 + 1 + 2)


def test_presets_train_as_many_models_as_promised() -> None:
    assert PHASE.preset("paper").models >= 20_000
    assert PHASE.preset("paper").seeds >= 64
    assert PHASE.preset("large").models >= 1_000_000
    assert PHASE.preset("smoke").seeds == 4


def test_the_million_models_are_cut_into_blocks_on_every_machine(machine) -> None:
    """To be shared out and gone on with; each is a minute or so of work, of a multiple of 64 seeds."""
    blocks = PHASE.blocks(PHASE.preset("large"))
    assert len(blocks) == {2**18: 54, 2**23: 27, 2**30: 27}[machine.l2]
    assert {part.seeds % 64 for part in blocks[:-1]} == {0}


def test_the_million_models_are_cut_into_blocks_on_a_large_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda device: SimpleNamespace(total_memory=140 * 2**30),
    )
    assert len(PHASE.blocks(PHASE.preset("large").model_copy(update={"device": "cuda"}))) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": (4, 2)}, r"dims must ascend and lie in \[1, 64\], got \(4, 2\)"),
        ({"dims": ()}, "dims must ascend"),
        ({"similarities": (0.0, 1.5)}, r"similarities must ascend and lie in \[0, 1\]"),
        ({"steps": (5, 5)}, "steps must ascend"),
        ({"steps": (0, 5)}, r"steps must ascend and lie in \[1, "),
        ({"families": ("graded", "graded")}, "families must be different and at least one"),
        (
            {"mechanisms": ("vanilla",)},
            "mechanisms must be vanilla, the peer, and at least one other",
        ),
        ({"mechanisms": ("vanilla", "ssa-position")}, "mechanism ssa-position needs queries that"),
        ({"mechanisms": ("vanilla", "ssa", "ssa")}, "mechanisms must be different"),
        ({"families": ("karate-club",)}, "families"),
        ({"nodes": 3}, "greater than or equal to 4"),
        ({"surprise": 1}, "Extra inputs are not permitted"),
    ],
)
def test_bad_settings_are_refused_with_the_rule(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PhaseConfig(**change)
