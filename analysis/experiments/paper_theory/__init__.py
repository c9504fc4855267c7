"""The paper's statements, computed exactly: each with what is true of it, and where it fails."""

from analysis.experiments.base import Experiment
from analysis.experiments.paper_theory.figure import draw
from analysis.experiments.paper_theory.train import PaperTheoryConfig, judge, train

__all__ = ["PAPER_THEORY", "PaperTheoryConfig"]

PAPER_THEORY = Experiment(
    name="paper-theory",
    question="Which statements of the paper hold as printed, which as corrected, and which fail?",
    caption=(
        "(a, b) Proposition 1: the least effective norm that meets its map within eps, vanilla, with "
        "positive and with signed temperatures, beside the printed bounds; (c) where the hypotheses "
        "of Proposition 2's converse lie among all sequences that exist; (d) its bound against the "
        "certified least loss with the ratio that long sequences can have; (e) the dilution bound "
        "and a case that attains it; (f) Lemma 2 as printed and as corrected. Circles are second, "
        "independent computations. Nothing is random or trained."
    ),
    config=PaperTheoryConfig,
    train=train,
    draw=draw,
    judge=judge,
    dimensions={
        "map": "of Proposition 1: gamma, and the error eps that is allowed",
        "temperatures": "that W may be joined with",
        "rho": "similarity of the two tokens, e1.e2",
        "rho_solved": "rho at which a solver is asked, too",
        "statement": "of the paper, by its name",
        "edge": "end of an interval that is proven",
        "half_ratio": "kappa at the middle of the sequence",
        "end": "least and largest that can be",
        "norm": "of W, which bounds the scores",
        "slope": "alpha of Lemma 2",
        "count": "number of scores",
    },
)
