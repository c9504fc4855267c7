"""Estimates over seeds at every point of labelled data."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from analysis.claims.statistics import log_ratio, mean


def mean_band(data: xr.DataArray) -> xr.DataArray:
    """`mean` over the dimension `seed` at every point of the others: a new last dimension
    `estimate` of value, low, high.
    """
    what = data.attrs.get("description", data.name)
    return _band(data, f"mean over seeds, with its 95 % interval: {what}", lambda v: v)


def ratio_band(x: xr.DataArray, y: xr.DataArray, description: str) -> xr.DataArray:
    """`ratio`, likewise; x has the dimensions of y, and perhaps more."""
    y = y.broadcast_like(x).transpose(*x.dims)
    log = x.copy(data=log_ratio(x.values, y.values))
    return _band(log, description, np.exp)


def _band(
    data: xr.DataArray, description: str, scale: Callable[[np.ndarray], np.ndarray]
) -> xr.DataArray:
    dims = [d for d in data.dims if d != "seed"]
    moved = data.transpose(*dims, "seed")
    points = np.asarray(moved, np.float64).reshape(-1, moved.sizes["seed"])
    table = np.array([(e.value, e.low, e.high) for e in map(mean, points)])
    return xr.DataArray(
        scale(table).reshape(*moved.shape[:-1], 3),
        dims=(*dims, "estimate"),
        coords={k: v for k, v in data.coords.items() if "seed" not in v.dims}
        | {"estimate": ["value", "low", "high"]},
        attrs={"description": description},
    )
