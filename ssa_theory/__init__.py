"""Selective Self-Attention (arXiv 2411.12892): the mechanism, its closed-form theory, and ensemble training."""

from ssa_theory.denoising_models import DENOISING_VARIANTS, DenoisingAttention
from ssa_theory.ensemble import Trained, block_members, resolve_device, train
from ssa_theory.module import SelfAttention
from ssa_theory.retrieval_models import RETRIEVAL_VARIANTS, RetrievalAttention
from ssa_theory.schedules import SCHEDULES, PositionSchedule
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
    "DENOISING_VARIANTS",
    "RETRIEVAL_VARIANTS",
    "SCHEDULES",
    "VARIANTS",
    "DenoisingAttention",
    "MinimalNorm",
    "PositionSchedule",
    "Queries",
    "RetrievalAttention",
    "SelfAttention",
    "SingleLayerAttention",
    "Stream",
    "Tokens",
    "Trained",
    "Variant",
    "block_members",
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
