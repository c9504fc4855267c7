"""Where the Markov chains of a problem come from: a family, a text, or a graph file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, get_args

import networkx as nx

from ssa_theory.seeds import Stream, member_generator
from tasks import (
    GraphReading,
    MarkovGraphTask,
    TextReading,
    bigrams,
    default_text,
    graph_from_family,
    read_graph,
    read_text,
)
from tasks.families import PaperFamily, RandomFamily, RealFamily

SIZED_FAMILIES = get_args(RandomFamily) + get_args(PaperFamily)
RANDOM_FAMILIES = SIZED_FAMILIES[1:]
READ_BY = {
    "nodes": SIZED_FAMILIES,
    "mean_degree": get_args(RandomFamily)[1:],
    "text_file": ("letters",),
    "graph_file": ("file",),
}
"""Of what is set for some families only, which these are."""


@dataclass(frozen=True)
class GraphSource:
    """The chain of every seed.

    family: a random family draws a graph a seed; `letters` are the bigrams of a text, taken apart
    as `text` says, `file` a graph file, read as `reading` says. graph: one that a program holds,
    or its task, in place of all these.
    """

    family: RandomFamily | PaperFamily | RealFamily | Literal["letters", "file"] = "graded"
    nodes: int | None = None
    mean_degree: float | None = None
    text_file: str | Path | None = None
    graph_file: str | Path | None = None
    reading: GraphReading = field(default_factory=GraphReading)
    text: TextReading = field(default_factory=TextReading)
    graph: nx.Graph | MarkovGraphTask | None = None

    def require_read(self) -> None:
        """Raise ValueError for a graph that is none, and for a setting that the family leaves
        unread.
        """
        if not isinstance(self.graph, nx.Graph | MarkovGraphTask | None):
            raise ValueError(
                f"graph must be one of networkx or a task, got {type(self.graph).__name__}: make a "
                "task, by MarkovGraphTask.from_matrix or from_file"
            )
        for name, families in READ_BY.items():
            value = getattr(self, name)
            if value is not None and self.graph is None and self.family not in families:
                raise ValueError(
                    f"{name} is not read by family {self.family}, got {value!r:.60}: drop it, or set "
                    f"family to {' or '.join(families)}"
                )

    @property
    def random(self) -> bool:
        """Whether every seed has a graph of its own."""
        return self.graph is None and self.family in RANDOM_FAMILIES

    @property
    def size(self) -> int:
        """The number of nodes K."""
        return self.tasks([0])[0].nodes if self.random else self._common[0].nodes

    @property
    def understood(self) -> str:
        """What a user's file was understood to say, in one sentence; nothing of other sources."""
        no_file = self.text_file is None and self.graph_file is None
        return "" if no_file or self.graph is not None else self._common[1]

    def tasks(self, seeds: Sequence[int]) -> list[MarkovGraphTask]:
        """One task a seed; families that are not random share one."""
        if not self.random:
            return [self._common[0]] * len(seeds)
        graphs = (
            graph_from_family(
                self.family, self.nodes, self.mean_degree, member_generator(s, Stream.GRAPH)
            )
            for s in seeds
        )
        return [MarkovGraphTask.from_graph(g) for g in graphs]

    @cached_property
    def _common(self) -> tuple[MarkovGraphTask, str]:
        if isinstance(self.graph, MarkovGraphTask):
            return self.graph, ""
        if self.graph is not None:
            return MarkovGraphTask.from_graph(self.graph), ""
        if self.family == "letters":
            return _letters(None if self.text_file is None else Path(self.text_file), self.text)
        if self.family == "file":
            if self.graph_file is None:
                raise ValueError("family file needs a graph file: give graph_file")
            read = read_graph(self.graph_file, self.reading)
            return MarkovGraphTask.from_graph(read.graph), read.understood
        return MarkovGraphTask.from_graph(graph_from_family(self.family, self.nodes)), ""


@cache
def _english(reading: TextReading) -> MarkovGraphTask:
    """The bigrams of the project's own text, which take a while to count."""
    return MarkovGraphTask.from_text(default_text(), reading)


def _letters(path: Path | None, reading: TextReading) -> tuple[MarkovGraphTask, str]:
    """The chain of a text file, or of the project's own text, and what was understood of a file."""
    if path is None:
        return _english(reading), ""
    text, notes = read_text(path, reading)
    chain = bigrams(text, reading)
    understood = f"{path.name}: {'; '.join([*chain.notes, *notes])}"
    return MarkovGraphTask(chain.matrix, chain.symbols), understood
