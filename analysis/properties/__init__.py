"""The properties of the theory, by name: what `ssa-theory verify` tries on fresh cases, and the
tests on fixed ones.
"""

from analysis.properties import (
    critical,
    denoising,
    dilution,
    mechanism,
    norms,
    paper,
    prediction,
    rows,
    temperature,
)
from analysis.properties.base import Property

PROPERTIES: dict[str, Property] = {
    own.name: own
    for module in (
        temperature,
        norms,
        dilution,
        critical,
        mechanism,
        rows,
        denoising,
        prediction,
        paper,
    )
    for own in module.PROPERTIES
}

__all__ = ["PROPERTIES", "Property"]
