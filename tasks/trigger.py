"""Trigger: return the mean of the tokens where the query says so, else nothing (sinks and gates)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from tasks.sampling import check_count


@dataclass(frozen=True, eq=False)
class TriggerSample:
    """Contexts and whether their query carries the trigger."""

    content: Float[np.ndarray, "sample length content"]
    triggered: Bool[np.ndarray, " sample"]


@dataclass(frozen=True)
class TriggerTask:
    """L tokens z_j ~ N(0, I_c), independent, and a query that carries the trigger with probability
    p: the target is their mean where it does, and zero where it does not.

    After arXiv 2603.11487, whose tokens follow another law; this one has its floor in closed form.
    A token is x_j = (z_j, 1): its last coordinate is the same for all, so that a score can be high
    or low for all of them at once. An anchor is one more key, first, with a coordinate of its own
    and no content. The query is one of two unit vectors, and no key.

    The target is known exactly, so Bayes has no risk, E||target - estimate||^2. It is reached

        by a gate on the output, g(trigger) = 1 and g(no trigger) = 0;
        by a sink, or an anchor of value zero, that takes all attention without the trigger;
        by rows that are not normalised, which are zero where no score is positive.

    It is not reached by rows that sum to one over the tokens and do not feel a constant added to
    all scores, where scores w(query) . x_j and values A x_j + b are linear in the token. With z_j =
    mean + d_j the rows depend on the d_j alone, and the mean of Gaussians is independent of those:
    the output is A mean + (A r + b), r(d) = sum_j p_j d_j, and

        risk = p E||(A - I) mean||^2 + (1 - p) E||A mean||^2 + E||A r + b||^2
             >= (p ||A - I||_F^2 + (1 - p) ||A||_F^2) / L  >=  c p (1 - p) / L,

    with equality for uniform rows, A = p I and b = 0. A temperature of the query scales w and can
    do nothing about it; nor can a second map of the same kind, whose share is taken off.

    Fields: content, c; length, L; probability, p; anchor. Raises ValueError for content or length <
    1, and a probability outside (0, 1).

    >>> task = TriggerTask(content=4, length=8, probability=0.5)
    >>> task.zero_risk, task.floor
    (0.25, 0.125)
    """

    content: int = 4
    length: int = 8
    probability: float = 0.5
    anchor: bool = False

    def __post_init__(self) -> None:
        for name, size in (("content", self.content), ("length", self.length)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}: choose {name} >= 1")
        if not 0 < self.probability < 1:
            raise ValueError(
                f"the probability of the trigger must lie strictly between 0 and 1, got "
                f"{self.probability}: choose 0.5, say"
            )

    @property
    def dim(self) -> int:
        """Width of a key: its content, the common coordinate, and the anchor's."""
        return self.content + 1 + self.anchor

    @property
    def keys(self) -> int:
        """How many there are."""
        return self.length + self.anchor

    @property
    def zero_risk(self) -> float:
        """Of the estimate zero, p c / L: the best constant, as the target's mean is zero."""
        return self.probability * self.content / self.length

    @property
    def floor(self) -> float:
        """c p (1 - p) / L: the least risk of softmax without sink, gate or anchor, if scores and
        values are linear.
        """
        return (1 - self.probability) * self.zero_risk

    def linear_risk(self, value: Float[np.ndarray, "content content"]) -> float:
        """Of uniform rows and the values A z_j, A = value: (p ||A - I||^2 + (1 - p) ||A||^2) / L."""
        p, off = self.probability, value - np.eye(self.content)
        return float((p * (off**2).sum() + (1 - p) * (value**2).sum()) / self.length)

    def sample(self, count: int, generator: np.random.Generator) -> TriggerSample:
        """Independent contexts. Each uses the same number of normals, so drawing n and then m gives
        the n + m at once. Raises ValueError for count < 1.
        """
        check_count(count, "samples")
        normal = generator.standard_normal((count, 1 + self.length * self.content))
        content = normal[:, 1:].reshape(count, self.length, self.content)
        return TriggerSample(content, normal[:, 0] < ndtri(self.probability))

    def tokens(
        self, content: Float[np.ndarray, "sample length content"]
    ) -> Float[np.ndarray, "sample key dim"]:
        """The keys: the tokens, after the anchor where there is one."""
        tokens = np.zeros((len(content), self.keys, self.dim))
        tokens[:, self.anchor :, : self.content] = content
        tokens[:, self.anchor :, self.content] = 1.0
        if self.anchor:
            tokens[:, 0, -1] = 1.0
        return tokens

    def target(
        self,
        content: Float[np.ndarray, "sample length content"],
        triggered: Bool[np.ndarray, " sample"],
    ) -> Float[np.ndarray, "sample dim"]:
        """The mean of the tokens' content, or zero; in the other coordinates always zero."""
        target = np.zeros((len(content), self.dim))
        target[:, : self.content] = content.mean(1) * triggered[:, None]
        return target
