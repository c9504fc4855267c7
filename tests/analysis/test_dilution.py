"""The dilution experiment: its streaming measurement against explicit rows, its critical tau, and a
whole small run.
"""

import contextlib
from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr
from pydantic import ValidationError
from scipy.special import log_softmax
from scipy.stats import norm

from analysis.claims.registry import registry
from analysis.claims.rule import cell_of
from analysis.experiments.dilution import DILUTION, DilutionConfig
from analysis.problems.partition import stream_partition
from ssa_theory import Stream, member_generator
from ssa_theory.mechanism import MECHANISMS, Misfit
from ssa_theory.mechanism.temperature import Selective
from ssa_theory.theory import dilution as theory
from tasks.dilution import DilutionProbe
from tests.analysis.evidence import checks, found, missing, said

SMALL = {
    "seeds": 5,
    "lengths": (8, 60, 900),
    "needles": (1, 3),
    "freezing_lengths": (50, 800),
    "device": "cpu",
}


@cache
def _result() -> xr.Dataset:
    config = DilutionConfig(**SMALL)
    dataset = DILUTION.run(config, lambda description, total: lambda finished: None)
    return dataset


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("block", [1, 7, 64, 10**6])
def test_streaming_equals_the_whole_row_for_every_block_size(block: int, scale: float) -> None:
    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((90, 3)))
    tau = scale * torch.from_numpy(np.random.default_rng(1).random((4, 2, 3)))
    counts = np.array([[0, 20, 13], [90, 20, 1]])
    taken = [0]

    def draw(count: int) -> torch.Tensor:
        assert count <= max(1, block // 3)
        taken[0] += count
        return logits[taken[0] - count : taken[0]]

    log_sum, mean = stream_partition(draw, tau, counts, block)
    assert taken[0] == 90
    for i, k in np.ndindex(counts.shape):
        part = tau[:, i, None] * logits[: counts[i, k]]
        assert torch.allclose(log_sum[:, i, k], part.logsumexp(1), rtol=1e-13, atol=1e-13)
        expected = (part.softmax(1) * logits[: counts[i, k]]).sum(1)
        assert torch.allclose(mean[:, i, k], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("law", ["equal", "bounded", "gaussian"])
def test_measurements_equal_a_direct_softmax(law: str) -> None:
    data, config = _result(), DilutionConfig(**SMALL)
    tau = config.temperatures()
    for seed, m, n in ((0, 1, 900), (3, 3, 60), (4, 3, 8)):
        probe = DilutionProbe(law, m, config.gap, config.haystack.spread(law))
        logits = probe.sample(n, 1, member_generator(seed, Stream.DATA))[0]
        for name, t in zip(config.mechanisms, tau[:, config.lengths.index(n)], strict=True):
            log_p = log_softmax(t * logits)
            at = data.sel(mechanism=name, law=law, needles=m, seed=seed, length=n)
            entropy = -(np.exp(log_p) * log_p).sum()
            assert float(at["needle_mass"]) == pytest.approx(np.exp(log_p[:m]).sum(), rel=1e-11)
            assert float(at["entropy"]) == pytest.approx(entropy, abs=1e-11)
            assert float(at["effective_support"]) == pytest.approx(np.exp(entropy), rel=1e-10)
            mass = np.exp(log_p[:m]).sum()
            assert float(at["log_odds"]) == pytest.approx(
                np.log(mass) - np.log(np.exp(log_p[m:]).sum()), abs=1e-9
            )


@pytest.mark.parametrize("law", ["equal", "bounded", "gaussian"])
def test_the_measured_critical_temperature_is_the_first_crossing_of_the_sampled_row(
    law: str,
) -> None:
    data, config, found = _result(), DilutionConfig(**SMALL), []
    for seed in range(5):
        for m in config.needles:
            row = DilutionProbe(law, m, config.gap, config.haystack.spread(law))
            logits = row.sample(900, 1, member_generator(seed, Stream.DATA))[0]
            critical = float(
                data["critical_inverse_temperature"].sel(law=law, needles=m, seed=seed, length=900)
            )
            found.append(critical)
            grid = np.linspace(0, min(critical, 50.0), 301)[:-1]
            mass = np.exp(log_softmax(grid[:, None] * logits, axis=1))[:, :m].sum(1)
            assert (mass < 0.5).all()
            if np.isfinite(critical):
                reached = np.exp(log_softmax(critical * logits))[:m].sum()
                assert reached == pytest.approx(0.5, abs=1e-9)
    assert np.isfinite(found).any()


def test_one_needle_can_be_saved_exactly_where_no_gaussian_distractor_is_above_it() -> None:
    config = DilutionConfig(
        **SMALL
        | {"seeds": 200, "lengths": (300,), "needles": (1,), "gap": 2.8, "mechanisms": ("vanilla",)}
    )
    data = DILUTION.run(config, lambda description, total: lambda finished: None)
    critical = data["critical_inverse_temperature"].sel(law="gaussian").values.ravel()
    probe = DilutionProbe("gaussian", 1, 2.8, 1.0)
    largest = np.array(
        [probe.distractors(299, member_generator(s, Stream.DATA)).max() for s in range(200)]
    )
    assert (np.isfinite(critical) == (largest < 2.8)).all()
    share = norm.cdf(2.8) ** 299
    assert 0.2 < share < 0.8
    assert not np.isnan(critical).any()
    assert abs(np.isfinite(critical).mean() - share) < 4 * np.sqrt(share * (1 - share) / 200)


def test_the_result_has_the_promised_variables_and_theory() -> None:
    data = _result()
    assert data["needle_mass"].dims == ("mechanism", "law", "needles", "seed", "length")
    assert data["needle_mass_theory"].dims == ("mechanism", "law", "needles", "length")
    assert data["needle_mass_bound"].dims == ("bound", "mechanism", "needles", "length")
    assert data["critical_inverse_temperature"].dims == ("law", "needles", "seed", "length")
    assert data["log_partition"].dims == ("scaled_tau", "freezing_length", "seed")
    for name in data:
        if not name.startswith("critical"):
            assert np.isfinite(data[name]).all(), name
    equal = data.sel(law="equal")
    assert abs(equal["needle_mass"] - equal["needle_mass_theory"]).max() < 1e-12
    assert abs(equal["entropy"] - equal["entropy_theory"]).max() < 1e-10
    assert float(data["needle_mass"].sel(law="gaussian").std("seed").max()) > 1e-3
    # The closed forms are the stored theory, in the right places.
    at = data.sel(mechanism="ssa-position", needles=3, length=900)
    tau = 1 + 0.5 * np.log(900)
    assert float(at["inverse_temperature"]) == pytest.approx(tau)
    assert float(at["needle_mass_rem"]) == pytest.approx(
        float(theory.gaussian_needle_mass(900, tau, 3, 4.0, 1.0))
    )
    row = theory.expected_row("uniform", 1.0, 897, tau, 3, 4.0)
    assert float(at["needle_mass_theory"].sel(law="bounded")) == pytest.approx(
        row.needle_mass, rel=1e-12
    )
    critical = data["critical_inverse_temperature_theory"].sel(
        law="gaussian", needles=3, length=900
    )
    assert (critical == theory.gaussian_critical_inverse_temperature(900, 0.5, 3, 4.0, 1.0)).all()


def test_mean_mass_agrees_with_its_expectation_over_many_seeds() -> None:
    config = DilutionConfig(
        **SMALL
        | {
            "seeds": 400,
            "lengths": (20, 400),
            "mechanisms": ("vanilla", "ssa-position", "yarn"),
            "critical_length": 2,
        }
    )
    data = DILUTION.run(config, lambda description, total: lambda finished: None)
    error = np.maximum(data["needle_mass_deviation"], 1e-7 * data["needle_mass_theory"]) / np.sqrt(
        400
    )
    score = (data["needle_mass"].mean("seed") - data["needle_mass_theory"]) / error
    assert float(abs(score.drop_sel(law="equal")).max()) < 4.5
    spread = (data["entropy"].mean("seed") - data["entropy_theory"]) / (
        data["entropy"].std("seed") / 20 + 1e-12
    )
    assert float(abs(spread.drop_sel(law="equal")).max()) < 4.5
    assert data["critical_inverse_temperature"].isnull().all()


def test_a_seed_does_not_depend_on_its_neighbours() -> None:
    alone = DILUTION.run(
        DilutionConfig(**SMALL | {"seeds": 1, "first_seed": 3}),
        lambda description, total: lambda n: None,
    )
    for name in ("needle_mass", "entropy", "log_partition"):
        assert np.allclose(
            alone[name].sel(seed=3), _result()[name].sel(seed=3), rtol=1e-12, atol=1e-12
        )
    assert not np.allclose(
        alone["log_partition"].sel(seed=3), _result()["log_partition"].sel(seed=2), rtol=1e-6
    )


def test_checks_are_computed_and_a_wrong_result_fails_them() -> None:
    passed = {key: check.passed for key, check in checks(DILUTION.claims(_result())).items()}
    passed.pop("dilution-liquid")  # 800 distractors are too few
    exact = ("exact-equal", "exact-bounded", "exact-gaussian", "log-partition")
    others = ("bounds", "critical-equal", "critical-bounded", "rem-bound", "freezing")
    every = (*exact, *others, "diluted-vanilla")
    assert passed == {f"dilution-{name}": "passed" for name in every}
    broken = _result().copy(deep=True)
    broken["needle_mass"] = broken["needle_mass"] * 0.9
    broken["log_partition"] = broken["log_partition"] + 1
    failed = checks(DILUTION.claims(broken))
    assert {failed[f"dilution-{name}"].passed for name in exact} == {"failed"}
    kept = _result().copy(deep=True)
    kept["needle_mass"].loc[{"mechanism": "vanilla", "law": "equal", "needles": 3}] = 0.6
    assert checks(DILUTION.claims(kept))["dilution-diluted-vanilla"].passed == "failed"


@cache
def _paper() -> xr.Dataset:
    """A result with the paper preset's mechanisms, laws, needles and longest context, in which the
    needles' mass is known: of SSA .55 among equal and .3 among other distractors, of the others .6;
    each seed has a factor of its own.
    """
    config = DILUTION.preset("paper")
    few = {"seeds": 8, "lengths": (10, 32), "freezing_lengths": (10,), "critical_length": 2}
    small = config.model_copy(update=few)
    data = DILUTION.run(small, lambda description, total: lambda finished: None)
    data = data.assign_coords(length=[*data["length"].values[:-1], config.lengths[-1]])
    level = xr.full_like(data["needle_mass"], 0.6)
    level.loc[{"mechanism": "ssa-position"}] = 0.3
    level.loc[{"mechanism": "ssa-position", "law": "equal"}] = 0.55
    noise = 0.01 * np.random.default_rng(0).standard_normal(level.shape)
    known = data.assign(needle_mass=level * np.exp(noise))
    return known.assign_attrs(config=config.model_dump_json())


def test_every_declared_cell_is_compared() -> None:
    assert DILUTION.preset("paper").lengths[-1] == 1_000_000
    assert not missing(DILUTION.claims(_paper()), "dilution", "other-schedules")


def test_tests_are_log_ratios_to_a_half() -> None:
    lines, data = DILUTION.claims(_paper()), _paper().isel(length=-1)
    keeps, others = found(lines, "dilution"), found(lines, "other-schedules")
    for (mechanism, law, m), test, wanted in (
        (("ssa-position", "equal", 1), keeps["equal", "1"], "benefit"),
        (("ssa-position", "gaussian", 4), keeps["gaussian", "4"], "harm"),
        (("yarn", "bounded", 4), others["yarn", "bounded", "4"], "benefit"),
    ):
        mass = data["needle_mass"].sel(mechanism=mechanism, law=law, needles=m).values
        logs = [float(np.log(x) - np.log(0.5)) for x in mass]
        assert test.effect.value == pytest.approx(sum(logs) / 8)
        assert (said(test), test.effect.seeds) == (wanted, 8)
    assert len(keeps) + len(others) == 6 + 30


def test_a_shorter_context_is_another_cell_and_its_log_odds_grow_as_in_the_closed_form() -> None:
    test = found(DILUTION.claims(_result()), "dilution")["equal", "1 of 900"]
    assert cell_of(registry().topics["dilution"], test) is None
    growth = 0.5 * 4 * np.log(900 / 60) / np.log(899 / 59) - 1  # sigmoid(0) g log n
    assert test.parts["slope of log-odds in log(n - m)"].value == pytest.approx(growth)


def test_distractors_above_the_needle_break_no_check() -> None:
    """With B > g the sufficient tau is infinite, and so may be the measured one."""
    config = DilutionConfig(**SMALL | {"bound": 6.0, "mechanisms": ("vanilla",)})
    data = DILUTION.run(config, lambda description, total: lambda finished: None)
    assert np.isinf(data["critical_inverse_temperature"].sel(law="bounded", length=900)).any()
    assert checks(DILUTION.claims(data))["dilution-critical-bounded"].passed == "passed"
    DILUTION.plot(data).draw_without_rendering()


def test_the_figure_shows_every_panel() -> None:
    figure = DILUTION.plot(_result())
    figure.draw_without_rendering()
    assert [bool(ax.get_title()) for ax in figure.axes] == [True] * 6
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == list(_result()["mechanism"].values)
    assert all(ax.lines for ax in figure.axes)


@pytest.mark.parametrize("name", ["smoke", "paper", "large"])
def test_presets_are_valid(name: str) -> None:
    config = DILUTION.preset(name)
    assert config.seeds >= (4 if name == "smoke" else 64)
    assert config.temperatures().shape == (7, len(config.lengths))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mechanisms": ("ssa", "ssa")}, "mechanisms must be different and at least one"),
        ({"needles": ()}, "needles must be different and at least one"),
        ({"lengths": (100, 10)}, "lengths must ascend and lie in"),
        ({"freezing_lengths": (1, 10)}, "freezing_lengths must ascend and lie in"),
        ({"lengths": (3, 10)}, "fewer than the shortest length 3"),
        ({"needles": (0,)}, "needles must be at least 1"),
        ({"gap": 0.0}, "greater than 0"),
        ({"dtype": "float64"}, "dtype"),
        ({"mechanisms": ("vanilla", "sparsemax")}, "sparsemax needs more than a query temperature"),
        ({"mechanisms": ("ssa-free",)}, "ssa-free needs the token of every query token"),
        ({"mechanisms": ("sssmax",)}, "did you mean ssmax"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_bad_settings_are_refused_with_the_rule(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DilutionConfig(**change)


def test_a_temperature_beyond_the_quadrature_is_refused_before_measuring() -> None:
    config = DilutionConfig(**SMALL | {"mechanisms": ("power",), "power_exponent": 1.0})
    with pytest.raises(ValueError, match="tau \\* spread <= 300, got 900"):
        DILUTION.run(config, lambda description, total: lambda finished: None)


def test_any_mechanism_with_a_query_temperature_runs() -> None:
    """All of the registry that the rows can wear, each with its claims and in the figure."""
    probe = DilutionConfig(**SMALL).haystack
    worn = []
    for name, one in MECHANISMS.items():
        with contextlib.suppress(Misfit):
            probe.layer(one)
            worn.append(name)
    assert {"vanilla", "scaled", "ssa", "ssa-query", "ssmax"} <= set(worn)
    assert not {"sparsemax", "ssa-key", "softcap", "sink", "ssa-free"} & set(worn)
    config = DilutionConfig(**SMALL | {"seeds": 2, "lengths": (8, 60), "mechanisms": worn})
    data = DILUTION.run(config)
    assert data["mechanism"].values.tolist() == worn
    same = (
        data["needle_mass"].sel(mechanism="ssa"),
        data["needle_mass"].sel(mechanism="ssa-position"),
    )
    assert (same[0] == same[1]).all()
    lines = DILUTION.claims(data)
    tested = {at[0] for at in found(lines, "other-schedules")}
    diluted = {key.removeprefix("dilution-diluted-") for key in checks(lines) if "diluted" in key}
    assert {"ssmax", "yarn", "power"} <= tested
    assert {"vanilla", "scaled"} <= diluted
    selective = {name for name in worn if isinstance(MECHANISMS[name].query, Selective)}
    assert tested | diluted | selective == set(worn)
    assert set(found(lines, "dilution")) == {
        (str(law), f"{m} of 60") for law in data["law"].values for m in (1, 3)
    }
    DILUTION.plot(data).draw_without_rendering()
