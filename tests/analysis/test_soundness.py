"""A part of the user's own that mixes models is refused before it trains."""

from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor

from analysis.experiments.atlas.problems import WORLDS
from analysis.problems import GraphProblem, compare, soundness
from ssa_theory import Mechanism
from ssa_theory.mechanism import Misfit
from ssa_theory.mechanism.parts import Form, Generators, Parameters, Role, View
from ssa_theory.mechanism.scores import Linear
from ssa_theory.mechanism.temperature import Selective, Temperature


@dataclass(frozen=True)
class Own(Temperature):
    """exp(w . x), as it should be, or not."""

    how: Literal["sound", "transposed", "mean"]

    def shapes(self, role: Role, form: Form) -> dict[str, tuple[int, ...]]:
        return {"w": (form.width(role),)}

    def initial(self, role: Role, form: Form, generators: Generators) -> Parameters:
        return {"w": torch.zeros(form.width(role), len(generators), dtype=torch.float64)}

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        assert view.token is not None
        tau = (view.token * parameters["w"]).sum(-2).exp()
        if self.how == "mean":
            return tau.mean(-1, keepdim=True)
        return tau.T if self.how == "transposed" else tau


def _own(how: Literal["sound", "transposed", "mean"]) -> Mechanism:
    return Mechanism(how, "tau = exp(w . x)", query=Own(how))


@pytest.mark.parametrize("name", [n for n in WORLDS if n not in ("length", "location")])
def test_parts_that_keep_models_apart_are_worn(name: str) -> None:
    problem = WORLDS[name].problem
    for mechanism in (_own("sound"), Mechanism("mine", "", query=Selective(), bias=Linear())):
        assert problem.layer(mechanism).mechanism.name == mechanism.name


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("transposed", "RuntimeError: The size of tensor a"),
        ("mean", "other losses of two models together than of each alone"),
    ],
)
@pytest.mark.parametrize("name", ["graph", "hierarchy", "denoise", "imbalance"])
def test_parts_that_mix_models_are_refused(name: str, how, reason: str) -> None:
    with pytest.raises(Misfit, match=f"compute every model by itself.*got {reason}"):
        WORLDS[name].problem.layer(_own(how))


def test_as_many_models_as_tokens_do_not_hide_a_part_that_takes_one_for_the_other() -> None:
    with pytest.raises(Misfit, match="mend its parts"):
        compare(GraphProblem(nodes=8), ["vanilla", _own("transposed")], seeds=8, steps=1)


def test_a_part_need_not_be_hashable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Own, "__hash__", None)
    result = compare(GraphProblem(), ["vanilla", _own("sound")], seeds=2, steps=1)
    assert result["mechanism"].values.tolist() == ["vanilla", "sound"]


def test_a_mechanism_is_tried_once_a_kind_of_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundness, "_APART", set())
    GraphProblem().layer(_own("sound"))
    monkeypatch.setattr(GraphProblem, "block", None)
    assert GraphProblem(dim=3).layer(_own("sound")).form.dim == 3
