"""The mechanisms by name. To add one, write its entry here, and a class for its part where no part
does it yet. The paper's own are in `ssa.py`.

An entry says what the mechanism does beyond vanilla attention: its parts, the formula, its source,
and how it is drawn. It then runs in every experiment, test and figure that it fits. In formulas s =
q . k is the score of vanilla attention, tau scales the scores of a query (or of a key, or the
values), n is the number of keys that the query sees.
"""

from ssa_theory.mechanism.contrast import Contrast
from ssa_theory.mechanism.gates import ElementwiseGate, HeadGate
from ssa_theory.mechanism.mechanism import DASH_DOTS, DOTS, LONG, VANILLA, Look, Mechanism, Shift
from ssa_theory.mechanism.normalizers import (
    Entmax,
    Entmax15,
    EntropyAdaptive,
    SoftmaxSink,
    Sparsemax,
    TopK,
)
from ssa_theory.mechanism.rectified import ReLA, Softpick, Threshold
from ssa_theory.mechanism.schedules import (
    AdaptiveASEntmax,
    ASEntmax,
    Fixed,
    Llama4,
    LogPower,
    Power,
    YaRN,
)
from ssa_theory.mechanism.score_maps import QKNorm, Softcap
from ssa_theory.mechanism.scores import MLP, Constant, Linear
from ssa_theory.mechanism.ssa import SSA, shared
from ssa_theory.mechanism.temperature import Exp, Selective

_OURS = "this project"

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
        "constant-scale",
        "softmax(c s), c = 2.5 given, not learned",
        f"{_OURS}: a control",
        query=Fixed(),
        look=Look("#525252", "D", DOTS),
    ),
    Mechanism(
        "key-bias",
        "softmax(s + w . x_j), a learned unigram",
        f"{_OURS}: a control",
        bias=Linear(),
        look=Look("#7b4173", ">", (0, (6, 2, 2, 2))),
    ),
    Mechanism(
        "scaled-key-bias",
        "softmax(c s + w . x_j), one learned c = exp b",
        f"{_OURS}: both controls",
        query=Selective(Constant(), Exp(), position=False),
        bias=Linear(),
        look=Look("#8c8c8c", ">", (0, (6, 2, 2, 2))),
    ),
    *SSA,
    # Temperatures that depend on the number of keys alone.
    Mechanism(
        "ssmax",
        "softmax(c log(n) s)",
        "arXiv 2501.19399",
        query=LogPower(),
        look=Look("#0072b2", "^", "-."),
    ),
    Mechanism(
        "log2",
        "softmax(c (log n)^2 s)",
        "arXiv 2605.12697, among the laws that it unifies",
        query=LogPower(2.0),
        look=Look("#0072b2", "v", DASH_DOTS),
    ),
    Mechanism(
        "root",
        "softmax(c sqrt(log n) s)",
        "arXiv 2605.12697, among the laws that it unifies",
        query=LogPower(0.5),
        look=Look("#0072b2", "<", LONG),
    ),
    Mechanism(
        "asentmax-position",
        "softmax((d + b (log n)^g) s)",
        "arXiv 2506.16640, its position part",
        query=ASEntmax(),
        look=Look("#56b4e9", "X", LONG),
    ),
    Mechanism(
        "yarn",
        "softmax(c (0.1 log(n / n_train) + 1)^2 s) beyond n_train",
        "arXiv 2309.00071",
        query=YaRN(),
        look=Look("#8c6d31", "P", DOTS),
    ),
    Mechanism(
        "llama4",
        "softmax(c (1 + 0.1 log(1 + floor(n / n_train))) s)",
        "Llama 4, its released code: attention temperature tuning",
        query=Llama4(),
        look=Look("#8c6d31", "X", DASH_DOTS),
    ),
    Mechanism(
        "power",
        "softmax(c n^g s)",
        f"{_OURS}: the optimal bandwidths of kernel regression",
        query=Power(),
        look=Look("#009e73", "h", ":"),
    ),
    Mechanism(
        "asentmax",
        "1.5-entmax of (d + softplus(w . x) (log n)^(r tanh(u . x))) s",
        "arXiv 2506.16640",
        query=AdaptiveASEntmax(),
        normalizer=Entmax15(),
        look=Look("#56b4e9", "s", "-"),
    ),
    Mechanism(
        "entropy-adaptive",
        "trained with softmax(s), evaluated with softmax(beta(H) s), H the row's entropy",
        "arXiv 2410.01104",
        evaluation=EntropyAdaptive(),
        look=Look("#a65628", "o", DOTS),
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
        "qk-norm-ssa-query",
        "softmax(tau(x_i) g cos(W_q x_i, W_k x_j)), tau(x_i) that of ssa-query",
        "arXiv 2010.04245 and 2411.12892",
        query=shared,
        score=QKNorm(),
        look=Look("#1f78b4", "s", "--"),
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
        look=Look("#cc79a7", "8", DASH_DOTS),
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
    Mechanism(
        "softpick",
        "max(exp(s_j) - 1, 0) / sum_k |exp(s_k) - 1|",
        "arXiv 2504.20966",
        normalizer=Softpick(),
        look=Look("#b15928", "v", "-"),
    ),
    Mechanism(
        "differential",
        "softmax(s) - lambda softmax(s'), s' of another W, one learned lambda",
        "arXiv 2410.05258, without its norm of the output",
        contrast=Contrast(),
        look=Look("#ff7f00", "1", "-"),
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
