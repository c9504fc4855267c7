"""Selective self-attention by name: the mechanisms of the SSA paper, arXiv 2411.12892, and what this
project makes of them. In the paper's notation, tau(x) = 1 + tanh f(x) + sigmoid(a) log n.

Formulas are those of the registry, which these entries belong to.
"""

from ssa_theory.mechanism.mechanism import DASH_DOTS, DOTS, LONG, Look, Mechanism, Shift
from ssa_theory.mechanism.schedules import Released
from ssa_theory.mechanism.scores import MLP, Constant, Feature, Linear, Table
from ssa_theory.mechanism.temperature import Exp, Selective, Sigmoid, Signed

_PAPER, _OURS = "arXiv 2411.12892", "this project"
_SHARED, _OWN = "w . gelu(W x)", "an MLP of its own"


def _paper(what: str, score: str = _SHARED) -> str:
    return f"{what} times 1 + tanh f + sigmoid(a) log n, f = {score}"


shared, mlp = Selective(), Selective(MLP())
shared_token, mlp_token = Selective(position=False), Selective(MLP(), position=False)
position = Selective(None)

SSA = (
    # SSA with weights shared with the layer's own projections.
    Mechanism(
        "ssa",
        _paper("queries and values"),
        _PAPER,
        query=shared,
        value=shared,
        look=Look("#d55e00", "s", "--"),
    ),
    Mechanism(
        "ssa-key-bias",
        f"{_paper('queries and values')}; w . x_j added to the scores",
        f"{_PAPER}, beside a learned unigram",
        query=shared,
        value=shared,
        bias=Linear(),
        look=Look("#d55e00", "^", LONG),
    ),
    Mechanism(
        "ssa-query", _paper("queries"), _PAPER, query=shared, look=Look("#0072b2", "X", (0, (1, 2)))
    ),
    Mechanism(
        "ssa-key", _paper("keys"), _PAPER, key=shared, look=Look("#8c6d31", "<", (0, (4, 2)))
    ),
    Mechanism("ssa-value", _paper("values"), _PAPER, value=shared, look=Look("#e6ab02", "d", LONG)),
    Mechanism(
        "ssa-query-key",
        _paper("queries and keys"),
        _PAPER,
        query=shared,
        key=shared,
        look=Look("#66a61e", "h", "-."),
    ),
    Mechanism(
        "ssa-query-key-value",
        _paper("queries, keys and values"),
        _PAPER,
        query=shared,
        key=shared,
        value=shared,
        look=Look("#5e3c99", "h", DASH_DOTS),
    ),
    Mechanism(
        "ssa-token",
        "queries and values times 1 + tanh f, f = w . gelu(W x)",
        _PAPER,
        query=shared_token,
        value=shared_token,
        look=Look("#a6611a", "p", "--"),
    ),
    Mechanism(
        "ssa-position",
        "queries and values times 1 + sigmoid(a) log n",
        _PAPER,
        query=position,
        value=position,
        look=Look("#e7298a", "s", DOTS),
    ),
    # SSA with a two-layer MLP of its own in each temperature.
    Mechanism(
        "ssa-mlp",
        _paper("queries and values", _OWN),
        _PAPER,
        query=mlp,
        value=mlp,
        look=Look("#009e73", "D", ":"),
    ),
    Mechanism(
        "ssa-mlp-query", _paper("queries", _OWN), _PAPER, query=mlp, look=Look("#0072b2", "D", ":")
    ),
    Mechanism("ssa-mlp-key", _paper("keys", _OWN), _PAPER, key=mlp, look=Look("#8c6d31", "D", ":")),
    Mechanism(
        "ssa-mlp-value", _paper("values", _OWN), _PAPER, value=mlp, look=Look("#d55e00", "P", "-.")
    ),
    Mechanism(
        "ssa-mlp-query-key",
        _paper("queries and keys", _OWN),
        _PAPER,
        query=mlp,
        key=mlp,
        look=Look("#66a61e", "D", ":"),
    ),
    Mechanism(
        "ssa-mlp-key-value",
        _paper("keys and values", _OWN),
        _PAPER,
        key=mlp,
        value=mlp,
        look=Look("#e6ab02", "D", ":"),
    ),
    Mechanism(
        "ssa-mlp-query-key-value",
        _paper("queries, keys and values", _OWN),
        _PAPER,
        query=mlp,
        key=mlp,
        value=mlp,
        look=Look("#5e3c99", "D", ":"),
    ),
    Mechanism(
        "ssa-mlp-token",
        "queries and values times 1 + tanh f, f = an MLP of its own",
        _PAPER,
        query=mlp_token,
        value=mlp_token,
        look=Look("#1b9e77", "p", "--"),
    ),
    Mechanism(
        "ssa-mlp-key-shift",
        "softmax(tau_j (s + b)), tau_j = 1 + tanh f + sigmoid(a) log n, f = an MLP of its own",
        f"{_OURS}: a key temperature that can tell keys below zero from keys above",
        key=Selective(MLP(jitter=0.1)),
        shift=Shift(),
        look=Look("#7b4173", "v", DASH_DOTS),
    ),
    # Other token terms.
    Mechanism(
        "ssa-constant",
        "softmax((1 + tanh b) s)",
        f"{_PAPER}, ablation",
        query=Selective(Constant(), position=False),
        look=Look("#999999", "s", DOTS),
    ),
    Mechanism(
        "ssa-feature",
        "queries times 1 + tanh(a phi(x) + b), phi a given scalar, such as log frequency",
        f"{_PAPER}, feature-based",
        query=Selective(Feature(), position=False),
        look=Look("#d55e00", "H", "--"),
    ),
    Mechanism(
        "ssa-feature-key",
        "keys times 1 + tanh(a phi(x) + b), phi a given scalar",
        f"{_PAPER}, feature-based",
        key=Selective(Feature(), position=False),
        look=Look("#8c6d31", "H", "--"),
    ),
    Mechanism(
        "ssa-feature-exp",
        "queries times exp(a phi(x) + b), phi a given scalar",
        f"{_OURS}: unbounded",
        query=Selective(Feature(), Exp(), position=False),
        look=Look("#56b4e9", "H", "-."),
    ),
    Mechanism(
        "ssa-degree",
        "queries times exp(theta_k), k the number of neighbours",
        f"{_PAPER}, graph experiment",
        query=Selective(Table("degree"), Exp(), position=False),
        look=Look("#cc79a7", "v", DASH_DOTS),
    ),
    Mechanism(
        "ssa-free",
        "queries times exp(theta_i), one free number a token",
        f"{_PAPER}, theory: an idealisation",
        query=Selective(Table("token"), Exp(), position=False),
        look=Look("#56b4e9", "^", "-."),
    ),
    Mechanism(
        "ssa-signed",
        "queries and values times 1 + f, of either sign, f = w . gelu(W x)",
        f"{_OURS}: {_PAPER} does not restrict tau to be positive",
        query=Selective(link=Signed(), position=False),
        value=Selective(link=Signed(), position=False),
        look=Look("#b2182b", "1", LONG),
    ),
    # Gates on the values that reach zero.
    Mechanism(
        "value-tanh",
        "values times 1 + tanh f, f = an MLP of its own",
        f"{_OURS}: the paper's without its floor",
        value=mlp_token,
        look=Look("#cc79a7", "<", DASH_DOTS),
    ),
    Mechanism(
        "value-sigmoid",
        "values times 2 sigmoid(f), f = an MLP of its own",
        _OURS,
        value=Selective(MLP(), Sigmoid(), position=False),
        look=Look("#56b4e9", ">", "-."),
    ),
    # What the authors released.
    Mechanism(
        "released",
        "softmax(c (1 + exp(-exp b) log n) s)",
        f"{_PAPER}, the authors' released code",
        query=Released(),
        look=Look("#cc79a7", "s", DASH_DOTS),
    ),
)
