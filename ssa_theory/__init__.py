"""Selective Self-Attention (arXiv 2411.12892): the mechanism, its closed-form theory, and ensemble training."""

from ssa_theory.attention import SelectiveSelfAttention, Temperature, attention_weights
from ssa_theory.ensemble import Trained, resolve_device, train
from ssa_theory.seeds import Stream, member_generator
from ssa_theory.single_layer import (
    VARIANTS,
    Queries,
    SingleLayerAttention,
    Tokens,
    Variant,
    cross_entropy,
    log_predictive,
)
from ssa_theory.temperature import inverse_temperature, weight_shared_score
from ssa_theory.theory import (
    MinimalNorm,
    entropy,
    entropy_derivative,
    majorises,
    minimal_norm,
    norm_lower_bound,
)

__all__ = [
    "VARIANTS",
    "MinimalNorm",
    "Queries",
    "SelectiveSelfAttention",
    "SingleLayerAttention",
    "Stream",
    "Temperature",
    "Tokens",
    "Trained",
    "Variant",
    "attention_weights",
    "cross_entropy",
    "entropy",
    "entropy_derivative",
    "inverse_temperature",
    "log_predictive",
    "majorises",
    "member_generator",
    "minimal_norm",
    "norm_lower_bound",
    "resolve_device",
    "train",
    "weight_shared_score",
]
