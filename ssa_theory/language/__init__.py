"""Language models whose attention wears a mechanism: a small decoder, its training, and what it is
made of.
"""

from ssa_theory.language.anatomy import attention_anatomy, query_key_norm
from ssa_theory.language.decoder import Decoder, DecoderForm
from ssa_theory.language.ensemble import cross_entropy
from ssa_theory.language.training import (
    LanguageTraining,
    fit_language,
    validation_loss,
    windows,
)

__all__ = [
    "Decoder",
    "DecoderForm",
    "LanguageTraining",
    "attention_anatomy",
    "cross_entropy",
    "fit_language",
    "query_key_norm",
    "validation_loss",
    "windows",
]
