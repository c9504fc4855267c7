"""A contrast: a second attention map, of which a share is taken off the first.

    p_i = normalise(z_i) - lambda normalise(z'_i),    s'(x_i, x_j) = x_i W' x_j

Differential attention, arXiv 2410.05258: what both maps attend to cancels.
"""

from dataclasses import dataclass
from typing import final

from ssa_theory.mechanism.parts import (
    INITIAL_SCALE,
    Form,
    Generators,
    Misfit,
    Parameters,
    Part,
    Role,
    Shape,
    normal,
    zeros,
)


@final
@dataclass(frozen=True)
class Contrast(Part):
    """The second map's W' (weight), and lambda (share), a number of either sign that starts at
    `start`.

    Both maps have the temperatures, shift and bias of the mechanism. Where keys have a width of
    their own, in a module's heads, they have a second map of their own too (key_map). W' starts as
    W does, of another draw. The paper's lambda is exp of a product of vectors less exp of another,
    plus 0.2 in the first layer; here it is one number, and a head's output is not normalised
    afterwards.
    """

    start: float = 0.2

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        weight = (form.dim,) if form.constant_query else (form.width("query"), form.dim)
        keys = {} if form.key_dim is None else {"key_map": (form.key_dim, form.dim)}
        return {"weight": weight, "share": ()} | keys

    def initial(self, role: Role, form: Form, generators: Generators) -> Parameters:
        shapes = self.shapes(role, form)
        weight = normal(generators, *shapes["weight"]) * (INITIAL_SCALE / form.dim**0.5)
        drawn = {"weight": weight, "share": zeros(generators) + self.start}
        if "key_map" in shapes:
            drawn["key_map"] = normal(generators, *shapes["key_map"]) / form.width("key") ** 0.5
        return drawn

    def fitted(self, role: Role, form: Form) -> "Contrast":
        if form.given_scores:
            raise Misfit("queries and keys, of which only the scores are given here")
        return self
