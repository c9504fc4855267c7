"""Critical temperatures: rows by a second computation, fits by hand, and the ledger lines."""

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.special import softmax

from analysis.experiments.critical import CRITICAL, CriticalConfig
from analysis.experiments.critical.config import LAWS
from analysis.experiments.critical.train import fitted
from ssa_theory.seeds import Stream, member_generator
from ssa_theory.theory.paper.schedules import FAMILIES
from tests.analysis.evidence import checks, found, missing

SMALL = CRITICAL.preset("smoke").model_copy(update={"seeds": 3, "first_seed": 14, "device": "cpu"})


@pytest.fixture(scope="module")
def small() -> xr.Dataset:
    return CRITICAL.run(SMALL)


def test_at_the_critical_temperature_the_largest_has_its_share(small: xr.Dataset) -> None:
    """Of drawn rows; seed 16 measures the longest rows, seed 15 does not."""
    for law, of in LAWS.items():
        generator = member_generator(16, Stream.DATA)
        for n in SMALL.lengths:
            tau = small["measured"].sel(law=law, seed=16, length=n).item()
            share = softmax(tau * of.sample(n, generator)).max()
            assert share == pytest.approx(SMALL.share, rel=1e-9)
    longest = small["measured"].isel(length=-1)
    assert longest.sel(seed=15).isnull().all()
    assert longest.sel(seed=16).notnull().all()
    rows = small["trained_measured"] < 1
    assert (rows == (small["trained_largest"] > SMALL.share)).all()


def test_a_schedule_is_fitted_up_to_training_and_tested_beyond() -> None:
    n = np.array([10.0, 100.0, 1000.0, 1e5])
    beyond = np.array([1.0, 1.0, 1.0, np.nan])  # is not seen
    assert_allclose(fitted(FAMILIES["ssmax"], n, 3 * np.log(n) * beyond, 1000), 3 * np.log(n))
    ssa = fitted(FAMILIES["ssa"], n, 2 * (1 + 0.25 * np.log(n)), 1000)
    assert_allclose(ssa, 2 * (1 + 0.25 * np.log(n)))
    flat = fitted(FAMILIES["constant"], n, np.array([1.0, 2.0, 4.0, 9.0]), 1000)
    assert_allclose(flat, 2.0)  # the geometric mean


def test_every_declared_cell_is_judged_and_a_wrong_prediction_is_named(small: xr.Dataset) -> None:
    claims = CRITICAL.claims(small)
    assert missing(claims, "critical") == []
    predicted = {f"critical-predicted-{law}" for law in LAWS}
    assert {k for k, c in checks(claims).items() if c.passed != "passed"} <= predicted
    off = np.log((small["measured"] / small["predicted"]).sel(law="simplex")).mean("length")
    simplex = checks(claims)["critical-predicted-simplex"]
    assert simplex.estimate.value == pytest.approx(abs(off.mean().item()))
    assert (simplex.threshold, simplex.passed) == (pytest.approx(np.log(3)), "passed")
    ratio = small["distance"].sel(law="equal").isel(length=-2)
    test = found(claims, "critical")["equal", "root"]
    own, peer = (np.maximum(ratio.sel(mechanism=m), 0.01) for m in ("ssa-position", "root"))
    assert test.effect.value == pytest.approx(-np.log(own / peer).mean().item())
    wrong = small.copy(deep=True)
    wrong["predicted"].loc[{"law": "simplex"}] *= 4
    wrong["counted"] *= 1 + 1e-6
    wrong["trained_largest"] *= 0
    failed = {k for k, c in checks(CRITICAL.claims(wrong)).items() if c.passed == "failed"}
    assert failed == {
        "critical-predicted-simplex",
        "critical-drawn-bracket",
        "critical-trained-sharp",
    }


def test_the_figure_and_the_settings(small: xr.Dataset) -> None:
    figure = CRITICAL.plot(small)
    figure.draw_without_rendering()
    assert len(figure.axes) == 3
    assert len(figure.axes[1].texts) == len(LAWS) * small.sizes["mechanism"]
    for change, message in (
        ({"lengths": (10, 100, 1000, 500)}, "lengths must ascend"),
        ({"lengths": (10, 2000, 3000, 4000)}, "two of them up to trained_length 1000"),
        ({"mechanisms": ("vanilla", "softcap")}, "mechanism softcap needs"),
        ({"share": 0.4}, "greater than 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            CriticalConfig(**change)
