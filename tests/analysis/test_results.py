"""Files appear whole or not at all, and damaged ones say so."""

import json

import pytest
import torch
import xarray as xr

from analysis.experiments.graph import GraphConfig
from analysis.results import is_current, load, prepare_folder, provenance, save, write_whole


@pytest.fixture
def dataset():
    data = xr.Dataset({"x": ("seed", [1.0, 2.0])})
    return data.assign_attrs(provenance("graph", GraphConfig(seeds=2), torch.device("cpu"), 0.1))


def test_round_trip_and_reuse(tmp_path, dataset):
    path = tmp_path / "result.nc"
    save(dataset, path)
    again = load(path)
    assert again.identical(dataset)
    assert xr.open_dataset(path).attrs["experiment"] == "graph"
    assert json.loads(again.attrs["config"])["seeds"] == 2
    assert set(json.loads(again.attrs["versions"])) >= {"python", "torch", "numpy", "ssa-theory"}
    assert is_current(path, GraphConfig(seeds=2))
    assert not is_current(path, GraphConfig(seeds=3))
    assert not is_current(tmp_path / "none.nc", GraphConfig(seeds=2))


def test_a_result_of_other_source_is_not_reused(tmp_path, dataset):
    save(dataset.assign_attrs(source="0" * 16), tmp_path / "result.nc")
    assert not is_current(tmp_path / "result.nc", GraphConfig(seeds=2))


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
    with pytest.raises(ValueError, match=r"damaged or truncated .* run the experiment again with --fresh"):
        load(path)
    assert not is_current(path, GraphConfig(seeds=2))


def test_missing_and_foreign_results(tmp_path, dataset):
    with pytest.raises(ValueError, match="there is no stored result at"):
        load(tmp_path / "result.nc")
    save(dataset.assign_attrs(format=0), tmp_path / "result.nc")
    with pytest.raises(ValueError, match="is not a result of format 1"):
        load(tmp_path / "result.nc")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write results to .* choose a writable folder with --out"):
        prepare_folder(tmp_path / "file" / "graph")
