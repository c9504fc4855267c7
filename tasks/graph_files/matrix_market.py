"""Matrix Market. scipy's reader ends the whole process at some damaged files."""

import numpy as np

from tasks.graph_files.format import GraphFormat, Parsed, RawFile, check_size, edge_graph

_FIELDS = {"real": 3, "double": 3, "integer": 3, "pattern": 2}


class MatrixMarket(GraphFormat):
    """Matrix Market: entry (i, j) is the weight of i -> j; symmetric ones are undirected."""

    name, title, suffixes = "matrix-market", "Matrix Market", (".mtx", ".mm")

    def begins(self, head: str) -> bool:
        return head.lower().startswith("%%matrixmarket")

    def read(self, file: RawFile) -> Parsed:
        banner, *lines = file.text.split("\n")
        words = banner.lower().split()
        if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
            raise ValueError("it does not begin with %%MatrixMarket matrix and three words")
        _, _, form, field, symmetry = words
        if field not in _FIELDS or symmetry not in ("general", "symmetric", "skew-symmetric"):
            raise ValueError(f"its matrix is {field} and {symmetry}: no weights can be that")
        rows = [line.split() for line in lines if line.strip() and line.lstrip()[0] != "%"]
        size = [int(word) for word in rows[0]]
        if size[0] != size[1]:
            raise ValueError(f"its matrix has the shape {tuple(size[:2])}, which is not square")
        check_size(size[0])
        entries = _listed if form == "coordinate" else _stacked
        triples = entries(rows[1:], size, _FIELDS[field], symmetry)
        edges = [(i, j, {"weight": value}) for i, j, value in triples if value != 0]
        if symmetry == "skew-symmetric":
            edges += [(j, i, {"weight": -data["weight"]}) for i, j, data in edges]
        graph = edge_graph(edges, range(1, size[0] + 1), directed=symmetry != "symmetric")
        return Parsed(graph, weight="weight" if edges and field != "pattern" else None)


_Triples = list[tuple[int, int, float]]


def _listed(rows: list[list[str]], size: list[int], fields: int, symmetry: str) -> _Triples:
    """Entries with their places."""
    if len(size) != 3 or len(rows) != size[2]:
        raise ValueError(f"it has {len(rows)} entries, where its size says {size[2:]}")
    if any(len(row) != fields for row in rows):
        raise ValueError(f"it has entries that are not of {fields} numbers")
    triples = [(int(row[0]), int(row[1]), float(row[2]) if fields == 3 else 1.0) for row in rows]
    for i, j, _ in triples:
        if not (1 <= i <= size[0] and 1 <= j <= size[0]):
            raise ValueError(f"it has an entry at ({i}, {j}), outside its size")
    return triples


def _stacked(rows: list[list[str]], size: list[int], fields: int, symmetry: str) -> _Triples:
    """All entries, column by column; of symmetric ones those from the diagonal on."""
    values = [float(word) for row in rows for word in row]
    n = size[0]
    least = {"general": -n, "symmetric": 0, "skew-symmetric": 1}[symmetry]
    places = np.argwhere(np.tri(n, k=-least, dtype=bool).T) + 1 if len(values) <= n * n else []
    if len(size) != 2 or len(values) != len(places):
        raise ValueError(f"it has {len(values)} entries, which is not what its size says")
    return [(int(i), int(j), x) for (j, i), x in zip(places, values, strict=True)]
