"""The baselines that atomic cross-NLI is compared with (Less for More, Figs. 6, 7 and 10).

SummaC (Laban et al. 2022) judges a summary by its document; here the reference is the document of the output
(consistency: hallucination and unsupported are 1 - it) and the output that of the reference (coverage).
"""

import random
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from lmolt_utils.errors import CompanionError
from lmolt_utils.grammar.compose import Composer
from lmolt_utils.grammar.decompose import Decomposer, sentences
from lmolt_utils.nli.classifier import CONTRADICTION, ENTAILMENT, Pair, PairScorer
from lmolt_utils.nli.cross_nli import Method, Scores, canonical_atoms

BINS = 50
#: References that the convolution is fitted on, at least and at most.
FEWEST, MOST = 20, 200


class FitError(CompanionError):
    """Too little to fit the convolution on."""


def summac(name: str, consistency: Callable[[np.ndarray], float]) -> Method:
    """consistency: 0..1 of answers of shape (hypotheses, premises, 3)."""

    def pool(forward: np.ndarray, backward: np.ndarray) -> Scores:
        wrong = 1 - consistency(forward)
        return wrong, consistency(backward), wrong

    return Method(name, sentences, pool)


def zero_shot(answers: np.ndarray) -> float:
    """SummaC-ZS, brought from -1..1 to 0..1 by (s + 1) / 2.

    Per hypothesis sentence the highest entailment minus the highest contradiction, whichever premises give them;
    their mean.
    """
    best = answers.max(axis=1)
    return (float((best[:, ENTAILMENT] - best[:, CONTRADICTION]).mean()) + 1) / 2


#: Both captions whole: one answer per direction.
FULL_TEXT = Method("full text", lambda text: (" ".join(text.split()),))
#: Eqs. 6 and 7 over sentences in place of atomic facts: each against the one that fits it best (Nie et al. 2019).
SENTENCE = Method("sentence", sentences)
SUMMAC_ZS = summac("SummaC-ZS", zero_shot)


def histograms(entailment: np.ndarray) -> np.ndarray:
    """SummaC-Conv's features: shape (hypotheses, premises) to (hypotheses, 50), premises per bin of entailment.

    Bins of equal width over 0..1, the last closed; counts, not shares.
    """
    return np.stack([np.histogram(row, BINS, (0, 1))[0] for row in entailment]).astype(float)


def convolution(weights: np.ndarray, bias: float) -> Method:
    """SummaC-Conv: a linear layer over each sentence's histogram (weights of shape (50,)), a sigmoid, and the mean.

    All sentences count (the released code reads the first ten).
    """

    def consistency(answers: np.ndarray) -> float:
        return float((1 / (1 + np.exp(-(histograms(answers[..., ENTAILMENT]) @ weights + bias)))).mean())

    return summac("SummaC-Conv", consistency)


def fitted_convolution(references: Sequence[str], decomposer: Decomposer, scorer: PairScorer, seed: int = 0) -> Method:
    """SummaC-Conv with weights from references alone: the published ones are for news, and pickled.

    Each reference is a document. A logistic regression tells its own facts in other words (consistent) from the
    sentences of another reference (consistent only where it states all their facts, as the property sets tell).

    Raises :class:`FitError` for too few references, or if no sentence is of one of the two kinds.
    """
    rng = random.Random(f"convolution {seed}")
    known = [text for text in sorted(set(references)) if decomposer.properties(text)]
    if len(known) < FEWEST:
        raise FitError(f"{len(known)} distinct references have known properties; the convolution needs {FEWEST}")
    chosen = rng.sample(known, min(MOST, len(known)))
    examples: list[tuple[list[Pair], bool]] = []
    for text, other in zip(chosen, [*chosen[1:], chosen[0]], strict=True):
        stated = decomposer.properties(text)
        reworded = Composer(decomposer.vocabulary).compose(stated, rng)
        for sentence in (*sentences(reworded), *sentences(other)):
            if said := decomposer.properties(sentence):
                examples.append(([(premise, sentence) for premise in sentences(text)], said <= stated))
    labels = [consistent for _, consistent in examples]
    if len(set(labels)) < 2:
        raise FitError("the references' sentences are all consistent with each other: nothing to tell apart")
    answers = scorer(sorted({pair for pairs, _ in examples for pair in pairs}))
    features = [histograms(np.array([[answers[pair][ENTAILMENT] for pair in pairs]]))[0] for pairs, _ in examples]
    model = LogisticRegression(max_iter=1000).fit(np.stack(features), labels)
    return convolution(model.coef_[0].astype(float), float(model.intercept_[0]))


def methods_for(
    references: Sequence[str],
    decomposer: Decomposer,
    scorer: PairScorer,
    seed: int = 0,
    *,
    atoms: Callable[[str], Sequence[str]] | None = None,
) -> tuple[list[Method], str]:
    """The atomic method (``atoms``: by what, else by ``decomposer``) and its baselines; why there is no convolution."""
    methods = [Method("atomic", atoms or canonical_atoms(decomposer)), FULL_TEXT, SENTENCE, SUMMAC_ZS]
    try:
        return [*methods, fitted_convolution(references, decomposer, scorer, seed)], ""
    except FitError as error:
        return methods, str(error)
