"""Selective Self-Attention (arXiv 2411.12892) and its rivals: mechanisms, theory, training."""

from ssa_theory.device import block_members, resolve_device
from ssa_theory.ensemble import Trained, train
from ssa_theory.losses import Queries, cross_entropy, log_predictive
from ssa_theory.mechanism import MECHANISMS, Form, Inputs, Layer, Mechanism, Tokens, mechanism
from ssa_theory.module import SelfAttention
from ssa_theory.seeds import Stream, member_generator
from ssa_theory.theory import (
    MinimalNorm,
    entropy,
    entropy_derivative,
    majorises,
    minimal_norm,
    norm_lower_bound,
)

__all__ = [
    "MECHANISMS",
    "Form",
    "Inputs",
    "Layer",
    "Mechanism",
    "MinimalNorm",
    "Queries",
    "SelfAttention",
    "Stream",
    "Tokens",
    "Trained",
    "block_members",
    "cross_entropy",
    "entropy",
    "entropy_derivative",
    "log_predictive",
    "majorises",
    "mechanism",
    "member_generator",
    "minimal_norm",
    "norm_lower_bound",
    "resolve_device",
    "train",
]
