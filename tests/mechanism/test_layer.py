"""Every mechanism in every form of layer: against loops, member by member, its gradients."""

import numpy as np
import torch
from torch import Tensor

from tests.mechanism.cases import (
    MEMBERS,
    by_case,
    by_wider_case,
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


@by_case
def test_no_member_feels_another(name: str, form: str) -> None:
    """Another member of NaN leaves all bits; other members, or another order, leave the numbers."""
    layer, whole = layer_of(name, form), inputs_of(form, 3)
    parameters = perturbed(layer, 3)
    before = results(layer, parameters, whole)

    def broken(tensor: Tensor) -> Tensor:
        return tensor.index_fill(
            -1, torch.tensor(0), torch.nan if tensor.is_floating_point() else 1
        )

    after = results(layer, {k: broken(v) for k, v in parameters.items()}, mapped(whole, broken))
    for what, value in after.items():
        assert torch.equal(value[..., 1:], before[what][..., 1:]), what
        assert value[..., 0].isnan().all() or "tau" in what
    for members in ([2, 0, 1], [1]):
        some = {k: v[..., members].contiguous() for k, v in parameters.items()}
        seen = mapped(whole, lambda t, which=members: t[..., which].contiguous())
        for what, value in results(layer, some, seen).items():
            wanted = before[what][..., members]
            torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-12, msg=what)


@by_case
def test_gradients(name: str, form: str) -> None:
    """In all parameters, which are all felt; one member's results reach no other's parameters."""
    layer, inputs = layer_of(name, form), inputs_of(form)
    leaves = {k: (0.7 * v).requires_grad_() for k, v in perturbed(layer, seed=4).items()}

    def result(*values: Tensor) -> Tensor:
        here = dict(zip(leaves, values, strict=True))
        return layer.output(here, inputs) if layer.form.values else layer.rows(here, inputs)

    assert torch.autograd.gradcheck(result, tuple(leaves.values()), fast_mode=True, atol=1e-6)
    probe = torch.randn(result(*leaves.values()).shape, generator=torch.Generator().manual_seed(0))
    loss = (result(*leaves.values()) * probe).sum((0, 1))
    gradients = torch.autograd.grad(loss.sum(), list(leaves.values()), retain_graph=True)
    for key, gradient in zip(leaves, gradients, strict=True):
        felt = gradient.abs().reshape(-1, MEMBERS).amax(0)
        assert (felt > 1e-9).all(), f"{key} is not felt"
    crossed = torch.autograd.grad(loss[0], list(leaves.values()))
    assert all((g[..., 1:] == 0).all() for g in crossed)


@by_case
def test_single_precision_stays_single(name: str, form: str) -> None:
    layer, inputs = layer_of(name, form), inputs_of(form)
    parameters = perturbed(layer)
    single = mapped(inputs, lambda t: t.float() if t.is_floating_point() else t)
    found = results(layer, {k: v.float() for k, v in parameters.items()}, single)
    for what, value in results(layer, parameters, inputs).items():
        assert found[what].dtype == torch.float32
        torch.testing.assert_close(found[what].double(), value, rtol=1e-3, atol=1e-4)
