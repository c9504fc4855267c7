"""What may silently spoil a number: found while training, stored in the result, said by figures and
report.
"""

import xarray as xr

GUARDS = {
    "diverged": ("diverged model", "left out"),
    "underflow": (
        "model",
        "with attention weights that underflow in the training precision",
    ),
    "rank_deficient": ("model", "whose embeddings are of deficient rank"),
    "gate_saturated": ("model", "with a saturated gate"),
    "unsolved": ("minimal norm", "whose solve did not converge, left out"),
}
"""By variable, true where it happened: what it happened to, and what happened. A prefix names
another regime.
"""


HARMLESS = frozenset({"underflow"})
"""Guards that tell of something which changes no number that is drawn."""


def warnings_of(dataset: xr.Dataset, harmless: bool = True) -> list[str]:
    """One phrase for each guard that found something, with its count; nothing where all is well.

    harmless: whether those that change no number are told of, too.
    """
    phrases = []
    for guard, (noun, about) in GUARDS.items():
        if guard in HARMLESS and not harmless:
            continue
        count = sum(
            int(dataset[name].sum())
            for name in dataset
            if name == guard or str(name).endswith(f"_{guard}")
        )
        if count:
            phrases.append(f"{count} {noun}{'' if count == 1 else 's'} {about}")
    return phrases
