"""Every mechanism on a pretended CUDA device: no tensor on the host, no value read back."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.mechanism.cases import (
    by_case,
    inputs_of,
    layer_of,
    mapped,
    perturbed,
    results,
)


def there(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype, device="cuda")


@by_case
def test_everything_stays_on_the_device(name: str, form: str, no_host: TorchDispatchMode) -> None:
    layer, inputs = layer_of(name, form), inputs_of(form)
    here = perturbed(layer)
    shapes = {k: v.shape for k, v in results(layer, here, inputs).items()}
    with FakeTensorMode() as fake, torch.no_grad():
        parameters, seen = {k: there(v) for k, v in here.items()}, mapped(inputs, there)
        with no_host:
            found = results(layer, parameters, seen)
    for what, value in found.items():
        assert fake.is_our_fake(value), what
        assert value.device.type == "cuda", what
        assert value.shape == shapes[what], what


@pytest.mark.cuda
@by_case
def test_cpu_and_cuda_agree(name: str, form: str) -> None:
    layer, inputs = layer_of(name, form), inputs_of(form)
    found = []
    for device in ("cpu", "cuda"):
        leaves = {k: v.to(device).requires_grad_() for k, v in perturbed(layer).items()}
        seen = mapped(inputs, lambda t, d=device: t.to(d))
        result = layer.output(leaves, seen) if layer.form.values else layer.rows(leaves, seen)
        gradients = torch.autograd.grad(result.square().sum(), list(leaves.values()))
        found.append([result.detach(), *gradients])
    for on_cpu, on_cuda in zip(*found, strict=True):
        torch.testing.assert_close(on_cuda.cpu(), on_cpu, rtol=1e-9, atol=1e-11)
