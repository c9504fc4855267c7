"""Does the theory reach a language model?"""

from analysis.experiments.base import Experiment
from analysis.experiments.language import claims, figure, train
from analysis.experiments.language.config import LanguageConfig
from ssa_theory.mechanism import VANILLA

__all__ = ["LANGUAGE", "LanguageConfig"]

_FEW = {"seeds": 2, "tuning_seeds": 1, "mechanisms": (VANILLA, "constant-scale", "scaled", "ssa")}
_SMALL = {"dim": 8, "context": 24, "steps": 12, "rates": (0.015, 0.04), "scales": (2.5,)}
_BRIEF = {"batch": 4, "validation_tokens": 512, "measured_tokens": 100, "records": 4, "passkeys": 8}
_LARGE = {"dim": 512, "layers": 12, "heads": 8, "context": 512, "steps": 20_000, "batch": 32}
_TEXT = {"top": 4096, "alphabet": "graphemes", "validation_tokens": 2**18}
LANGUAGE = Experiment(
    name="language",
    question="In a small language model, do learned temperatures do more than a constant scale?",
    caption="Small decoders on a text, each mechanism at the step size of its own least loss on "
    "other seeds. constant-scale: vanilla with one given scale on its scores, chosen from several; "
    "scaled: with one learned scale, the same for every token, its start chosen likewise. "
    "As figure 2 of the paper: distributions over 1,000 tokens, each layer and every model, of the "
    "effective weight tau ||W_q W_k^T|| and of the spikiness 1 / (n sum s^2), smaller being "
    "spikier, after equal steps and at equal loss (numerals: each layer's mean); validation loss by "
    "training tokens, as its figure 4; perplexity over vanilla's by place in a context, up to four "
    "times that of training; the share of the digits of a passkey in text that are wrong, a passkey "
    "being in a share of what is trained on (dotted: chance); perplexity over vanilla's of every "
    "mechanism, with the parameters that it adds, its step size and its scale; and how long a "
    "training step and generation take, over vanilla's (median over seeds).",
    config=LanguageConfig,
    train=train.train,
    seeds_per_block=train.seeds_per_block,
    summarise=train.summarise,
    draw=figure.draw,
    judge=claims.judge,
    dimensions={
        "record": "the recorded steps, in order",
        "comparison": "at equal steps, or at equal loss",
        "layer": "of the model, from the first",
        "multiple": "contexts in which a passkey hides",
        "task": "what is timed",
        "length": "which places of a context, in units of that of training",
    },
    presets={
        "smoke": _FEW | _SMALL | _BRIEF,
        "large": _LARGE | _TEXT | {"seeds": 8, "rates": (0.0003, 0.001, 0.003)},
    },
)
