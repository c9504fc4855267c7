"""Every mechanism in every form of layer: against loops, member by member, its gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ssa_theory.mechanism import Inputs, Tokens, parts
from ssa_theory.mechanism.normalizers import as_prediction
from tests.mechanism.cases import (
    ALL,
    DIM,
    FORMS,
    KEYS,
    MEMBERS,
    by_case,
    by_mechanism,
    by_wider_case,
    fits,
    inputs_of,
    layer_of,
    mapped,
    perturbed,
    results,
)
from tests.mechanism.oracle import by_loops


@by_wider_case
def test_it_is_the_loop_over_members_queries_and_keys(name: str, form: str) -> None:
    layer, inputs = layer_of(name, form).evaluated, inputs_of(form)
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
        if (name, key) == ("rela", "log_scale"):  # max(c (s + b), 0) over its sum
            continue
        felt = gradient.abs().reshape(-1, MEMBERS).amax(0)
        assert (felt > 1e-9).all(), f"{key} is not felt"
    crossed = torch.autograd.grad(loss[0], list(leaves.values()))
    assert all((g[..., 1:] == 0).all() for g in crossed)


@by_case
def test_a_query_that_attends_to_no_key_has_no_row_and_no_gradient(name: str, form: str) -> None:
    """The other rows are over the keys that they attend to, as a layer that sees no others."""
    layer, inputs = layer_of(name, form), inputs_of(form)
    leaves = {k: v.requires_grad_() for k, v in perturbed(layer).items()}
    z = layer.scores(leaves, inputs).detach()
    second = z
    if layer.mechanism.contrast is not None:
        other = leaves | {"weight": leaves["contrast.weight"]}
        second = replace(layer, mechanism=replace(layer.mechanism, contrast=None)).scores(
            other, inputs
        )
    attended = torch.ones(z.shape, dtype=torch.bool)
    attended[1], attended[2, 3:] = False, False
    attended[3, :, 0] = False  # of one member
    masked = replace(inputs, attended=attended)
    rows, prediction = layer.rows(leaves, masked), layer.prediction(leaves, masked)
    blind = attended.any(1).logical_not()
    assert (rows.movedim(1, -1)[blind] == 0).all()
    assert (prediction.movedim(1, -1)[blind] == 1 / KEYS).all()
    own = {k.removeprefix("normalizer."): v for k, v in leaves.items()}
    for query, keys in ((2, 3), (4, KEYS)):
        alone, other = (
            layer.normalizer.rows(own, s[query : query + 1, :keys], 1) for s in (z, second)
        )
        wanted = layer.normalizer.prediction(own, z[query : query + 1, :keys], 1)
        if layer.mechanism.contrast is not None:
            alone = alone - leaves["contrast.share"] * other
            wanted = as_prediction(alone, 1)
        torch.testing.assert_close(rows[query : query + 1, :keys], alone, rtol=1e-7, atol=1e-7)
        wanted = torch.where(alone.sum(1, keepdim=True) > 0, wanted, 1 / KEYS)
        found = prediction[query : query + 1, :keys]
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-7)

    def gradients(queries: list[int]) -> tuple[Tensor, ...]:
        weights = layer.rows(leaves, masked)
        y = layer.mixed(leaves, inputs, weights) if layer.form.values else weights
        some = [leaf for key, leaf in leaves.items() if not key.startswith("gate.")]
        return torch.autograd.grad(
            y[queries].square().sum(), some, materialize_grads=True, allow_unused=True
        )

    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
        assert all((g == 0).all() for g in gradients([1]))
        with_it, without = gradients([0, 1, 2, 3, 4]), gradients([0, 2, 3, 4])
    for together, alone in zip(with_it, without, strict=True):
        assert together.isfinite().all()
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    assert any((g != 0).any() for g in with_it)


@by_mechanism
def test_single_precision_stays_single(name: str) -> None:
    form = next(f for f in ("denoise-last", "graph", "letters", "regression") if fits(name, f))
    layer, inputs = layer_of(name, form), inputs_of(form)
    parameters = perturbed(layer)
    single = mapped(inputs, lambda t: t.float() if t.is_floating_point() else t)
    found = results(layer, {k: v.float() for k, v in parameters.items()}, single)
    for what, value in results(layer, parameters, inputs).items():
        assert found[what].dtype == torch.float32
        torch.testing.assert_close(found[what].double(), value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("limit", [0, 2**30])
@given(
    sizes=st.tuples(*[st.integers(1, 6)] * 4),
    shared=st.sampled_from([(False, False), (True, False), (False, True)]),
    seed=st.integers(0, 2**32),
)
def test_matmul_is_einsum_either_way(
    limit: int, sizes: tuple[int, int, int, int], shared: tuple[bool, bool], seed: int
) -> None:
    i, j, k, members = sizes
    rng = np.random.default_rng(seed)
    a = torch.from_numpy(rng.standard_normal((i, j, 1 if shared[0] else members)))
    b = torch.from_numpy(rng.standard_normal((j, k, 1 if shared[1] else members)))
    wide = [t.expand(*t.shape[:2], members) for t in (a, b)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_BROADCAST_LIMIT", limit)
        product = parts.matmul(a, b)
        projected = parts.project(a.unsqueeze(0).expand(2, 3, *a.shape), b)
    torch.testing.assert_close(product, torch.einsum("ijm,jkm->ikm", *wide), rtol=1e-12, atol=1e-12)
    assert projected.shape == (2, 3, *product.shape)
    torch.testing.assert_close(projected[1, 2], product, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "regression"])
def test_both_ways_give_the_same_layer(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, inputs, found = layer_of("ssa", form), inputs_of(form), []
    for limit in (0, 2**30):
        monkeypatch.setattr(parts, "_BROADCAST_LIMIT", limit)
        found.append(results(layer, perturbed(layer), inputs))
    for what, value in found[0].items():
        torch.testing.assert_close(value, found[1][what], rtol=1e-12, atol=1e-12)


def test_labels_of_tokens_in_a_prompt_are_looked_up() -> None:
    """Without labels the tokens are the vocabulary, once, in order; with, wherever they stand."""
    layer, inputs = layer_of("ssa-free", "graph"), inputs_of("graph")
    parameters, order = perturbed(layer), torch.tensor([[3, 0], [3, 6], [1, 1]])
    assert inputs.query is not None
    vector = inputs.query.vector.gather(0, order.unsqueeze(1).expand(-1, DIM, -1))
    prompt = Inputs(Tokens(vector, labels={"token": order}), inputs.keys, count=3.0)
    whole = layer.scores(parameters, inputs)
    for m in range(MEMBERS):
        torch.testing.assert_close(
            layer.scores(parameters, prompt)[..., m], whole[order[:, m], :, m]
        )


def test_inputs_shared_by_members_are_as_if_each_had_them() -> None:
    """The model axis of inputs may be one."""
    for name in ("vanilla", "ssa-query-key", "ssa-mlp", "gated", "sparsemax"):
        layer, one = layer_of(name, "denoise-last"), inputs_of("denoise-last", 1)
        wide = mapped(one, lambda t: t.expand(*t.shape[:-1], MEMBERS).contiguous())
        parameters = perturbed(layer)
        for what, value in results(layer, parameters, wide).items():
            found = results(layer, parameters, one)[what]
            torch.testing.assert_close(
                found.expand_as(value), value, rtol=1e-12, atol=1e-12, msg=what
            )


@pytest.mark.parametrize("scale", [1e4, 1e-5])
def test_extreme_weights_stay_finite(scale: float) -> None:
    for name in (name for name in ALL if fits(name, "denoise-last")):
        layer = layer_of(name, "denoise-last")
        inputs = mapped(inputs_of("denoise-last"), lambda t: t.float())
        leaves = {k: v.float() for k, v in perturbed(layer).items()}
        leaves["weight"] = leaves["weight"] * scale
        leaves = {k: v.requires_grad_() for k, v in leaves.items()}
        loss = layer.output(leaves, inputs).square().mean()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        assert torch.isfinite(loss), name
        assert all(torch.isfinite(g).all() for g in gradients), name
