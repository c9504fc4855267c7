"""Two tokens that occur ever more unequally: the target stays, the counts move (position
temperature).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit, logit

from tasks.sampling import check_count


@dataclass(frozen=True)
class PowerImbalance:
    """kappa*(n) = n^power, how many times as often b occurs as a among the first n tokens.

    power: in [-1, 1]; beyond 1 the number of a would have to fall. 0 is balanced. Raises ValueError
    for another power.

    >>> PowerImbalance(0.5).ratio(np.array([1, 4])).tolist()
    [1.0, 2.0]
    """

    power: float = 0.5

    def __post_init__(self) -> None:
        if not -1 <= self.power <= 1:
            raise ValueError(
                f"power must lie in [-1, 1], got {self.power}: a count that grows with n cannot"
                " follow another"
            )

    def ratio(self, n: Int[np.ndarray, " position"]) -> Float[np.ndarray, " position"]:
        """kappa*(n)."""
        return n**self.power


@dataclass(frozen=True)
class ConstantImbalance:
    """kappa*(n) = value at every n. Raises ValueError where it is not positive and finite.

    >>> ConstantImbalance(3.0).ratio(np.array([1, 2])).tolist()
    [3.0, 3.0]
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.value < np.inf:
            raise ValueError(
                f"a ratio of counts must be positive and finite, got {self.value}: choose one above"
                " 0"
            )

    def ratio(self, n: Int[np.ndarray, " position"]) -> Float[np.ndarray, " position"]:
        """kappa*(n)."""
        return np.full(n.shape, float(self.value))


Imbalance = PowerImbalance | ConstantImbalance


@dataclass(frozen=True, eq=False)
class TwoTokenSequences:
    """Sequences of two tokens; position n = 1 .. L is at index n - 1, and sees tokens 1 .. n.

    tokens: 0 is a, 1 is b.

    >>> TwoTokenSequences(np.array([[0, 1, 1]])).tokens.shape
    (1, 3)
    """

    tokens: Int[np.ndarray, "sequence length"]

    @property
    def count_a(self) -> Int[np.ndarray, "sequence length"]:
        """n_a, how many of the first n tokens are a."""
        return (self.tokens == 0).cumsum(1)

    @property
    def kappa(self) -> Float[np.ndarray, "sequence length"]:
        """kappa_n = (n - n_a) / n_a, exact; infinite while there is no a."""
        count_a = self.count_a
        with np.errstate(divide="ignore"):
            return (np.arange(1, self.tokens.shape[1] + 1) - count_a) / count_a

    @property
    def both_seen(self) -> Bool[np.ndarray, "sequence length"]:
        """Whether both tokens are among the first n: there the target can be met."""
        count_a = self.count_a
        return (count_a > 0) & (count_a < np.arange(1, self.tokens.shape[1] + 1))

    @property
    def first_position(self) -> Int[np.ndarray, " sequence"]:
        """n_0, the first position that sees both tokens; L + 1 where none does."""
        return 1 + (~self.both_seen).sum(1)


def tracking_sequence(imbalance: Imbalance, length: int) -> TwoTokenSequences:
    """The one sequence whose counts are the nearest integers to those of the imbalance.

    n_a = floor(c_n + 1/2) with c_n = n / (1 + kappa*(n)), a half being rounded up; c_n never falls
    and grows by at most 1 a step, so this is a sequence of tokens. As |n_a - c_n| <= 1/2, its own
    kappa_n = n / n_a - 1 differs from kappa*(n) by at most (1 + kappa*(n)) / (2 n_a), which is not
    small where a is rare: at power 1 n_a is always 1 and kappa_n = n - 1. Under a power law n_0 is
    2. Raises ValueError for length < 1.

    >>> sequence = tracking_sequence(PowerImbalance(0.5), 8)
    >>> sequence.tokens.tolist(), sequence.count_a.tolist()
    ([[0, 1, 1, 1, 0, 1, 1, 1]], [[1, 1, 1, 1, 2, 2, 2, 2]])
    """
    count_a = np.floor(_expected_counts(imbalance, length) + 0.5)
    return TwoTokenSequences(1 - np.diff(count_a, prepend=0).astype(np.int64)[None])


def bernoulli_sequences(
    imbalance: Imbalance, length: int, count: int, generator: np.random.Generator
) -> TwoTokenSequences:
    """Random sequences of the same expected imbalance: E n_a = c_n = n / (1 + kappa*(n)) exactly.

    Tokens are independent, and token n is a with probability c_n - c_(n-1). Each sequence uses
    `length` uniforms. Raises ValueError for length < 1 or count < 1.

    >>> drawn = bernoulli_sequences(PowerImbalance(0.0), 4, 1000, np.random.default_rng(0))
    >>> drawn.tokens.shape, abs(drawn.tokens.mean() - 0.5) < 0.05
    ((1000, 4), np.True_)
    """
    check_count(count, "sequences")
    share = np.diff(_expected_counts(imbalance, length), prepend=0)
    return TwoTokenSequences((generator.random((count, length)) >= share).astype(np.int64))


def _expected_counts(imbalance: Imbalance, length: int) -> Float[np.ndarray, " {length}"]:
    """c_n = n / (1 + kappa*(n)), the real number of a among the first n tokens."""
    check_count(length, "tokens")
    n = np.arange(1, length + 1)
    return n / (1 + imbalance.ratio(n))


@dataclass(frozen=True)
class ImbalanceTask:
    """Predict y = alpha a + (1 - alpha) b, whatever the counts of a and b: attention must undo
    them.

    a and b are unit vectors of R^2 with a . b = cosine; for what attention can do the dimension
    does not matter. Source: the second proposition of arXiv 2411.12892.

    Fields: share, alpha; cosine, r. Raises ValueError for a share outside (0, 1), or a cosine
    outside (-1, 1), where a and b are linearly dependent.

    >>> task = ImbalanceTask(share=0.5, cosine=0.0)
    >>> kappa = np.array([1.0, 4.0])
    >>> weight = task.attention(task.zero_loss_logit(kappa), kappa)
    >>> weight.round(3).tolist(), task.error(weight).round(3).tolist()
    ([0.5, 0.5], [0.0, 0.0])
    """

    share: float = 0.5
    cosine: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share must lie in (0, 1), got {self.share}: both tokens take part")
        if not -1 < self.cosine < 1:
            raise ValueError(
                f"cosine must lie in (-1, 1), got {self.cosine}: the two tokens must be linearly"
                " independent"
            )

    @property
    def embeddings(self) -> Float[np.ndarray, "2 2"]:
        """The rows a = (1, 0) and b = (r, sqrt(1 - r^2))."""
        return np.array([[1.0, 0.0], [self.cosine, np.sqrt(1 - self.cosine**2)]])

    @property
    def target(self) -> Float[np.ndarray, " 2"]:
        """y = alpha a + (1 - alpha) b."""
        return np.array([self.share, 1 - self.share]) @ self.embeddings

    def attention(
        self, margin: Float[np.ndarray, "*position"], kappa: Float[np.ndarray, "*position"]
    ) -> Float[np.ndarray, "*position"]:
        """w_n = 1 / (1 + kappa_n e^(-margin)), what softmax attention puts on all a together.

        margin: tau_n m, by how much the logit of an a exceeds that of a b. Zero while there is no
        a, one while there is no b.
        """
        with np.errstate(divide="ignore"):
            return expit(margin - np.log(kappa))

    def error(self, weight: Float[np.ndarray, "*position"]) -> Float[np.ndarray, "*position"]:
        """The squared distance to y of the output w a + (1 - w) b: (w - alpha)^2 ||a - b||^2, with
        ||a - b||^2 = 2 (1 - r).
        """
        return (weight - self.share) ** 2 * 2 * (1 - self.cosine)

    def zero_loss_logit(
        self, kappa: Float[np.ndarray, "*position"]
    ) -> Float[np.ndarray, "*position"]:
        """tau_n m = log kappa_n + log(alpha / (1 - alpha)), the margin at which w_n = alpha and the
        error is zero.

        It is infinite while only one of the tokens has been seen.
        """
        with np.errstate(divide="ignore"):
            return np.log(kappa) + logit(self.share)
