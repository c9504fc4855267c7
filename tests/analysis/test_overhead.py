"""The overhead experiment: its counts, its claims from known counts, its figure, and settings that
it would ignore.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError

from analysis.claims.statistics import EXACT
from analysis.experiments.base import silent
from analysis.experiments.overhead import FORMS, LIMIT, OVERHEAD, OverheadConfig, own_mlps
from analysis.run.runner import execute
from ssa_theory.parameters import ARCHITECTURES, added_parameters
from tests.analysis.evidence import checks, found, missing, outcomes, said


@cache
def _result() -> xr.Dataset:
    config = OVERHEAD.preset("paper")
    dataset = OVERHEAD.run(config, silent)
    return dataset


def test_counts_by_model_and_form() -> None:
    data = _result()
    assert data["percent"].dims == ("model", "form")
    assert data["hidden_width"].sel(model="GPT-2 124M").values.tolist() == [0, 16, 64]
    gpt = data.sel(model="GPT-2 124M")
    assert gpt["added_parameters"].values.tolist() == [18_720, 300_480, 1_200_192]
    assert float(gpt["percent"].sel(form="shared")) == pytest.approx(
        100 * 18_720 / 124_439_808, rel=1e-14
    )
    fits = data["heads"] == data["kv_heads"]
    assert fits.values.tolist() == [True] * 4 + [False]
    assert (data["added_by_layer"].notnull().all("form") == fits).all()
    assert (data["added_by_layer"] == data["added_parameters"]).where(fits, True).all()
    assert all(data[name].attrs["description"] for name in data)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_largest_width_is_the_last_within_the_limit(name: str) -> None:
    architecture, one = ARCHITECTURES[name], _result().sel(model=name)
    widest, total = int(one["largest_width"]), int(one["parameters"])
    within, beyond = (added_parameters(architecture, own_mlps(w)) for w in (widest, widest + 1))
    assert 1 < widest < 1000
    assert 100 * within / total <= LIMIT < 100 * beyond / total
    direct = [100 * added_parameters(architecture, own_mlps(int(w))) / total for w in one["width"]]
    np.testing.assert_allclose(one["percent_by_width"], direct, rtol=1e-14)


def test_another_width_changes_only_the_own_mlp() -> None:
    wider = OVERHEAD.run(OverheadConfig(width=32), silent)
    assert (wider["percent"].sel(form="unshared") > _result()["percent"].sel(form="unshared")).all()
    same = ["shared", "head-wide"]
    assert (
        wider["added_parameters"].sel(form=same) == _result()["added_parameters"].sel(form=same)
    ).all()


def test_tests_are_exact_counts() -> None:
    claims = OVERHEAD.claims(_result())
    tests = found(claims, "overhead")
    assert len(tests) == 3 * 5 == len(claims) - 1
    assert missing(claims, "overhead") == []
    for test in tests.values():
        assert test.effect.low == test.effect.value == test.effect.high
        assert test.effect.method == EXACT
    percent = 100 * 165_120 / 8_030_261_248
    llama = tests["Llama-3-8B", "shared weights"]
    assert llama.effect.value == pytest.approx(np.log(0.5 / percent))
    assert "165,120 added to 8,030,261,248" in llama.statistic
    for forms, says in (
        ("shared weights", "benefit"),
        ("MLPs of 16 units", "benefit"),
        ("MLPs as wide as a head", "harm"),
    ):
        assert said(tests["GPT-2 124M", forms]) == says


def test_claims_follow_the_counts() -> None:
    changed = _result().copy(deep=True)
    changed["percent"][:] = LIMIT
    changed["added_by_layer"][0, 0] += 1
    claims = OVERHEAD.claims(changed)
    assert set(outcomes(claims).values()) == {"equivalent"}
    assert checks(claims)["overhead-formula"].passed == "failed"
    assert checks(OVERHEAD.claims(_result()))["overhead-formula"].passed == "passed"


def test_the_figure_shows_every_count_and_the_limit() -> None:
    left, right = OVERHEAD.plot(_result()).axes
    for form, line in zip(FORMS, left.get_lines(), strict=False):
        np.testing.assert_array_equal(line.get_xdata(), _result()["percent"].sel(form=form))
    assert left.get_xscale() == right.get_yscale() == "log"
    assert [line.get_label().split(":")[0] for line in right.get_lines()[:5]] == list(ARCHITECTURES)
    assert len({(line.get_linestyle(), line.get_color()) for line in right.get_lines()[:5]}) == 5
    assert (
        left.get_lines()[len(FORMS)].get_xdata()[0] == right.get_lines()[5].get_ydata()[0] == LIMIT
    )


def test_the_experiment_runs_end_to_end(tmp_path: Path, quick_figures: None) -> None:
    dataset, lines, trained = execute(OVERHEAD, OVERHEAD.preset("smoke"), tmp_path)
    assert trained
    again, same, trained = execute(OVERHEAD, OVERHEAD.preset("smoke"), tmp_path)
    assert not trained
    assert again.identical(dataset)
    assert same == lines


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": 1},
        {"first_seed": 0},
        {"device": "cpu"},
        {"dtype": "float64"},
        {"compile": "on"},
        {"width": 0},
    ],
)
def test_settings_that_would_be_ignored_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        OverheadConfig(**change)
