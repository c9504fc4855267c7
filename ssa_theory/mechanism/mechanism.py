"""A mechanism: what an attention layer does beyond vanilla attention, composed of parts."""

import math
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, get_type_hints

from torch import Tensor

from ssa_theory.mechanism.contrast import Contrast
from ssa_theory.mechanism.gates import Gate
from ssa_theory.mechanism.normalizers import Normalizer, Softmax
from ssa_theory.mechanism.parts import Form, Misfit, Parameters, Part, Role, Shape, beside, own
from ssa_theory.mechanism.score_maps import Bilinear, ScoreMap, Side
from ssa_theory.mechanism.scores import Score
from ssa_theory.mechanism.temperature import Temperature

VANILLA = "vanilla"
"""The peer of all comparisons."""
DOTS, DASH_DOTS, LONG = (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2))
"""Line styles beside matplotlib's own: offset and dashes, in points."""


@dataclass(frozen=True)
class Look:
    """How a mechanism is drawn, in every figure: matplotlib's colour, marker and line style.

    >>> Look("#0072b2").marker
    '*'
    """

    color: str = "#7f7f7f"
    marker: str = "*"
    line: str | tuple[int, tuple[int, ...]] = (0, (3, 2, 1, 2, 1, 2))


@dataclass(frozen=True)
class Shift(Part):
    """A learned constant added to the scores before temperatures scale them: which keys lie above
    zero.
    """

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        return {"offset": ()}


@dataclass(frozen=True)
class Mechanism:
    """What attention does beyond vanilla, for query i and key j that is one of the n keys that i
    sees:

        z_ij = tau_q(x_i) tau_k(x_j) (s(x_i, x_j) + shift) + b(x_j)
        p_i  = normalise(z_i), less lambda normalise(z'_i) of a contrast
        y_i  = g(x_i) * sum_j p_ij tau_v(x_j) W_v x_j

    query, key, value: the inverse temperatures tau, or None for 1. score: s, bilinear unless named.
    shift: a learned constant. bias: b, a gate inside the softmax. normalizer: softmax unless named.
    gate: g on the output. contrast: a second map z', a share lambda of which is taken off. evaluation:
    the normaliser of a model that was trained with softmax, once it is evaluated.

    A temperature acts as far as a layer allows (see `fitted`); every other part must have something
    to act on.

    name: for results and figures. formula, source: what it does beyond vanilla, and where it comes
    from. look: how it is drawn. Raises ValueError for a name that is empty or has spaces or
    slashes, and for a part that is none of its kind.

    >>> from ssa_theory.mechanism.temperature import Selective
    >>> Mechanism("mine", query=Selective()).fitted(Form(dim=4)).query
    Selective(score=WeightShared(), link=Tanh(), position=False)
    """

    name: str
    formula: str = ""
    source: str = ""
    query: Temperature | None = None
    key: Temperature | None = None
    value: Temperature | None = None
    score: ScoreMap = field(default_factory=Bilinear)
    shift: Shift | None = None
    bias: Score | None = None
    normalizer: Normalizer = field(default_factory=Softmax)
    gate: Gate | None = None
    contrast: Contrast | None = None
    evaluation: Normalizer | None = None
    look: Look = Look()

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set(" \t\n/\\"):
            raise ValueError(
                f"a mechanism's name stands in files and figures and must have no spaces or slashes, "
                f"got {self.name!r}: rename it"
            )
        for name, part_type in _part_types().items():
            if not isinstance(part := getattr(self, name), part_type):
                raise ValueError(
                    f"{name} of mechanism {self.name} must be a part made for it, got {part!r:.60}: "
                    f"write {name}=CLASS(...), an instance"
                )

    def parts(self) -> dict[str, Part]:
        """The parts that it has, in the order in which they draw their initial parameters."""
        return {name: part for name in _ROLE if (part := getattr(self, name)) is not None}

    @property
    def is_vanilla(self) -> bool:
        """Whether all parts are those of vanilla attention."""
        return all(
            getattr(self, f.name) == getattr(_VANILLA, f.name)
            for f in fields(self)
            if f.name in _ROLE
        )

    def fitted(self, form: Form) -> "Mechanism":
        """The mechanism as a layer of this form wears it.

        Without a value map value temperatures are left out, position terms where all queries see
        the same n, token terms where tokens are not seen, a shift that only a softmax sees. Raises
        Misfit where nothing is left of it then, or another part does not fit.
        """
        worn: dict[str, Part | None] = {}
        missing: list[str] = []
        for name, part in self.parts().items():
            try:
                worn[name] = part.fitted(_ROLE[name], form)
            except Misfit as reason:
                missing.append(str(reason))
                worn[name] = None
                if not isinstance(part, Temperature):
                    raise Misfit(f"mechanism {self.name} needs {reason}") from None
        fitted = replace(self, **worn)
        if fitted.shift is not None and fitted.key is None and fitted.normalizer == Softmax():
            missing.append("a key temperature or rows that feel a shift of all scores")
            fitted = replace(fitted, shift=None)
        if fitted.evaluation is not None and fitted.normalizer != Softmax():
            raise Misfit(f"mechanism {self.name} needs a softmax, which its evaluation replaces")
        if fitted.is_vanilla and not self.is_vanilla:
            raise Misfit(f"mechanism {self.name} needs {' or '.join(dict.fromkeys(missing))}")
        return fitted

    def with_parts_of(self, other: "Mechanism") -> "Mechanism":
        """Both at once, named `self+other` and drawn like self. Raises ValueError where both change
        the same part.
        """
        changed = {
            name: getattr(other, name)
            for name in _ROLE
            if getattr(other, name) != getattr(_VANILLA, name)
        }
        twice = [name for name in changed if getattr(self, name) != getattr(_VANILLA, name)]
        if twice:
            raise ValueError(
                f"mechanisms {self.name} and {other.name} cannot be joined, both change "
                f"{', '.join(twice)}: write a mechanism of your own"
            )
        return replace(
            self,
            name=f"{self.name}+{other.name}",
            formula=f"{self.formula}; {other.formula}",
            source=f"{self.source}; {other.source}",
            **changed,
        )

    def scores(
        self, parameters: Parameters, query: Side, keys: Side, bias: Tensor | None
    ) -> Tensor:
        """z (query, key, member) from q, k, their temperatures, and b (..., key, member) of the
        keys. Parameters are named `part.name`.
        """
        z = self.score(own(parameters, "score"), query, keys)
        if self.shift is not None:
            shift = parameters["shift.offset"]
            if query.tau is not None:
                shift = shift * beside(query.tau)
            z = z + (shift if keys.tau is None else shift * keys.tau)
        return z if bias is None else z + bias

    def given_scores(
        self, parameters: Parameters, given: Tensor, tau: Tensor, bias: Tensor | None
    ) -> Tensor:
        """z of given scores: tau (given + shift) + b, tau the whole factor (#query, #key, member)."""
        z = self.score.given(own(parameters, "score"), given, tau)
        if self.shift is not None:
            z = z + tau * parameters["shift.offset"]
        return z if bias is None else z + bias

    def shapes(self, form: Form) -> dict[str, Shape]:
        """The shapes of what its parts learn, `part.name` -> shape; of the parts that fit."""
        fitted = self.fitted(form)
        return {
            f"{name}.{short}": shape
            for name, part in fitted.parts().items()
            for short, shape in part.shapes(_ROLE[name], form).items()
        }

    def added_parameters(self, form: Form) -> int:
        """How many parameters it adds to a vanilla layer of this form, one model, one head."""
        own_map = form.dim**2 if self.score.maps_keys else 0
        own_scale = form.given_scores and self.fitted(form).has_scale
        return sum(math.prod(s) for s in self.shapes(form).values()) + own_map - own_scale

    @property
    def has_scale(self) -> bool:
        """Whether its query temperature has a learned factor."""
        return self.query is not None and self.query.has_scale

    def role(self, part: str) -> Role:
        """Whose tokens a part reads."""
        return _ROLE[part]


_ROLE: dict[str, Role] = {
    "query": "query",
    "key": "key",
    "value": "value",
    "score": "query",
    "shift": "key",
    "bias": "key",
    "normalizer": "key",
    "gate": "query",
    "contrast": "query",
    "evaluation": "key",
}


@cache
def _part_types() -> dict[str, Any]:
    """Of what class each part is, or None where it may be left out."""
    hints = get_type_hints(Mechanism)
    return {name: hints[name] for name in _ROLE}


_VANILLA = Mechanism(VANILLA)
