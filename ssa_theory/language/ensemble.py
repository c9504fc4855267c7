"""Several models of one form as one program: their weights in one tensor, their training step."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

Logits = Callable[[nn.Module, Tensor], Tensor]
BETAS, EPSILON = (0.9, 0.95), 1e-8


class Ensemble:
    """Models of one form. Their parameters become views of `weights` (model, parameter), so that
    whoever reads a model sees what was trained. The first `decayed` of them decay.

    logits: of a model and tokens, model by model; by default several models are one program
    (`torch.func`), unless a part of theirs has no rule for it, as those of the library entmax.
    weight: of every symbol that is predicted in the mean loss; by default they count alike.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        logits: Logits | None = None,
        weight: Float[Tensor, "batch length"] | None = None,
    ) -> None:
        self.models = models
        self.logits = _own if logits is None and len(models) == 1 else logits
        learned = [_decayed_first(model) for model in models]
        self.shapes = {name: p.shape for name, p in learned[0].items()}
        self.decayed = sum(p.numel() for name, p in learned[0].items() if _decays(name, p))
        flat = [torch.cat([p.detach().flatten() for p in own.values()]) for own in learned]
        self.weights = torch.stack(flat)
        self.gradients = torch.zeros_like(self.weights)
        share = None if weight is None else weight / weight.mean()
        self.share = None if share is None else share.to(self.weights)
        for i, own in enumerate(learned):
            kept, gradient = (self._named(of[i]) for of in (self.weights, self.gradients))
            for name, p in own.items():
                p.data, p.grad = kept[name], gradient[name]

    def _named(self, flat: Float[Tensor, " parameter"]) -> dict[str, Tensor]:
        """The parameters of one model, as views."""
        parts = flat.split([shape.numel() for shape in self.shapes.values()])
        return {k: v.view(shape) for (k, shape), v in zip(self.shapes.items(), parts, strict=True)}

    def losses(self, tokens: Int[Tensor, "model batch length"]) -> Float[Tensor, " model"]:
        """The mean cross-entropy of every model on windows of its own, by `weight`; leaves its
        gradient in `gradients`.
        """
        for model in self.models:
            if not model.training:
                model.train()
        if self.logits is None:
            try:
                return self._together(tokens)
            except RuntimeError:  # no rule for vmap; any other error comes again
                self.logits = _own
        self.gradients.zero_()
        each = zip(self.models, tokens, strict=True)
        logits = torch.stack([self.logits(m, t[:, :-1]) for m, t in each])
        losses = self._mean_loss(logits, tokens)
        losses.sum().backward()
        return losses.detach()

    def _together(self, tokens: Tensor) -> Tensor:
        """The same as one program."""
        weights = self.weights.detach().requires_grad_()

        def logits_of(flat: Tensor, seen: Tensor) -> Tensor:
            return functional_call(self.models[0], self._named(flat), (seen,))

        with sdpa_kernel(SDPBackend.MATH):  # the others have no rule for vmap
            logits = vmap(logits_of)(weights, tokens[:, :, :-1])
        losses = self._mean_loss(logits, tokens)
        losses.sum().backward()
        assert weights.grad is not None
        self.gradients.copy_(weights.grad)
        return losses.detach()

    def _mean_loss(self, logits: Tensor, tokens: Tensor) -> Float[Tensor, " model"]:
        each = cross_entropy(logits.flatten(0, 1), tokens[:, :, 1:].flatten(0, 1))
        each = each.unflatten(0, tokens.shape[:2])
        return (each if self.share is None else each * self.share).mean((1, 2))


def _decays(name: str, weight: Tensor) -> bool:
    """Whether a weight decays: a matrix does, a vector or scalar does not. Of the parts of a mechanism
    the last axis is that of the heads.
    """
    return weight.ndim - ("parts." in name) > 1


def _decayed_first(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model by name, those that decay before the others."""
    named = list(model.named_parameters())
    return dict(sorted(named, key=lambda own: not _decays(*own)))


def _own(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(tokens)


class AdamW:
    """AdamW (arXiv 1711.05101) of every model, its gradient cut to the norm `clip`. A model whose
    loss is not finite becomes NaN.
    """

    def __init__(self, ensemble: Ensemble, decay: float, clip: float) -> None:
        self.ensemble, self.decay, self.clip, self.steps = ensemble, decay, clip, 0
        self.first, self.second, self.spread = (
            torch.zeros_like(ensemble.weights) for _ in range(3)
        )

    def step(
        self, tokens: Int[Tensor, "model batch length"], rates: Float[Tensor, "#model 1"]
    ) -> Float[Tensor, " model"]:
        """One step; the losses before it."""
        losses = self.ensemble.losses(tokens)
        weights, gradient = self.ensemble.weights, self.ensemble.gradients
        self.steps += 1
        norm = gradient.norm(dim=1, keepdim=True)
        gradient *= (self.clip / (norm + 1e-6)).clamp(max=1)
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        first, second = (1 - beta**self.steps for beta in BETAS)
        torch.sqrt(self.second, out=self.spread).add_(EPSILON * second**0.5)
        weights[:, : self.ensemble.decayed].mul_(1 - rates * self.decay)
        steps = (-rates * second**0.5 / first).where(losses.isfinite().unsqueeze(-1), torch.nan)
        torch.mul(self.first, steps, out=gradient)
        weights.addcdiv_(gradient, self.spread)
        return losses


def cross_entropy(
    logits: Float[Tensor, "batch length symbol"], following: Int[Tensor, "batch length"]
) -> Float[Tensor, "batch length"]:
    """Of every token, in nats."""
    each = F.cross_entropy(logits.flatten(0, 1).float(), following.flatten(), reduction="none")
    return each.unflatten(0, following.shape)
