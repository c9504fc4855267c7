"""Twin tokens: semantically alike, differently sparse (design: the sharp form of the expressivity
proposition).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tasks.embeddings import unit_embeddings


@dataclass(frozen=True, eq=False)
class TwinTokenTask:
    """C pairs of tokens at a given angle that rank the same targets with different sharpness.

    Rows 0..C-1 are the base tokens, uniform on the sphere, with target softmax(beta_general z); row
    C+c is the twin of row c, rotated by `angle` towards a random orthogonal direction, with target
    softmax(beta_specific z_c). The logits z_c = standardise(b_c M E^T), M Gaussian, are realisable
    by a bounded weight matrix, so whatever norm a model needs beyond it is the price of the
    difference in sharpness. That takes two pairs or more: a single pair has only its twins to tell
    apart, and its standardised logits are +-1 at any angle.

    Fields: embeddings (2C, d), unit rows; target (2C, 2C), row-stochastic and positive; angle in
    radians.

    >>> task = TwinTokenTask.sample(pairs=2, dim=6, angle=0.1, generator=np.random.default_rng(0))
    >>> bool(np.isclose(task.embeddings[0] @ task.embeddings[2], np.cos(0.1)))
    True
    """

    embeddings: Float[np.ndarray, "token dim"]
    target: Float[np.ndarray, "token token"]
    angle: float

    @classmethod
    def sample(
        cls,
        *,
        pairs: int,
        dim: int,
        angle: float,
        generator: np.random.Generator,
        beta_general: float = 0.5,
        beta_specific: float = 4.0,
    ) -> "TwinTokenTask":
        """Draw one task. The same generator state at another angle gives the same pairs, turned
        further.

        Raises ValueError for pairs < 1, dim < 2, an angle outside (0, pi/2] or a sharpness that is
        not positive.
        """
        if pairs < 1:
            raise ValueError(
                f"the number of twin pairs must be at least 1, got {pairs}: ask for one or more pairs"
            )
        if dim < 2:
            raise ValueError(
                f"twins need an embedding dimension of at least 2 to be apart, got {dim}: choose dim >= 2"
            )
        if not 0 < angle <= np.pi / 2:
            raise ValueError(
                f"the angle between twins must lie in (0, pi/2] radians, got {angle}: choose a value in that range"
            )
        for name, beta in (("beta_general", beta_general), ("beta_specific", beta_specific)):
            if not (np.isfinite(beta) and beta > 0):
                raise ValueError(
                    f"{name} must be positive and finite, got {beta}: it multiplies the target logits"
                )
        base = unit_embeddings(pairs, dim, generator)
        side = generator.standard_normal((pairs, dim))
        side -= (side * base).sum(-1, keepdims=True) * base
        side /= np.linalg.norm(side, axis=-1, keepdims=True)
        weight = generator.standard_normal((dim, dim))
        embeddings = np.concatenate([base, np.cos(angle) * base + np.sin(angle) * side])
        logits = base @ weight @ embeddings.T
        logits -= logits.mean(-1, keepdims=True)
        logits /= logits.std(-1, keepdims=True)
        scaled = np.concatenate([beta_general * logits, beta_specific * logits])
        target = np.exp(scaled - scaled.max(-1, keepdims=True))
        return cls(embeddings, target / target.sum(-1, keepdims=True), float(angle))
