"""Every mechanism in every form of layer: against loops, member by member, its gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ssa_theory.mechanism import Inputs, Layer, Parameters, Tokens, parts
from tests.mechanism.cases import (
    ALL,
    DIM,
    FORMS,
    KEYS,
    MEMBERS,
    by_case,
    by_wider_case,
    generators,
    inputs_of,
    layer_of,
    mapped,
    perturbed,
    results,
)
from tests.mechanism.oracle import by_loops


@by_wider_case
def test_it_is_the_loop_over_members_queries_and_keys(name: str, form: str) -> None:
    layer, inputs = layer_of(name, form), inputs_of(form)
    parameters = perturbed(layer)
    found = results(layer, parameters, inputs)
    for m in range(MEMBERS):
        wanted = by_loops(layer.mechanism, layer.form, parameters, inputs, m)
        assert set(wanted) == set(found)
        for what, value in wanted.items():
            result = found[what][..., m].numpy()
            if what == "tau of query":  # of a query, or of all
                result = np.broadcast_to(result.reshape(-1, 1), value.shape)
            result = np.broadcast_to(result, value.shape)
            np.testing.assert_allclose(result, value, rtol=1e-10, atol=1e-10, err_msg=what)
