"""Put a mechanism into a pretrained causal language model of Hugging Face: GPT-2, GPT-NeoX
(Pythia) and Llama.

Needs the extra `language`: transformers and safetensors.
"""

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

try:
    from safetensors import safe_open
    from safetensors.torch import save_file
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
    from transformers.masking_utils import eager_mask
except ImportError as error:
    raise ImportError(
        f"ssa_theory.language.select needs the extra language ({error}): "
        "pip install 'ssa-theory[language]'"
    ) from error

from ssa_theory.language.anatomy import norm_of_product
from ssa_theory.language.families import FAMILIES, Layout
from ssa_theory.language.worn import Seen, Worn
from ssa_theory.mechanism import Mechanism, Role
from ssa_theory.mechanism import mechanism as load_mechanism
from ssa_theory.token_batch import RequiredInputs, form_of_heads

NAME = "ssa_theory"
"""Of the attention function, in Hugging Face's registries."""
UNCHANGED = -16.0
"""alpha at which a position term is sigmoid(alpha) log n < 1e-6: a pretrained model stays as it is."""


def select(
    model: PreTrainedModel,
    mechanism: str | Mechanism = "ssa",
    *,
    alpha: float | None = UNCHANGED,
    trained_length: int | None = None,
    log_frequency: Sequence[float] | np.ndarray | Tensor | None = None,
) -> int:
    """Let every layer of a model wear a mechanism, in place; how many parameters that adds.

    Queries, keys and values are scaled as they leave their projections, before rotary positions:
    weight sharing f(x) = w . gelu(W_q x) reads them there, and a cache holds scaled keys and values.
    n counts the keys that a token sees, padding left out. Generation, caches, padding and saving
    work as before; the new parameters are those whose name has `.worn.`.

    alpha: where SSA's position terms start; as given by default the model's logits stay what they
    are, but a term that small has small gradients: -4 lets it learn sooner, None starts it at the
    mechanism's own, log(n) / 2. trained_length: by default the model's. log_frequency: of every
    token of the vocabulary, for mechanisms that read a feature.

    Raises ValueError for a model of another family or one that wears a mechanism already, and
    Misfit for a mechanism that cannot be put on a pretrained model.
    """
    config = cast(Any, model.config)
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"mechanisms can be put into {', '.join(FAMILIES)}, got a model of type "
            f"{config.model_type!r}: choose one of these families"
        )
    layout = FAMILIES[config.model_type]
    first = next(iter(layout.projections))
    layers = [m for m in model.modules() if isinstance(getattr(m, first, None), nn.Module)]
    if any(hasattr(layer, "worn") for layer in layers):
        raise ValueError("this model wears a mechanism already: load it anew")
    chosen = load_mechanism(mechanism)
    dim, heads = config.hidden_size, config.num_attention_heads
    form = form_of_heads(
        dim,
        heads,
        labels={"token": config.vocab_size},
        trained_length=trained_length or config.max_position_embeddings,
    )
    fitted = chosen.fitted(form)
    reads = RequiredInputs.of(fitted, form, dim)
    if reads.features and log_frequency is None:
        raise ValueError(
            f"mechanism {chosen.name} reads a scalar of every token: give log_frequency, one number "
            "for each token of the vocabulary"
        )
    frequency = None if log_frequency is None else torch.as_tensor(log_frequency).float()
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    extra: dict[str, Any] = {}
    # Drawn and checked before anything is changed.
    worn = [Worn(chosen, form, heads, key_heads, alpha) for _ in layers]
    like = next(model.parameters())
    for layer, own in zip(layers, worn, strict=True):
        own.to(device=like.device, dtype=like.dtype).train(layer.training)
        layer.add_module("worn", own)
        _hook(layer, own, layout, extra)
    if reads.features or reads.labels:
        model.register_forward_pre_hook(
            partial(_remember, extra, reads, frequency), with_kwargs=True
        )
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    model.set_attn_implementation(NAME)
    return sum(p.numel() for own in worn for p in own.parameters())


def save_selected(model: PreTrainedModel, path: str | Path) -> None:
    """Write what `select` added, and the mechanism's name, as safetensors. Raises ValueError for a
    model that wears none.
    """
    state = {k: v.contiguous() for k, v in model.state_dict().items() if ".worn." in k}
    worn = [m for m in model.modules() if isinstance(m, Worn)]
    if not worn:
        raise ValueError("this model wears no mechanism: select one first")
    about = {"mechanism": worn[0].mechanism.name, "parameters": len(state)}
    save_file(state, str(path), metadata={NAME: json.dumps(about, sort_keys=True)})


def load_selected(model: PreTrainedModel, path: str | Path, **options: Any) -> int:
    """Let a model wear what `save_selected` wrote; options: of `select`. Returns how many
    parameters that adds. Raises ValueError for a file of something else or another model.
    """
    with safe_open(str(path), "pt") as file:
        about = (file.metadata() or {}).get(NAME)
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if about is None:
        raise ValueError(f"{path} was not written by save_selected: give a file that was")
    added = select(model, json.loads(about)["mechanism"], **options)
    own = {k: v.shape for k, v in model.state_dict().items() if ".worn." in k}
    if {k: v.shape for k, v in state.items()} != own:
        raise ValueError(f"{path} was saved from a model of other sizes: load it into its own")
    model.load_state_dict(state, strict=False)
    return added


@torch.no_grad()
def selected_anatomy(
    model: PreTrainedModel, tokens: Int[np.ndarray, "window length"], batch: int = 16
) -> dict[str, np.ndarray]:
    """What `attention_anatomy` returns, of a model that wears a mechanism: ||W_q W_k^T|| is of
    weights before rotary positions. Raises ValueError for a model that wears none.
    """
    worn: dict[Worn, nn.Module] = {
        own: m for m in model.modules() if isinstance(own := getattr(m, "worn", None), Worn)
    }
    if not worn:
        raise ValueError("this model wears no mechanism: select one first, such as vanilla")
    layout, was = FAMILIES[cast(Any, model.config).model_type], model.training
    model.eval()
    norms = [_query_key_norm(layer, own, layout) for own, layer in worn.items()]
    for own in worn:
        own.records = []
    try:
        for part in np.array_split(tokens, -(-len(tokens) // batch)):
            model(torch.from_numpy(part).to(norms[0].device), use_cache=False)
        measured: dict[str, list[Tensor]] = {
            name: [] for name in ("effective_weight", "inverse_temperature", "spikiness")
        }
        for own, norm in zip(worn, norms, strict=True):
            tau, rows = (torch.cat(values) for values in zip(*own.records or [], strict=True))
            count = torch.arange(1, rows.shape[-1] + 1, device=rows.device)
            spread = rows.sum(-1).square() / (count * rows.square().sum(-1))
            each = (tau * norm.unsqueeze(-1).to(tau.dtype), tau, spread)
            for name, value in zip(measured, each, strict=True):
                measured[name].append(value[..., 1:].mean(1).flatten())
    finally:
        for own in worn:
            own.records = None
        model.train(was)
    values = {name: torch.stack(rows).double().cpu().numpy() for name, rows in measured.items()}
    return values | {"weight_norm": torch.stack([n.mean() for n in norms]).cpu().numpy()}


def _query_key_norm(layer: nn.Module, worn: Worn, layout: Layout) -> Tensor:
    """||W_q W_k^T|| of every head, over sqrt(d_k)."""
    maps: dict[Role, Tensor] = {}
    for name, roles in layout.projections.items():
        projection = getattr(layer, name)
        weight = projection.weight  # of a Linear (out, in), of GPT-2's Conv1D (in, out)
        weight = weight.T if isinstance(projection, nn.Linear) else weight
        maps |= dict(
            zip(roles, layout.split(weight.unsqueeze(0), worn.form.dim, roles), strict=True)
        )
    query, key = (maps[role][0].movedim(1, 0).double() for role in ("query", "key"))
    key = key.repeat_interleave(worn.heads // worn.key_heads, 0)
    return norm_of_product(query, key) / math.sqrt(worn.form.dim)


def _hook(layer: nn.Module, worn: Worn, layout: Layout, extra: dict[str, Any]) -> None:
    """Let a layer's attention and projections tell of what they see."""

    def before(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        x = given[0] if given else named["hidden_states"]
        mask = named["attention_mask"]
        visible = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        visible = visible.expand(len(x), -1, -1, -1)
        worn.seen = Seen(x, visible, dict(extra), {}, {})

    def projected(
        roles: tuple[Role, ...], module: nn.Module, given: tuple[Any, ...], output: Tensor
    ) -> Tensor:
        vectors = layout.split(output, worn.form.dim, roles)
        scaled = worn.scaled(dict(zip(roles, vectors, strict=True)))
        return layout.joined([scaled[role] for role in roles])

    layer.register_forward_pre_hook(before, with_kwargs=True)
    for name, roles in layout.projections.items():
        getattr(layer, name).register_forward_hook(partial(projected, roles))


def _remember(
    extra: dict[str, Any],
    reads: RequiredInputs,
    frequency: Tensor | None,
    module: nn.Module,
    given: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    """The tokens of a pass, for parts that read a feature or a label of them."""
    tokens = given[0] if given else named["input_ids"]
    if frequency is not None and reads.features:
        extra["features"] = frequency.to(tokens.device)[tokens]
    if reads.labels:
        extra["labels"] = {"token": tokens}


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's attention interface: the output (batch, length, head, width)."""
    worn = cast(Worn, module.worn)
    y = worn.attend(query, key, value, scaling, dropout)
    worn.seen = None  # nothing of a pass outlives it
    return y, None
