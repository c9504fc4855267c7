"""The mechanisms by name. To add one, write its entry here, and a class for its part where no part
does it yet.

An entry says what the mechanism does beyond vanilla attention: its parts, the formula, its source,
and how it is drawn. It then runs in every experiment, test and figure that it fits. In formulas s =
q . k is the score of vanilla attention, tau scales the scores of a query (or of a key, or the
values), n is the number of keys that the query sees.
"""

from ssa_theory.mechanism.gates import ElementwiseGate, HeadGate
from ssa_theory.mechanism.mechanism import VANILLA, Look, Mechanism, Shift
from ssa_theory.mechanism.normalizers import (
    Entmax,
    Entmax15,
    ReLA,
    SoftmaxSink,
    Sparsemax,
    Threshold,
    TopK,
)
from ssa_theory.mechanism.schedules import ASEntmax, Power, Released, SSMax, YaRN
from ssa_theory.mechanism.score_maps import QKNorm, Softcap
from ssa_theory.mechanism.scores import MLP, Constant, Feature, Linear, Table
from ssa_theory.mechanism.temperature import Exp, Selective, Sigmoid, Signed

_PAPER, _OURS = "arXiv 2411.12892", "this project"
_SHARED, _OWN = "w . gelu(W x)", "an MLP of its own"
_DOTS, _DASH_DOTS, _LONG = (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2))


def _paper(what: str, score: str = _SHARED) -> str:
    return f"{what} times 1 + tanh f + sigmoid(a) log n, f = {score}"


shared, mlp = Selective(), Selective(MLP())
shared_token, mlp_token = Selective(position=False), Selective(MLP(), position=False)
position = Selective(None)

_ENTRIES = (
    # Vanilla attention, and the controls without which a gain says nothing about selectivity.
    Mechanism(VANILLA, "softmax(s)", "arXiv 1706.03762", look=Look("#222222", "o", "-")),
    Mechanism(
        "scaled",
        "softmax(c s), one learned c = exp b",
        f"{_OURS}: a control",
        query=Selective(Constant(), Exp(), position=False),
        look=Look("#8c8c8c", "o", (0, (4, 2))),
    ),
    Mechanism(
        "key-bias",
        "softmax(s + w . x_j), a learned unigram",
        f"{_OURS}: a control",
        bias=Linear(),
        look=Look("#7b4173", ">", (0, (6, 2, 2, 2))),
    ),
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
        "ssa-query", _paper("queries"), _PAPER, query=shared, look=Look("#0072b2", "X", (0, (1, 2)))
    ),
    Mechanism(
        "ssa-key", _paper("keys"), _PAPER, key=shared, look=Look("#8c6d31", "<", (0, (4, 2)))
    ),
    Mechanism(
        "ssa-value", _paper("values"), _PAPER, value=shared, look=Look("#e6ab02", "d", _LONG)
    ),
    Mechanism(
        "ssa-query-key",
        _paper("queries and keys"),
        _PAPER,
        query=shared,
        key=shared,
        look=Look("#66a61e", "h", "-."),
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
        look=Look("#e7298a", "s", _DOTS),
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
        look=Look("#7b4173", "v", _DASH_DOTS),
    ),
    # Other token terms.
    Mechanism(
        "ssa-constant",
        "softmax((1 + tanh b) s)",
        f"{_PAPER}, ablation",
        query=Selective(Constant(), position=False),
        look=Look("#999999", "s", _DOTS),
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
        look=Look("#cc79a7", "v", _DASH_DOTS),
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
        look=Look("#b2182b", "1", _LONG),
    ),
    # Gates on the values that reach zero.
    Mechanism(
        "value-tanh",
        "values times 1 + tanh f, f = an MLP of its own",
        f"{_OURS}: the paper's without its floor",
        value=mlp_token,
        look=Look("#cc79a7", "<", _DASH_DOTS),
    ),
    Mechanism(
        "value-sigmoid",
        "values times 2 sigmoid(f), f = an MLP of its own",
        _OURS,
        value=Selective(MLP(), Sigmoid(), position=False),
        look=Look("#56b4e9", ">", "-."),
    ),
    # Temperatures that depend on the number of keys alone.
    Mechanism(
        "released",
        "softmax(c (1 + exp(-exp b) log n) s)",
        f"{_PAPER}, the authors' released code",
        query=Released(),
        look=Look("#cc79a7", "s", _DASH_DOTS),
    ),
    Mechanism(
        "ssmax",
        "softmax(c log(n) s)",
        "arXiv 2501.19399",
        query=SSMax(),
        look=Look("#0072b2", "^", "-."),
    ),
    Mechanism(
        "asentmax-position",
        "softmax((d + b (log n)^g) s)",
        "arXiv 2506.16640, its position part",
        query=ASEntmax(),
        look=Look("#56b4e9", "X", _LONG),
    ),
    Mechanism(
        "yarn",
        "softmax(c (0.1 log(n / n_train) + 1)^2 s) beyond n_train",
        "arXiv 2309.00071",
        query=YaRN(),
        look=Look("#8c6d31", "P", _DOTS),
    ),
    Mechanism(
        "power",
        "softmax(c n^g s)",
        f"{_OURS}: the optimal bandwidths of kernel regression",
        query=Power(),
        look=Look("#009e73", "h", ":"),
    ),
    # Other scores.
    Mechanism(
        "qk-norm",
        "softmax(g cos(W_q x_i, W_k x_j)), one learned g",
        "arXiv 2010.04245",
        score=QKNorm(),
        look=Look("#1f78b4", "8", "-"),
    ),
    Mechanism(
        "softcap",
        "softmax(c tanh(s / c)), c = 50",
        "arXiv 2408.00118",
        score=Softcap(),
        look=Look("#6a3d9a", "2", "-"),
    ),
    # Other rows.
    Mechanism(
        "sparsemax",
        "the projection of s on the simplex",
        "arXiv 1602.02068",
        normalizer=Sparsemax(),
        look=Look("#d55e00", "p", "--"),
    ),
    Mechanism(
        "entmax15",
        "[s / 2 - theta]_+^2",
        "arXiv 1905.05702",
        normalizer=Entmax15(),
        look=Look("#009e73", "d", ":"),
    ),
    Mechanism(
        "entmax",
        "[(alpha - 1) s - theta]_+^(1 / (alpha - 1)), alpha learned",
        "arXiv 1905.05702",
        normalizer=Entmax(),
        look=Look("#56b4e9", "D", "-."),
    ),
    Mechanism(
        "top-k",
        "softmax over the k largest scores",
        f"{_OURS}: a control",
        normalizer=TopK(),
        look=Look("#cc79a7", "8", _DASH_DOTS),
    ),
    Mechanism(
        "threshold",
        "softmax over the positive scores",
        "arXiv 2503.23174",
        normalizer=Threshold(),
        look=Look("#e69f00", "P", (0, (3, 1, 1, 1))),
    ),
    Mechanism(
        "rela",
        "max(s + b, 0) over its sum",
        "arXiv 2104.07012, with rows that sum to one",
        shift=Shift(),
        normalizer=ReLA(),
        look=Look("#0072b2", "P", (0, (1, 2))),
    ),
    # Sinks and gates.
    Mechanism(
        "sink",
        "exp(s_j) / (exp b + sum_k exp(s_k)), one learned b",
        "arXiv 2309.17453, as a logit",
        normalizer=SoftmaxSink(),
        look=Look("#33a02c", "3", "-"),
    ),
    Mechanism(
        "off-by-one",
        "exp(s_j) / (1 + sum_k exp(s_k))",
        "E. Miller 2023, attention is off by one",
        normalizer=SoftmaxSink(learned=False),
        look=Look("#b2df8a", "4", "-"),
    ),
    Mechanism(
        "gate-and-sink",
        "softmax over s + f(x_j) and a learned sink, f = an MLP of its own",
        _OURS,
        bias=MLP(),
        normalizer=SoftmaxSink(),
        look=Look("#009e73", "H", ":"),
    ),
    Mechanism(
        "gated",
        "output times sigmoid(x W_g), elementwise",
        "arXiv 2505.06708",
        gate=ElementwiseGate(),
        look=Look("#fb9a99", "p", "-"),
    ),
    Mechanism(
        "gated-head",
        "output times sigmoid(w . x), one number a head",
        "arXiv 2505.06708",
        gate=HeadGate(),
        look=Look("#e31a1c", "*", "-"),
    ),
)
MECHANISMS: dict[str, Mechanism] = {entry.name: entry for entry in _ENTRIES}
