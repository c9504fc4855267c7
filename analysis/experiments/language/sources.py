"""Where the models come from: small decoders from scratch, or a pretrained one of Hugging Face."""

import abc
import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.experiments.language.config import LanguageConfig
from ssa_theory.language import Decoder, LanguageTraining, attention_anatomy, fit_language
from ssa_theory.language.ensemble import Logits
from ssa_theory.mechanism import Mechanism
from ssa_theory.mechanism.schedules import Fixed
from ssa_theory.mechanism.scores import Constant
from ssa_theory.mechanism.temperature import Exp, Selective
from tasks import Corpus, Passkey, default_text, read_text
from tasks.passkey import DIGITS, SYMBOLS

_LEARNED = Selective(Constant(), Exp(), position=False)
_ALPHA = -4.0
"""Where position terms of a pretrained model start: sigmoid(alpha) is .018, near nothing."""
_VALIDATION = 0.1
_PIECES = 16
"""Of the longest context, what a piece of the validation text holds at least."""


class Source(abc.ABC):
    """text: in numbers. longest: the longest context that is read. logits: of a model and tokens,
    where models are no one program: see `Ensemble`.
    """

    text: Corpus
    longest: int
    logits: Logits | None = None

    def __init__(self, config: LanguageConfig) -> None:
        self.config = config

    def model(self, mechanism: Mechanism, scale: float | None, seed: int) -> nn.Module:
        """A model that wears a mechanism, at its start. scale: of `scales_of`."""
        if scale is not None and isinstance(mechanism.query, Fixed):
            mechanism = replace(mechanism, query=Fixed(scale))
        model = self.started(mechanism, seed)
        if scale is not None and mechanism.query == _LEARNED:
            with torch.no_grad():
                for name, p in model.named_parameters():
                    if name.endswith("parts.query.offset"):
                        p.fill_(math.log(scale))
        return model

    def scales_of(self, mechanism: Mechanism) -> tuple[float | None, ...]:
        """The constant scales to choose from; of a learned one those at which it starts."""
        own = isinstance(mechanism.query, Fixed) or mechanism.query == _LEARNED
        return self.config.scales if own else (None,)

    @property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """The validation text that is reported, and the other half, on which choices are made: pieces
        in turn, as a text is not the same all along. A window may lie across two of them.
        """
        text = self.text.validation
        pieces = np.array_split(text, 2 * max(1, len(text) // (2 * _PIECES * self.longest)))
        return np.concatenate(pieces[::2]), np.concatenate(pieces[1::2])

    def next_logits(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """The logits of the next token, at every place."""
        return model(tokens) if self.logits is None else self.logits(model, tokens)

    @property
    def passkey(self) -> Passkey:
        """Written in the symbols that the training text uses least, the last of them."""
        place = np.arange(len(self.text.symbols))
        least = np.lexsort((-place, self.text.log_frequency))[:SYMBOLS].tolist()
        return Passkey(least[0], tuple(least[1:]))

    def fit(
        self, models: Sequence[nn.Module], rates: Sequence[float], seeds: Sequence[int], **how: Any
    ) -> dict[str, np.ndarray]:
        """Train models on the text, a share of its windows with a passkey, whose digits count together
        as much as a window; how: of `fit_language`.
        """
        config, passkey = self.config, self.passkey
        count = round(config.passkey_share * config.batch)

        def mixed(drawn: np.ndarray, generator: np.random.Generator) -> np.ndarray:
            hidden = passkey.hidden(drawn[:count], generator)
            return np.concatenate([hidden, drawn[count:]])

        weight = np.ones((config.batch, config.context))
        weight[:count, -DIGITS:] = config.context / DIGITS
        sizes = (config.steps, config.context, config.batch)
        training = LanguageTraining(*sizes, tuple(rates))
        how |= {"change": mixed, "weight": weight, "logits": self.logits}
        return fit_language(models, self.text.training, training, seeds, **how)

    @abc.abstractmethod
    def started(self, mechanism: Mechanism, seed: int) -> nn.Module:
        """A model at its start."""

    @abc.abstractmethod
    def anatomy(self, model: Any, seen: np.ndarray) -> dict[str, np.ndarray]:
        """What `attention_anatomy` returns."""

    @abc.abstractmethod
    def added(self, model: Any) -> int:
        """How many parameters the mechanism adds."""


class Scratch(Source):
    """Small decoders from scratch."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__(config)
        read, own = config.corpus(), ("(key)", *(f"(key {i})" for i in range(SYMBOLS - 1)))
        self.text = replace(read, symbols=(*read.symbols, *own))
        self.longest = config.longest

    def started(self, mechanism: Mechanism, seed: int) -> Decoder:
        form = self.config.form(len(self.text.symbols))
        return Decoder(form, mechanism, seed, self.text.log_frequency)

    def anatomy(self, model: Decoder, seen: np.ndarray) -> dict[str, np.ndarray]:
        return attention_anatomy(model, seen)

    def added(self, model: Decoder) -> int:
        return model.added_parameters()


class Pretrained(Source):
    """A model of Hugging Face, fine-tuned; a seed is an order of the data."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__(config)
        assert config.model is not None
        self.plain = _loaded(config.model)
        self.text = _tokens(config, self.plain.config.vocab_size)
        most = self.plain.config.max_position_embeddings
        if config.context > most:
            raise ValueError(
                f"the model {config.model} reads at most {most} tokens, got context="
                f"{config.context}: lower context"
            )
        self.longest = config.longest if config.longest <= most else config.context

    def started(self, mechanism: Mechanism, seed: int) -> nn.Module:
        from ssa_theory.language.select import select

        model = copy.deepcopy(self.plain)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            seen = {"trained_length": self.config.context, "log_frequency": self.text.log_frequency}
            select(model, mechanism, alpha=_ALPHA, **seen)
        return model

    def logits(self, model: nn.Module, tokens: Tensor) -> Tensor:  # type: ignore[override]
        return model(tokens, use_cache=False).logits

    def anatomy(self, model: Any, seen: np.ndarray) -> dict[str, np.ndarray]:
        from ssa_theory.language.select import selected_anatomy

        return selected_anatomy(model, seen)

    def added(self, model: Any) -> int:
        return sum(p.numel() for name, p in model.named_parameters() if ".worn." in name)


def source_of(config: LanguageConfig) -> Source:
    """That of the settings."""
    return Scratch(config) if config.model is None else Pretrained(config)


@lru_cache(maxsize=1)
def _loaded(model: str) -> Any:
    """The pretrained model. Raises ValueError without the extra, or where there is none."""
    try:
        import transformers

        from ssa_theory.language import select  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"a pretrained model needs the extra language ({error}): "
            "pip install 'ssa-theory[language]'"
        ) from error
    local = Path(model).exists() or model.startswith((".", "/", "~"))
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(
            model, local_files_only=local, dtype=torch.float32
        ).eval()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no causal language model can be loaded from {model!r} "
            f"({' '.join(str(error).split())[:120]}): give a folder that save_pretrained wrote, or "
            "a name of the Hugging Face hub"
        ) from error


def _tokens(config: LanguageConfig, vocabulary: int) -> Corpus:
    """The text by the model's own tokenizer; where a folder has none, by the alphabet."""
    assert config.model is not None
    folder = Path(config.model)
    if folder.is_dir() and not list(folder.glob("tokenizer*")):
        read = config.corpus()
        if len(read.symbols) > vocabulary:
            raise ValueError(
                f"{folder} has no tokenizer, and the text {len(read.symbols)} symbols, above the "
                f"model's {vocabulary}: lower top, or store the tokenizer beside the model"
            )
        names = (*read.symbols, *("" for _ in range(vocabulary - len(read.symbols))))
        return Corpus(read.training, read.validation, names, read.notes)
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(
        config.model, local_files_only=folder.is_dir()
    )
    path = config.text_file
    text = default_text() if path is None else read_text(path, config.reading)[0]
    numbers = np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"], np.int64)
    first = len(numbers) - int(_VALIDATION * len(numbers))
    names = tuple(map(str, range(vocabulary)))
    notes = [f"{len(numbers):,} tokens of the model's tokenizer"]
    return Corpus(numbers[:first], numbers[first:], names, notes)
