"""Whether a normaliser gives rows of attention: one of the user's own is tried before it trains."""

import numpy as np
import torch

from ssa_theory.mechanism import Layer, Misfit


def with_sound_rows(layer: Layer) -> Layer:
    """The layer, if its normaliser gives sound rows of some scores. Raises Misfit where not.

    Weights may be negative and rows may sum to less than one, or to more, but not to less than
    zero. The registry is tested; a normaliser of the user's own is tried here, before it trains.
    """
    generator = np.random.default_rng(0)
    start = layer.normalizer.initial("key", layer.form, [generator])
    scores = torch.from_numpy(3 * generator.standard_normal((16, 5, 1)))
    try:
        rows = layer.normalizer.rows(start, scores, 1)
        sums = rows.sum(1)
        if rows.shape != scores.shape:
            reason = f"shape {tuple(rows.shape)} for scores {tuple(scores.shape)}"
        elif not rows.isfinite().all():
            reason = "weights that are not finite"
        elif (sums < 0).any():
            reason = f"a sum of {sums.min():.3g}"
        else:
            return layer
    except Exception as error:  # the user's code may fail in any way
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise Misfit(
        f"mechanism {layer.mechanism.name} needs a normaliser whose rows are finite and do not sum "
        f"to less than zero, got {reason}: mend its rows"
    )
