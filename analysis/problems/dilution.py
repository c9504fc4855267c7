"""Needles in a haystack: what attention leaves to m needles among n keys at temperatures tau(n).

Nothing is trained: a row is softmax(tau(n) z) of given logits z, the needles' all at the gap g. The
distractors' logits are streamed, so that a row may have millions of keys; what is measured of it is
compared with the closed forms of `ssa_theory.theory.dilution`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import logit
from torch import Tensor

from analysis.problems.base import Measure, stack_members
from analysis.problems.partition import stream_partition
from ssa_theory.mechanism import Form, Inputs, Layer, Mechanism, Misfit, Parameters
from ssa_theory.seeds import Stream, member_generator
from ssa_theory.theory import dilution as theory
from tasks.dilution import LAWS, DilutionProbe, Law

SCALED_TAU = np.arange(0, 2.01, 0.25)
"""tau / tau_c at which the freezing transition is measured; 0.5, 1 and 2 are among them."""
GROUP = 64
"""Seeds measured at once."""
_NEWTON = 60  # more passes than any row has needed
_ROWS = ("mechanism", "law", "needles", "seed", "length")
_EXPECTED = ("mechanism", "law", "needles", "length")
_FREEZING = ("scaled_tau", "freezing_length")
MEASURED = {
    "needle_mass": Measure(_ROWS, "total attention on the needles (probability)"),
    "log_odds": Measure(_ROWS, "log of the needles' mass over the distractors' mass"),
    "entropy": Measure(_ROWS, "entropy of the attention row (nats)"),
    "effective_support": Measure(_ROWS, "exp(entropy): the effective number of keys"),
    "critical_inverse_temperature": Measure(
        _ROWS[1:],
        "least tau at which the needles hold target_mass; infinite where no tau does, NaN beyond "
        "critical_length",
    ),
    "log_partition": Measure(
        (*_FREEZING, "seed"),
        "log of the partition function of Gaussian distractors at tau = scaled_tau * sqrt(2 log n) "
        "/ s",
    ),
    "log_partition_slope": Measure(
        (*_FREEZING, "seed"), "its derivative in tau: the mean logit under the attention weights"
    ),
}
THEORY = {
    "needle_mass_theory": Measure(
        _EXPECTED,
        "exact expectation of needle_mass: closed form for equal distractors, quadrature for "
        "bounded and Gaussian ones",
    ),
    "needle_mass_deviation": Measure(
        _EXPECTED, "exact standard deviation of needle_mass over rows (0 for equal distractors)"
    ),
    "entropy_theory": Measure(_EXPECTED, "exact expectation of entropy (nats), likewise"),
    "needle_mass_bound": Measure(
        ("bound", "mechanism", "needles", "length"),
        "certified bounds of needle_mass for any distractors in [-B, B]",
    ),
    "entropy_bound": Measure(
        ("mechanism", "length"),
        "certified lower bound of entropy for any distractors in [-B, B] (nats)",
    ),
    "needle_mass_rem": Measure(
        ("mechanism", "needles", "length"),
        "needle_mass among Gaussian distractors by the random-energy model (asymptotic)",
    ),
    "critical_inverse_temperature_theory": Measure(
        ("bound", "law", "needles", "length"),
        "equal: exact; bounded: certified necessary and sufficient tau; Gaussian: random-energy "
        "model (asymptotic)",
    ),
    "log_partition_theory": Measure(_FREEZING, "exact expectation of log_partition by quadrature"),
    "log_partition_rem": Measure(
        _FREEZING,
        "log_partition by the random-energy model (asymptotic; an upper bound of the expectation)",
    ),
}


@dataclass(frozen=True)
class Haystack:
    """m needles with logit g among distractors with logits that are equal, bounded or Gaussian.

    lengths: n, needles included. needles: m. gap: g, over the mean distractor. bound: bounded
    distractors are uniform on [-B, B]. deviation: s of Gaussian ones. trained_length: the longest
    of training, for mechanisms that ask. target_mass: of the needles at the critical tau, measured
    up to critical_length keys. freezing_lengths: numbers of Gaussian distractors, alone.
    """

    lengths: tuple[int, ...]
    needles: tuple[int, ...]
    gap: float
    bound: float
    deviation: float
    trained_length: int
    target_mass: float
    critical_length: int
    freezing_lengths: tuple[int, ...]

    @property
    def form(self) -> Form:
        """Of a layer that is given its scores, for queries that see different numbers of keys."""
        return Form(1, given_scores=True, position=True, trained_length=self.trained_length)

    def layer(self, mechanism: Mechanism) -> Layer:
        """The layer that wears a mechanism. Raises Misfit for one that tau(n) does not describe."""
        layer = Layer(mechanism, self.form)
        if not replace(layer.mechanism, query=None).is_vanilla:
            raise Misfit(
                f"mechanism {mechanism.name} needs more than a query temperature, and rows here "
                "are softmax(tau(n) z) of given logits"
            )
        return layer

    def inverse_temperature(
        self, layer: Layer, parameters: Parameters
    ) -> Float[np.ndarray, " length"]:
        """tau(n) of a single model at every length."""
        count = torch.tensor(self.lengths, dtype=torch.float64)[:, None]
        tau = layer.inverse_temperature("query", parameters, Inputs(count=count))
        return tau.expand(len(count), 1)[:, 0].numpy()

    def spread(self, law: Law) -> float:
        """The spread of the distractors of a law, in logits."""
        return {"equal": 0.0, "bounded": self.bound, "gaussian": self.deviation}[law]

    def coordinates(self) -> dict[str, Any]:
        """The labels of all dimensions but mechanism and seed."""
        return {
            "law": list(LAWS),
            "needles": list(self.needles),
            "length": list(self.lengths),
            "bound": ["lower", "upper"],
            "freezing_length": list(self.freezing_lengths),
            "scaled_tau": SCALED_TAU,
        }

    def measure(
        self,
        tau: Float[np.ndarray, "mechanism length"],
        seeds: Sequence[int],
        device: torch.device,
        advance: Callable[[int], None],
    ) -> dict[str, np.ndarray]:
        """The arrays of `MEASURED`. All mechanisms see the same distractors.

        advance: is told of 2 + 5 steps for every 64 seeds.
        """
        groups = [seeds[i : i + GROUP] for i in range(0, len(seeds), GROUP)]
        by_law = []
        for law in LAWS:
            # Equal distractors are not random: one seed stands for all.
            drawn = [seeds[:1]] if law == "equal" else groups
            rows = _joined([self._rows(law, tau, g, device, advance) for g in drawn])
            if law == "equal":
                rows = {name: np.repeat(v, len(seeds), -2) for name, v in rows.items()}
            by_law.append(rows)
        axes = {name: MEASURED[name].dims.index("law") for name in by_law[0]}
        measured = {k: np.stack([rows[k] for rows in by_law], axis) for k, axis in axes.items()}
        return measured | _joined([self._freezing(group, device, advance) for group in groups])

    def theory(self, tau: Float[np.ndarray, "mechanism length"]) -> dict[str, np.ndarray]:
        """The arrays of `THEORY`."""
        n, target = np.array(self.lengths), self.target_mass
        sizes = {d: len(v) for d, v in self.coordinates().items()} | {"mechanism": len(tau)}
        values = {k: np.full([sizes[d] for d in m.dims], np.nan) for k, m in THEORY.items()}
        critical = values["critical_inverse_temperature_theory"]
        for j, m in enumerate(self.needles):
            probe = (m, self.gap)
            bounded, gaussian = (*probe, self.bound), (*probe, self.deviation)
            values["needle_mass_theory"][:, 0, j] = theory.equal_needle_mass(n, tau, *probe)
            values["needle_mass_deviation"][:, 0, j] = 0
            values["entropy_theory"][:, 0, j] = theory.equal_entropy(n, tau, *probe)
            for k, law in ((1, "uniform"), (2, "gaussian")):
                for i, at in np.ndindex(tau.shape):
                    spread, rest = self.spread(LAWS[k]), int(n[at]) - m
                    row = theory.expected_row(law, spread, rest, float(tau[i, at]), *probe)
                    values["needle_mass_theory"][i, k, j, at] = row.needle_mass
                    values["needle_mass_deviation"][i, k, j, at] = row.needle_mass_deviation
                    values["entropy_theory"][i, k, j, at] = row.entropy
            values["needle_mass_bound"][:, :, j] = theory.bounded_needle_mass(n, tau, *bounded)
            values["needle_mass_rem"][:, j] = theory.gaussian_needle_mass(n, tau, *gaussian)
            critical[:, 0, j] = theory.equal_critical_inverse_temperature(n, target, *probe)
            critical[:, 1, j] = theory.bounded_critical_inverse_temperature(n, target, *bounded)
            critical[:, 2, j] = theory.gaussian_critical_inverse_temperature(n, target, *gaussian)
        values["entropy_bound"][:] = theory.bounded_entropy_bound(n, tau, self.gap, self.bound)
        counts, beta = np.array(self.freezing_lengths), self._freezing_tau()
        values["log_partition_rem"][:] = theory.gaussian_log_partition(counts, beta, self.deviation)
        for i, k in np.ndindex(beta.shape):
            row = theory.expected_row("gaussian", self.deviation, int(counts[k]), float(beta[i, k]))
            values["log_partition_theory"][i, k] = row.log_partition
        return values

    def _freezing_tau(self) -> Float[np.ndarray, "scaled_tau freezing_length"]:
        counts = np.array(self.freezing_lengths)
        return SCALED_TAU[:, None] * theory.gaussian_freezing(counts, self.deviation)

    def _stream(
        self, law: Law, seeds: Sequence[int], device: torch.device
    ) -> Callable[[int], Tensor]:
        """The distractors of every seed from their beginning, the same bits on every device."""
        probe = DilutionProbe(law, max(self.needles), self.gap, self.spread(law))
        generators = [member_generator(s, Stream.DATA) for s in seeds]
        return lambda count: stack_members(
            [probe.distractors(count, g) for g in generators], device
        )

    def _rows(
        self,
        law: Law,
        by_length: np.ndarray,
        seeds: Sequence[int],
        device: torch.device,
        advance: Callable[[int], None],
    ) -> dict[str, np.ndarray]:
        """What is measured of the rows of one law and a group of seeds, without the axis `law`."""
        needles = torch.tensor(self.needles, dtype=torch.float64, device=device)[:, None]
        counts = np.array(self.lengths)[:, None] - np.array(self.needles)
        tau = _for_members(by_length, len(seeds), device)
        log_rest, mean_rest = stream_partition(self._stream(law, seeds, device), tau, counts)
        tau = tau[:, :, None]
        log_needles = needles.log() + tau * self.gap
        log_partition = torch.logaddexp(log_needles, log_rest)
        mass, rest = (log_needles - log_partition).exp(), (log_rest - log_partition).exp()
        entropy = (log_partition - tau * (mass * self.gap + rest * mean_rest)).clamp(min=0)
        advance(1)
        critical = np.full((len(self.lengths), len(self.needles), len(seeds)), np.nan)
        reachable = np.array(self.lengths) <= self.critical_length
        if reachable.any():
            critical[reachable] = self._critical(law, seeds, counts[reachable], device)
        advance(1)
        values = {
            "needle_mass": mass,
            "log_odds": log_needles - log_rest,
            "entropy": entropy,
            "effective_support": entropy.exp(),
        }
        arrays = {name: v.permute(0, 2, 3, 1).cpu().numpy() for name, v in values.items()}
        return arrays | {"critical_inverse_temperature": critical.transpose(1, 2, 0)}

    def _critical(
        self, law: Law, seeds: Sequence[int], counts: np.ndarray, device: torch.device
    ) -> Float[np.ndarray, "length needles seed"]:
        """The least tau >= 0 at which the needles hold target_mass; infinite where none does.

        The needles' log-odds tau g + log m - log Z(tau) are concave in tau, so Newton's method from
        0 climbs to the least root without overshooting it, and a slope that is no longer positive
        below the wanted level proves that there is none.
        """
        needles = torch.tensor(self.needles, dtype=torch.float64, device=device)
        wanted = float(logit(self.target_mass)) - needles.log()[:, None, None]
        tau = wanted.new_zeros(len(self.needles), len(counts), len(seeds))
        answer = torch.full_like(tau, torch.nan)
        for _ in range(_NEWTON):
            sums = stream_partition(self._stream(law, seeds, device), tau, counts)
            log_rest, mean_rest = (x.diagonal(dim1=0, dim2=2).movedim(-1, 0) for x in sums)
            short = wanted - (tau * self.gap - log_rest)
            slope = self.gap - mean_rest
            undecided = answer.isnan()
            answer = torch.where(undecided & (short <= 1e-10), tau, answer)
            answer = torch.where(undecided & (short > 1e-10) & (slope <= 0), torch.inf, answer)
            if not answer.isnan().any():
                break
            tau = torch.where(answer.isnan(), tau + short / slope, 0.0)
        return answer.permute(1, 0, 2).cpu().numpy()

    def _freezing(
        self, seeds: Sequence[int], device: torch.device, advance: Callable[[int], None]
    ) -> dict[str, np.ndarray]:
        """log Z of Gaussian distractors and its slope."""
        counts = np.array(self.freezing_lengths)[:, None]
        tau = _for_members(self._freezing_tau(), len(seeds), device)
        sums = stream_partition(self._stream("gaussian", seeds, device), tau, counts)
        advance(1)
        log_sum, mean = (x[:, :, 0].cpu().numpy() for x in sums)
        return {"log_partition": log_sum, "log_partition_slope": mean}


def _for_members(tau: np.ndarray, members: int, device: torch.device) -> Tensor:
    """The same tau for every member, the last axis."""
    return torch.from_numpy(tau).to(device)[..., None].expand(*tau.shape, members).contiguous()


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Groups of seeds as one, whatever axes of theirs stand before `seed`."""
    places = {
        name: MEASURED[name].dims.index("seed") - len(MEASURED[name].dims) for name in parts[0]
    }
    return {name: np.concatenate([p[name] for p in parts], axis) for name, axis in places.items()}
