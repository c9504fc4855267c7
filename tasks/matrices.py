"""Transition matrices as programs hold them: lists, arrays and tables, in any precision."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def numbers_and_names(
    matrix: Any, labels: Sequence[object] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A matrix in float64, and a name for each row: as given, those of a table, or its number.

    The rows of an array of less precision are divided by their sums, where these are 1 as far as it
    can tell. Raises ValueError for what is no matrix of numbers, and for a table of which rows and
    columns have other names.

    >>> third = np.full((3, 3), 1 / 3, dtype=np.float32)
    >>> numbers_and_names(third)[0].sum(1).tolist(), numbers_and_names(third, "abc")[1]
    ([1.0, 1.0, 1.0], ('a', 'b', 'c'))
    """
    if labels is None and hasattr(matrix, "index") and hasattr(matrix, "columns"):  # of pandas
        labels = list(matrix.index)
        if labels != list(matrix.columns):
            raise ValueError(
                "rows and columns of a table must have the same names in the same order, got rows"
                f" {labels!r:.60} and columns {list(matrix.columns)!r:.60}: reindex it, or give an"
                " array"
            )
    try:
        array = np.asarray(matrix)
        exact = np.array(array, dtype=np.float64, ndmin=1)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"a transition matrix must be made of numbers ({error}): give equally long rows"
        ) from error
    if exact.ndim == 2 and array.dtype.kind == "f" and array.dtype.itemsize < 8:
        sums = exact.sum(1, keepdims=True)
        if (abs(sums - 1) <= exact.shape[1] * np.finfo(array.dtype).eps).all():
            exact = exact / sums
    return exact, tuple(map(str, range(len(exact)) if labels is None else labels))
