"""Small formats: LGL, NCOL, graph6 and sparse6, and the matrices of numpy and scipy."""

from io import BytesIO
from typing import Any

import networkx as nx
import numpy as np
import scipy.sparse

from tasks.graph_files.format import (
    GraphFileError,
    GraphFormat,
    Parsed,
    RawFile,
    edge_graph,
)


class LGL(GraphFormat):
    """LGL of the Large Graph Layout: `# node`, then its neighbours, with weights; undirected."""

    name, title, suffixes = "lgl", "LGL", (".lgl",)

    def read(self, file: RawFile) -> Parsed:
        edges, nodes = [], []
        for line in filter(None, map(str.strip, file.text.split("\n"))):
            words = line.split()
            if words[0] == "#" and len(words) == 2:
                nodes.append(words[1])
            elif nodes and len(words) in (1, 2):
                data = {"weight": words[1]} if len(words) == 2 else {}
                edges.append((nodes[-1], words[0], data))
            else:
                raise ValueError(f"the line {line!r:.40} is neither '# node' nor 'node [weight]'")
        graph = edge_graph(edges, nodes, directed=False)
        return Parsed(graph, weight="weight")


class NCOL(GraphFormat):
    """NCOL of the Large Graph Layout: `node node [weight]`; undirected."""

    name, title, suffixes = "ncol", "NCOL", (".ncol",)

    def read(self, file: RawFile) -> Parsed:
        edges = []
        for line in filter(None, map(str.strip, file.text.split("\n"))):
            words = line.split()
            if len(words) not in (2, 3):
                raise ValueError(f"the line {line!r:.40} is not 'node node [weight]'")
            data = {"weight": words[2]} if len(words) == 3 else {}
            edges.append((words[0], words[1], data))
        graph = edge_graph(edges, directed=False)
        return Parsed(graph, weight="weight")


class Graph6(GraphFormat):
    """graph6 and sparse6, one graph a file; undirected, without weights."""

    name, title, suffixes = "graph6", "graph6 or sparse6", (".g6", ".s6")

    def begins(self, head: str) -> bool:
        return head.startswith((">>graph6<<", ">>sparse6<<"))

    def read(self, file: RawFile) -> Parsed:
        lines = file.content.split()
        if len(lines) != 1:
            raise GraphFileError(f"holds {len(lines)} graphs: give a file with one")
        if lines[0].removeprefix(b">>sparse6<<").startswith(b":~~"):  # the form of large numbers
            raise GraphFileError("names more than 258047 nodes: take a part of it")
        if lines[0].startswith((b":", b">>sparse6<<")):
            return Parsed(nx.from_sparse6_bytes(lines[0]))
        return Parsed(nx.from_graph6_bytes(lines[0]))


class Numpy(GraphFormat):
    """A square matrix in .npy or .npz (one array, or scipy's sparse form)."""

    name, title, suffixes = "numpy", "numpy matrix", (".npy", ".npz")

    def begins(self, head: str) -> bool:
        return head.startswith(("\x93NUMPY", "PK\x03\x04"))

    def read(self, file: RawFile) -> Parsed:
        loaded = np.load(BytesIO(file.content), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return matrix_graph(loaded)
        if not any(name.endswith(".npy") for name in loaded.zip.namelist()):
            raise GraphFileError(
                "is a zip file without arrays, as a spreadsheet is: save it as CSV"
            )
        if "format" in loaded:
            return matrix_graph(scipy.sparse.load_npz(BytesIO(file.content)))
        if len(loaded.files) != 1:
            raise GraphFileError(f"holds {len(loaded.files)} arrays: give a file with one")
        return matrix_graph(loaded[loaded.files[0]])


def matrix_graph(matrix: Any, directed: bool = True, first: int = 0) -> Parsed:
    """The graph of a square matrix, dense or sparse; what is 0 is no edge.

    first: the number of its first node. Raises ValueError for other arrays.
    """
    entries: Any = scipy.sparse.coo_array(matrix)
    if entries.ndim != 2 or entries.shape[0] != entries.shape[1]:
        raise ValueError(f"its matrix has the shape {entries.shape}, which is not square")
    if entries.dtype.kind not in "biuf":
        raise ValueError(
            f"its matrix has entries of the type {entries.dtype}, which are no numbers"
        )
    triples = zip(*(a.tolist() for a in (*entries.coords, entries.data)), strict=True)
    edges = [
        (i + first, j + first, {"weight": float(weight)})
        for i, j, weight in triples
        if weight != 0 and (directed or i >= j)
    ]
    nodes = range(first, first + entries.shape[0])
    return Parsed(edge_graph(edges, nodes, directed), weight="weight" if edges else None)
