"""The settings of the language experiment."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.store.config import SeededConfig
from analysis.store.files import file_digest
from ssa_theory.language import DecoderForm
from ssa_theory.mechanism import VANILLA
from tasks import Corpus, TextReading, corpus, default_text, read_text
from tasks.passkey import SHORTEST
from tasks.texts import AlphabetName

LONGEST = 4
"""Contexts up to so many times that of training are read."""
_SSA = (
    *("ssa-query", "ssa-value", "ssa-key", "ssa-query-key", "ssa-query-key-value"),
    *("ssa-token", "ssa-position"),
)
Size = Annotated[int, Field(ge=1, le=65_536)]


_NUMBERS = 2**16
"""Of activations that one program has at a time: with more, more models gain nothing."""
_OF_DECODERS = ("dim", "layers", "heads", "positions", "block")


class LanguageConfig(SeededConfig):
    """Train small language models whose attention wears each mechanism."""

    seeds: int = Field(16, ge=1, le=100_000, description="number of seeds: initialisation and data")
    mechanisms: ComparedMechanisms = Field(
        (
            *(VANILLA, "constant-scale", "scaled", "ssa", *_SSA, "ssa-mlp", "ssa-feature"),
            *("released", "ssmax", "yarn", "sink", "gated", "qk-norm"),
        ),
        description="mechanisms to train; vanilla is the peer, constant-scale and scaled the controls",
    )
    text_file: Path | None = Field(
        None, description="text to read, also as .gz (default: Python's documentation)"
    )
    alphabet: AlphabetName = Field("graphemes", description="what the text is taken apart into")
    top: int | None = Field(
        79, ge=1, description="keep so many of the text's most frequent symbols, join the rest"
    )
    fold_marks: bool = Field(False, description="take the text's letters without their marks")
    licence: bool = Field(False, description="keep Project Gutenberg's lines around the text")
    model: str | None = Field(
        None,
        description="pretrained model to fine-tune in place of small ones: a folder, or a name of "
        "the Hugging Face hub (gpt2, gpt_neox, llama)",
    )
    dim: Size = Field(32, description="width of the model")
    layers: Size = Field(2, description="number of layers")
    heads: Size = Field(2, description="heads of a layer")
    context: int = Field(64, ge=SHORTEST, le=65_536, description="symbols of a training window")
    positions: Literal["rotary", "learned"] = Field("rotary", description="how places are told")
    block: Literal["neox", "llama"] = Field("neox", description="the shape of a layer")
    steps: int = Field(200, ge=1, le=10_000_000, description="training steps")
    batch: Size = Field(4, description="windows of a step")
    rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.006, 0.015, 0.04, 0.1), description="step sizes of AdamW to choose from, by mechanism"
    )
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1.0, 1.5, 2.5, 4.0),
        description="constant scales to choose from, and to start a learned one at",
    )
    passkey_share: float = Field(
        0.75,
        ge=0,
        le=1,
        description="share of a step's windows that hide a passkey, its digits counting as a window",
    )
    passkeys: Size = Field(32, description="passkeys of each length to measure")
    tuning_seeds: int = Field(2, ge=1, le=1000, description="seeds of the choice, never reported")
    validation_tokens: int = Field(
        8192,
        ge=1,
        le=2**31,
        description="symbols of the text's last part to validate on, at most; an eighth on the way",
    )
    measured_tokens: int = Field(
        1000, ge=1, le=100_000, description="symbols whose attention is measured"
    )
    records: int = Field(8, ge=3, le=1000, description="steps at which models are measured")

    def check(self) -> None:
        self.require_distinct("rates", "scales")
        _ = self.reading
        if self.model is not None:
            fields = type(self).model_fields
            own = [f for f in _OF_DECODERS if getattr(self, f) != fields[f].default]
            if own:
                raise ValueError(
                    f"{', '.join(own)} apply only to models from scratch, got model={self.model}: "
                    "drop them, or model"
                )
            return
        form = self.form(2).of_heads()
        for mechanism in chosen(self.mechanisms):  # what does not fit is refused before training
            mechanism.fitted(form)

    def files(self) -> dict[str, Path]:
        named = super().files()
        folder = None if self.model is None else Path(self.model)
        if folder is not None and folder.is_dir():
            named |= {f"model/{p.name}": p for p in sorted(folder.iterdir()) if p.is_file()}
        return named

    def notes(self) -> list[str]:
        from analysis.experiments.language.sources import source_of

        source = source_of(self)
        text = source.text
        least = 2 * (source.longest + 1)
        if len(text.training) <= self.context or len(text.validation) < least:
            raise ValueError(
                f"a text of {len(text.training)} symbols to train on and {len(text.validation)} to "
                f"validate on is too short for windows of {self.context} and {source.longest}: give a "
                "longer text, or lower context"
            )
        return [f"text: {'; '.join(text.notes)}"]

    @property
    def reading(self) -> TextReading:
        """How the text is read."""
        return self.build(TextReading)

    @property
    def longest(self) -> int:
        """The longest context that is read: learned positions end with training's."""
        return self.context * (LONGEST if self.positions == "rotary" else 1)

    def corpus(self) -> Corpus:
        """The text in numbers."""
        changed = None if self.text_file is None else file_digest(self.text_file)
        return _corpus(self.text_file, changed, self.reading)

    def form(self, vocabulary: int) -> DecoderForm:
        """That of every model."""
        sizes = (self.dim, self.layers, self.heads, self.context)
        return DecoderForm(vocabulary, *sizes, self.positions, self.block)

    @property
    def together(self) -> int:
        """How many models are trained as one program: as many as still gain by it."""
        return 1 if self.model else max(1, _NUMBERS // (self.batch * self.context * self.dim))

    @property
    def recorded(self) -> list[int]:
        """The steps at which models are measured, denser at the start."""
        places = np.linspace(0, 1, self.records) ** 1.5
        return np.unique(np.rint(self.steps * places).astype(int)).tolist()


@lru_cache(maxsize=2)
def _corpus(path: Path | None, changed: str | None, reading: TextReading) -> Corpus:
    """changed: the file's fingerprint; a later version is read anew."""
    text = default_text() if path is None else read_text(path, reading)[0]
    return corpus(text, reading)
