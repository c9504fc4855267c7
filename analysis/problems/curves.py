"""Where curves of loss reach a level, and what models are there: comparisons at equal loss."""

import numpy as np
from jaxtyping import Float


def common_loss(
    gap: Float[np.ndarray, "mechanism seed record"], progress: float
) -> tuple[Float[np.ndarray, " seed"], Float[np.ndarray, "mechanism seed"]]:
    """The common loss of each seed, and the place among the records at which each model first
    reaches it.

    The common loss is the one at which the slowest model of the seed, that of the largest final
    loss, has made the share `progress` of its way down from its first loss; the others end lower,
    so all models reach it. The place lies between two records, linear in the loss. Both are NaN for
    a seed in which a model diverged (NaN), or the slowest ended no better than some model began:
    nothing is learned at such a loss that could be compared.
    """
    first, final = gap[:, :, 0].min(0), gap[:, :, -1].max(0)
    level = np.where(final < first, first - progress * (first - final), np.nan)
    after = np.maximum((gap <= level[:, None]).argmax(-1), 1)[..., None]
    high, low = (np.take_along_axis(gap, after - back, -1)[..., 0] for back in (1, 0))
    return level, after[..., 0] - (level - low) / (high - low)


def interpolate(
    values: Float[np.ndarray, "mechanism seed record *rest"],
    place: Float[np.ndarray, "mechanism seed"],
) -> Float[np.ndarray, "mechanism seed *rest"]:
    """values at a place between two records, linearly; NaN where the place is NaN."""
    last = values.shape[2] - 1
    before = np.clip(np.nan_to_num(np.floor(place)).astype(int), 0, last - 1)
    mechanism, seed = np.indices(place.shape)
    share = (place - before).reshape(place.shape + (1,) * (values.ndim - 3))
    low, high = (values[mechanism, seed, at] for at in (before, before + 1))
    return (1 - share) * low + share * high


def first_passage(
    gap: Float[np.ndarray, " step *run"], level: Float[np.ndarray, "*#run"]
) -> tuple[Float[np.ndarray, "*run"], np.ndarray]:
    """The first step at which the gap is at most the level (the last step where it never is), and
    whether it ever is.

    A loss that is not finite reaches nothing.
    """
    with np.errstate(invalid="ignore"):
        below = gap <= level
    reached = np.asarray(below.any(0))
    return np.where(reached, below.argmax(0), len(gap) - 1).astype(float), reached
