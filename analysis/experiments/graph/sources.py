"""The settings of where a graph comes from, and of how a user's file is read."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from analysis.problems.sources import READ_BY
from analysis.store.config import TrainingConfig
from tasks.families import PaperFamily, RandomFamily, RealFamily
from tasks.graph_files import FORMATS, GraphReading
from tasks.graph_files.settle import Negative, Sinks
from tasks.texts import AlphabetName, TextReading

_READINGS = {"text_file": TextReading, "graph_file": GraphReading}
"""Whose settings say how a file is read."""


class SourceConfig(TrainingConfig):
    """Of an experiment on Markov chains."""

    family: Literal[RandomFamily, PaperFamily, RealFamily, "letters", "file"] = Field(
        "graded", description="graph family, the letters of a text, or a graph file"
    )
    nodes: int | None = Field(
        None,
        ge=2,
        le=4096,
        description="number of nodes K (graded and random families, paper up to 8; default 8)",
    )
    mean_degree: float | None = Field(
        None, gt=0, description="mean number of neighbours (random families; default 3)"
    )
    text_file: Path | None = Field(
        None, description="text for family letters, also as .gz (default: Python's documentation)"
    )
    alphabet: AlphabetName = Field("letters", description="what the text is taken apart into")
    top: int | None = Field(
        None, ge=1, description="keep so many of the text's most frequent symbols, join the rest"
    )
    fold_marks: bool = Field(False, description="take the text's letters without their marks")
    licence: bool = Field(False, description="keep Project Gutenberg's lines around the text")
    graph_file: Path | None = Field(
        None, description="graph for family file: GraphML, GML, edge list and others, also as .gz"
    )
    graph_format: str | None = Field(
        None, description=f"of the graph file: {', '.join(FORMATS)} (default: by its content)"
    )
    directed: bool = Field(False, description="edges of the graph file lead one way")
    undirected: bool = Field(False, description="edges of the graph file lead both ways")
    weight: str | None = Field(
        None, description="attribute or column of the graph file with the weights, or none"
    )
    sinks: Sinks = Field(
        "error", description="what is done with nodes of the graph file that lead nowhere"
    )
    largest_component: bool = Field(
        False, description="keep the largest part of the graph file whose nodes reach each other"
    )
    negative: Negative = Field(
        "error", description="what is done with negative weights of the graph file"
    )

    def check(self) -> None:
        applies: dict[str, tuple[bool, str]] = {}
        for name, families in READ_BY.items():
            how = _READINGS[name].__dataclass_fields__ if name in _READINGS else ()
            condition = self.family in families, f"family {', '.join(families)}"
            applies |= dict.fromkeys((name, *how), condition)
        self.require_applicable(applies)
        if self.family == "file" and self.graph_file is None:
            raise ValueError("family file needs a graph file: give graph_file")
        _ = self.reading, self.text

    @property
    def reading(self) -> GraphReading:
        """How a graph file is read: the settings of the same names."""
        return self.build(GraphReading)

    @property
    def text(self) -> TextReading:
        """How a text is read: the settings of the same names."""
        return self.build(TextReading)

    def require_applicable(self, rules: dict[str, tuple[bool, str]]) -> None:
        """Raise ValueError for a field that differs from its default where it does nothing; rules:
        by name, whether it does something, and where.
        """
        for name, (applies, where) in rules.items():
            value = getattr(self, name)
            if value != type(self).model_fields[name].default and not applies:
                raise ValueError(
                    f"{name} applies only to {where}, got {name}={value}: drop it, or change the "
                    "other"
                )
