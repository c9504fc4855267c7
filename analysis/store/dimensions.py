"""What the dimensions of results are, so that every variable of a file says what it holds."""

from collections.abc import Mapping
from types import MappingProxyType

import xarray as xr

_COMMON: Mapping[str, str] = MappingProxyType(
    {
        "bound": "end of an interval that is proven",
        "cell": "what is trained: a task with its settings",
        "control_step": "training step of the control at which it is recorded",
        "estimate": "an estimate over seeds, and the ends of its 95 % interval",
        "keys": "number of keys that a query sees",
        "learning_rate": "step size of the optimiser",
        "length": "n, the number of tokens of a context",
        "mechanism": "what the attention layer wears: a name of the registry, or one's own",
        "neighbours": "number of neighbours; where rows are uneven, exp(row entropy)",
        "next": "next token: a node of the graph",
        "node": "current token: a node of the graph",
        "noise": "standard deviation of the noise",
        "peer": "the mechanism that it is compared with, where that is not vanilla by its name",
        "position": "n, the place in the sequence, counted from 1",
        "quantile": "share of what is summarised that lies below",
        "reporting": "whether the seed is reported; the others only tune",
        "row_group": "rows by the entropy of their target: the least quarter, the middle, the most",
        "seed": "names task, initialisation and data of a model",
        "setting": "of the task, by its name",
        "tried_rate": "step size of the optimiser, of those from which each mechanism's is chosen",
        "tried_start": "factor on the initial query-key weights, of those that are tried likewise",
        "tried_step": "share of the training steps after which a tuning is scored",
        "tuning_seed": "seed by which rates are tuned, and which no run reports",
        "step": "training step at which it is recorded, the initialisation 0",
    }
)


def described(dataset: xr.Dataset, own: Mapping[str, str] = MappingProxyType({})) -> xr.Dataset:
    """The dataset with a description of each dimension that has none.

    own: those that mean something else, or nothing, elsewhere.

    >>> plain = xr.Dataset(coords={"seed": [0, 1], "angle": [0.1]})
    >>> described(plain, {"angle": "between twins (radian)"})["angle"].attrs["description"]
    'between twins (radian)'
    """
    known = {**_COMMON, **own}
    without = {n for n, v in dataset.coords.items() if not v.attrs.get("description")}
    labels = {
        name: dataset[name].assign_attrs(description=known[str(name)])
        for name in without
        if str(name) in known
    }
    return dataset.assign_coords(labels)
