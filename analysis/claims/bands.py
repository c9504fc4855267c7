"""Estimates over seeds at every point of labelled data."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from analysis.claims.statistics import Estimate, mean, ratio


def mean_band(data: xr.DataArray) -> xr.DataArray:
    """`mean` over the dimension `seed` at every point of the others: a new last dimension
    `estimate` of value, low, high.
    """
    what = data.attrs.get("description", data.name)
    return _band(mean, f"mean over seeds, with its 95 % interval: {what}", data)


def ratio_band(x: xr.DataArray, y: xr.DataArray, description: str) -> xr.DataArray:
    """`ratio`, likewise; x has the dimensions of y, and perhaps more."""
    return _band(ratio, description, x, y.broadcast_like(x))


def _band(
    estimator: Callable[..., Estimate], description: str, *data: xr.DataArray
) -> xr.DataArray:
    dims = [d for d in data[0].dims if d != "seed"]
    moved = [one.transpose(*dims, "seed") for one in data]
    points = (np.asarray(m, np.float64).reshape(-1, m.sizes["seed"]) for m in moved)
    table = [(e.value, e.low, e.high) for e in map(estimator, *points)]
    return xr.DataArray(
        np.reshape(table, (*moved[0].shape[:-1], 3)),
        dims=(*dims, "estimate"),
        coords={k: v for k, v in data[0].coords.items() if "seed" not in v.dims}
        | {"estimate": ["value", "low", "high"]},
        attrs={"description": description},
    )
