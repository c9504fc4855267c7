"""The properties of the theory, by name: what `ssa-theory verify` tries on fresh cases, and the tests on fixed ones."""

from analysis.properties import denoising, dilution, mechanism, norms, prediction, temperature
from analysis.properties.base import Property

PROPERTIES: dict[str, Property] = {
    found.name: found
    for module in (temperature, norms, dilution, mechanism, denoising, prediction)
    for found in module.PROPERTIES
}

__all__ = ["PROPERTIES", "Property"]
