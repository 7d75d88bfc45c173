"""Atomic cross-NLI (Less for More § 3.3, Eqs. 6 and 7) and what every NLI method here has in common.

A method decomposes both captions into units (atomic facts, sentences, the whole text), asks an NLI model about all
pairs of them in both directions, and pools the answers. An *empty output* has coverage 0, and nothing it says could be
wrong: hallucination and unsupported are undefined (NaN). An output of the *wrong modality* (SMILES, pieces of it, a
single word) counts as empty: NLI models often call SMILES entailed. References are never tested for it; with an *empty
reference* all three are undefined. Repeated facts count as often as they are stated, as in the equations.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.metrics.distributions import modality
from lmolt_utils.nli.classifier import CONTRADICTION, ENTAILMENT, Answer, Pair, PairScorer

QUANTITIES = ("hallucination", "coverage", "unsupported")
#: Columns of a method's rows.
COLUMNS = ("id", "method", *QUANTITIES, "reference_units", "output_units", "rule")
#: What the column ``rule`` may say; empty for a row that needed none.
UNJUDGED = EMPTY_REFERENCE, EMPTY_OUTPUT, WRONG_MODALITY = "empty reference", "empty output", "wrong modality"

Scores = tuple[float, float, float]


def pooled(forward: np.ndarray, backward: np.ndarray) -> Scores:
    """Hallucination, coverage and unsupported, each 0..1.

    forward: answers of shape (L, N, 3), the output's L units as hypotheses against the reference's N as premises.
    backward: shape (N, L, 3), the other way round. L and N are at least 1.
    """
    hallucination = forward[..., CONTRADICTION].min(axis=1).mean()  # Eq. 6
    coverage = backward[..., ENTAILMENT].max(axis=1).mean()  # Eq. 7
    # Eq. 6 does not see an invented fact that contradicts nothing; this does.
    unsupported = 1 - forward[..., ENTAILMENT].max(axis=1).mean()
    return float(hallucination), float(coverage), float(unsupported)


@dataclass(frozen=True)
class Method:
    """One way of judging a caption by NLI: what a text is decomposed into, and how the answers are pooled."""

    name: str
    units: Callable[[str], Sequence[str]]
    pool: Callable[[np.ndarray, np.ndarray], Scores] = pooled


def canonical_atoms(decomposer: Decomposer) -> Callable[[str], list[str]]:
    """The atomic facts that the rules find, in canonical words: a fact that captions put in five ways is one pair."""
    return lambda text: [decomposer.canonical(atom) for atom in decomposer(text)]


def cross_nli(
    systems: Mapping[str, pd.DataFrame], methods: Sequence[Method], scorer: PairScorer
) -> tuple[dict[str, pd.DataFrame], dict[str, int]]:
    """Every method on every system (a frame with id, reference and prediction), all new pairs asked in one go.

    Returns per system a frame with :data:`COLUMNS`, one line per method and row; and the number of questions: naive
    (one per row, unit and direction), distinct (over all rows, methods and systems).
    """
    texts = {name: texts_and_rules(frame) for name, frame in systems.items()}
    captions = Counter(pair for pairs, _ in texts.values() for pair in pairs)
    distinct = {text for pair in captions for text in pair}
    units = {m.name: {text: tuple(m.units(text)) if text.strip() else () for text in distinct} for m in methods}
    naive, needed = 0, set[Pair]()
    for of in units.values():
        for (reference, output), times in captions.items():
            naive += 2 * times * len(of[reference]) * len(of[output])
            needed.update(product(of[reference], of[output]), product(of[output], of[reference]))
    answers = scorer(sorted(needed))
    counts = {"naive": naive, "distinct": len(needed)}
    scored = {
        (method.name, (reference, output)): _score(method, of[reference], of[output], answers)
        for method, of in zip(methods, units.values(), strict=True)
        for reference, output in captions
    }
    rows = {
        name: [
            (row, method.name, *scored[method.name, pair], rule)
            for method in methods
            for row, pair, rule in zip(frame["id"], *texts[name], strict=True)
        ]
        for name, frame in systems.items()
    }
    return {name: pd.DataFrame(lines, columns=list(COLUMNS)) for name, lines in rows.items()}, counts


def _score(
    method: Method, reference: Sequence[str], output: Sequence[str], answers: Mapping[Pair, Answer]
) -> tuple[float, float, float, int, int]:
    """:data:`QUANTITIES`, and the units of both sides."""
    counts = len(reference), len(output)
    if not reference or not output:
        return np.nan, 0.0 if reference else np.nan, np.nan, *counts
    forward = np.array([[answers[premise, hypothesis] for premise in reference] for hypothesis in output])
    backward = np.array([[answers[premise, hypothesis] for premise in output] for hypothesis in reference])
    return *method.pool(forward, backward), *counts


def released_corpus(hallucination: np.ndarray) -> float:
    """The corpus hallucination that cross-nli 0.1.0 returns: the last row's divided by the number of rows. Its running
    total is never used (audit D32b)."""
    return float(hallucination[-1]) / len(hallucination)


def texts_and_rules(frame: pd.DataFrame) -> tuple[list[Pair], list[str]]:
    """Reference and prediction of each row as judged (empty: None, NaN, wrong modality), and its rule or ""."""
    texts, rules = [], []
    for row in frame[["reference", "prediction"]].itertuples(index=False):
        # JSON may hold lone surrogates, and no tokenizer takes them.
        reference, output = ("" if pd.isna(text) else str(text).encode("utf-8", "replace").decode() for text in row)
        kind = modality(output)
        rule = {"caption": "", "empty": EMPTY_OUTPUT}.get(kind, WRONG_MODALITY)
        texts.append((reference, output if kind == "caption" else ""))
        rules.append(rule if reference.strip() else EMPTY_REFERENCE)
    return texts, rules
