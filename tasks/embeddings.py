"""Fixed unit-norm token embeddings."""

import numpy as np
from jaxtyping import Float


def unit_embeddings(
    count: int, dim: int, generator: np.random.Generator, similarity: float = 0.0
) -> Float[np.ndarray, "{count} {dim}"]:
    """Random unit vectors e_i = normalise(sqrt(similarity) c + sqrt(1 - similarity) u_i).

    c and u_i are independent and uniform on the unit sphere of R^dim, so similarity 0 gives uniform
    directions and similarity 1 gives one direction for every token. With dim < count the tokens
    compete for directions.

    Raises ValueError for count < 1, dim < 1, a similarity outside [0, 1], or 0.5 in one dimension,
    where c and u_i may cancel.

    >>> unit_embeddings(3, 2, np.random.default_rng(0)).shape
    (3, 2)
    """
    if count < 1:
        raise ValueError(
            f"the number of tokens must be at least 1, got {count}: ask for one or more tokens"
        )
    if dim < 1:
        raise ValueError(f"the embedding dimension must be at least 1, got {dim}: choose dim >= 1")
    if not 0 <= similarity <= 1:
        raise ValueError(
            f"similarity must lie in [0, 1], got {similarity}: 0 is uniform, 1 makes all tokens equal"
        )
    if dim == 1 and similarity == 0.5:
        raise ValueError(
            "similarity 0.5 in dimension 1 can cancel a token to zero: choose dim >= 2 or another similarity"
        )
    common = _normalise(generator.standard_normal((1, dim)))
    own = _normalise(generator.standard_normal((count, dim)))
    return _normalise(np.sqrt(similarity) * common + np.sqrt(1 - similarity) * own)


def _normalise(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
