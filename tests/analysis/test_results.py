"""Files appear whole or not at all, and damaged ones say so."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import analysis.store.results as results
from analysis.experiments.base import silent
from analysis.experiments.graph import GRAPH, GraphConfig
from analysis.run.blocks import made_and_stored
from analysis.run.runner import execute
from analysis.store.dependencies import code_digest
from analysis.store.files import prepare_folder, write_whole
from analysis.store.results import load, load_current, provenance, save

ROOT = Path(__file__).parents[2]
SOURCE = "0123456789abcdef"


@pytest.fixture
def dataset():
    data = xr.Dataset({"x": ("seed", [1.0, 2.0])})
    return data.assign_attrs(provenance("graph", GraphConfig(seeds=2), torch.device("cpu"), SOURCE))


def test_round_trip_and_reuse(tmp_path, dataset):
    path = tmp_path / "result.nc"
    save(dataset, path)
    again = load(path)
    assert again.identical(dataset)
    assert xr.open_dataset(path).attrs["experiment"] == "graph"
    assert json.loads(again.attrs["config"])["seeds"] == 2
    assert set(json.loads(again.attrs["versions"])) >= {"python", "torch", "numpy", "ssa-theory"}
    assert load_current(path, GraphConfig(seeds=2), SOURCE).identical(dataset)
    assert load_current(path, GraphConfig(seeds=3), SOURCE) is None
    assert load_current(tmp_path / "none.nc", GraphConfig(seeds=2), SOURCE) is None


@pytest.mark.parametrize("odd", ["0" * 16, "{}", np.arange(3)])
@pytest.mark.parametrize("part", ["config", "versions", "source"])
def test_a_result_of_other_config_versions_or_source_is_not_reused(tmp_path, dataset, part, odd):
    save(dataset.assign_attrs({part: odd}), tmp_path / "result.nc")
    assert load_current(tmp_path / "result.nc", GraphConfig(seeds=2), SOURCE) is None


def config_of_text(text):
    """Of a short run on a text, which is written."""
    text.write_text("It was the best of times, it was the worst of times.")
    small = {"seeds": 2, "steps": 2, "control_steps": 0, "dim": 4, "learning_rates": (0.05,)}
    return GraphConfig(**small, family="letters", text_file=text)


def test_a_result_of_a_file_that_has_changed_is_not_reused(tmp_path):
    text, path = tmp_path / "novel.txt", tmp_path / "result.nc"
    config = config_of_text(text)
    made_and_stored(GRAPH, config, path, lambda: GRAPH.train(config, silent))
    source = code_digest(*GRAPH.data_code())
    assert load_current(path, config, source) is not None
    text.write_text("It was the age of wisdom, it was the age of foolishness.")
    assert load_current(path, config, source) is None
    text.write_text("It was the best of times, it was the worst of times.")
    assert load_current(path, config, source) is not None
    text.unlink()
    assert load_current(path, config, source) is None


def test_a_file_that_changes_during_the_training_is_not_that_of_the_result(tmp_path):
    text, path = tmp_path / "novel.txt", tmp_path / "result.nc"
    config = config_of_text(text)

    def train():
        dataset = GRAPH.train(config, silent)
        text.write_text("It was the age of wisdom, it was the age of foolishness.")
        return dataset

    made_and_stored(GRAPH, config, path, train)
    assert load_current(path, config, code_digest(*GRAPH.data_code())) is None


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_result_is_one_clear_sentence(tmp_path, dataset, share):
    path = tmp_path / "result.nc"
    save(dataset, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        ValueError, match=r"damaged or truncated .* run the experiment again with --fresh"
    ):
        load(path)
    assert load_current(path, GraphConfig(seeds=2), SOURCE) is None


def test_missing_and_foreign_results(tmp_path, dataset):
    with pytest.raises(ValueError, match="there is no stored result at"):
        load(tmp_path / "result.nc")
    save(dataset.assign_attrs(format=3), tmp_path / "result.nc")
    with pytest.raises(
        ValueError, match=r"is of a newer result format \(3, this version reads 2\)"
    ):
        load(tmp_path / "result.nc")
    save(dataset.assign_attrs(format="x"), tmp_path / "result.nc")
    with pytest.raises(ValueError, match=r"is of no result format \(x, this version reads 2\)"):
        load(tmp_path / "result.nc")
    save(dataset.assign_attrs(format=0), tmp_path / "result.nc")
    with pytest.raises(
        ValueError, match=r"is of an older result format \(0, this version reads 2\)"
    ):
        load(tmp_path / "result.nc")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"cannot write results to .* choose a writable folder with --out"
    ):
        prepare_folder(tmp_path / "file" / "graph")


def test_the_revision_is_that_of_git_and_unknown_without_it(monkeypatch, tmp_path):
    head, dirty = results.revision.__wrapped__()
    asked = ""
    if shutil.which("git"):
        git = ["git", "rev-parse", "HEAD"]
        asked = subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert head == (asked or "unknown")
    assert dirty in (("yes", "no") if asked else ("unknown",))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert results.revision.__wrapped__() == ("unknown", "unknown")


def test_one_flipped_bit_is_noticed_and_other_readers_pass_over_the_seal(tmp_path, dataset):
    path = tmp_path / "result.nc"
    save(dataset, path)
    with xr.open_dataset(path, engine="h5netcdf") as read:
        xr.testing.assert_identical(read.load().drop_attrs(), load(path).drop_attrs())
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 40, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="is damaged or truncated"):
            load(path)
    path.write_bytes(whole)
    load(path)


def test_a_folder_in_place_of_a_result_is_refused_before_training(tmp_path):
    (tmp_path / "graph" / "result.nc").mkdir(parents=True)
    with pytest.raises(ValueError, match="there is a folder where the result belongs"):
        execute(GRAPH, GraphConfig(seeds=1, steps=1), tmp_path)
