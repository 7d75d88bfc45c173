"""Atomic cross-NLI (Less for More § 3.3, Eqs. 6 and 7) and what every NLI method here has in common.

A method cuts both captions into units (atoms, sentences, the whole text), asks an NLI model about all pairs of them in
both directions, and pools the answers. Three numbers per row, all 0..1:

- **hallucination** (Eq. 6): over the output's units, the mean of the lowest contradiction by any of the reference's;
- **coverage** (Eq. 7): over the reference's units, the mean of the highest entailment by any of the output's;
- **unsupported**: over the output's units, the mean of 1 - the highest entailment by any of the reference's. Eq. 6
  does not see an invented fact that contradicts nothing; this does.

Rules, the same for every method:

- an *empty output* states nothing (no units), so it covers nothing, coverage 0, and nothing it says could be wrong:
  hallucination and unsupported are undefined (NaN), such rows are counted, and means are also given with 0 in their
  place;
- an output of the *wrong modality*, which by :func:`~lmolt_utils.metrics.distributions.modality` is no caption (SMILES,
  pieces of it, a single word), states nothing either: the NLI model, which cannot tell SMILES from text and often
  calls them entailed, is not asked, and the row is scored as an empty output and counted apart. References are never
  tested;
- an *empty reference* leaves nothing to compare with: all three are undefined and the row is counted;
- *repeated atoms* count as often as they are stated, as in the equations (``repeats="once"``: each fact once);
- a caption of more than 256 units (L+M-24's longest has about 18) is cut to the first 256, and counted;
- a caption the grammar cannot read (HTML, another language that parts its words) is its sentences as they stand, a unit
  each; a pair longer than the model reads is cut by its tokenizer, and counted there (``Classifier.truncated``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
import pandas as pd

from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.metrics.distributions import modality
from lmolt_utils.nli.answers import Answer
from lmolt_utils.nli.classifier import CONTRADICTION, ENTAILMENT, Pair

Units = tuple[str, ...]
#: Cuts a text: its units, and whether there were too many of them.
Cutter = Callable[[str], tuple[Units, bool]]
MOST_UNITS = 256
QUANTITIES = ("hallucination", "coverage", "unsupported")
#: Columns of a method's rows.
COLUMNS = ("id", "method", *QUANTITIES, "reference_units", "output_units", "rule")
#: What the column ``rule`` may say; empty for a row that needed none.
EMPTY_REFERENCE, EMPTY_OUTPUT, WRONG_MODALITY = "empty reference", "empty output", "wrong modality"
CUT = f"cut to {MOST_UNITS} units"


class Method(Protocol):
    """One way of judging a caption by NLI."""

    @property
    def name(self) -> str: ...

    def units(self, text: str) -> Units:
        """What the text is cut into; nothing for an empty one."""

    def pool(self, forward: np.ndarray, backward: np.ndarray) -> tuple[float, float, float]:
        """:data:`QUANTITIES` of a row.

        forward: answers of shape (L, N, 3), the output's L units as hypotheses against the reference's N as premises.
        backward: shape (N, L, 3), the other way round. L and N are at least 1.
        """


class Scorer(Protocol):
    """Answers pairs: a :class:`~lmolt_utils.nli.answers.PairScorer`."""

    asked: int
    cached: int

    def __call__(self, pairs: Iterator[Pair]) -> Mapping[Pair, Answer]: ...


def hallucination(contradiction: np.ndarray) -> float:
    """Eq. 6 of contradiction probabilities, shape (L hypotheses, N premises)."""
    return float(contradiction.min(axis=1).mean())


def coverage(entailment: np.ndarray) -> float:
    """Eq. 7 of entailment probabilities, shape (N hypotheses, L premises)."""
    return float(entailment.max(axis=1).mean())


def unsupported(entailment: np.ndarray) -> float:
    """Mean of 1 - highest entailment, shape (L hypotheses, N premises)."""
    return float(1 - entailment.max(axis=1).mean())


def pooled(forward: np.ndarray, backward: np.ndarray) -> tuple[float, float, float]:
    """Eqs. 6 and 7 and the unsupported rate; the pooling of the atomic, sentence-level and full-text methods."""
    return (
        hallucination(forward[..., CONTRADICTION]),
        coverage(backward[..., ENTAILMENT]),
        unsupported(forward[..., ENTAILMENT]),
    )


class AtomicNli:
    """The paper's method. ``decompose``: the atoms of a caption as sentences, in canonical words.

    Canonical words matter for speed, not for the equations: a fact that captions put in five ways makes 25 pairs.
    """

    name = "atomic"

    def __init__(self, decompose: Callable[[str], Sequence[str]], repeats: Literal["count", "once"] = "count") -> None:
        self._decompose = decompose
        self._repeats = repeats

    def units(self, text: str) -> Units:
        atoms = self._decompose(text)
        return tuple(dict.fromkeys(atoms) if self._repeats == "once" else atoms)

    def pool(self, forward: np.ndarray, backward: np.ndarray) -> tuple[float, float, float]:
        return pooled(forward, backward)


def canonical_atoms(decomposer: Decomposer) -> Callable[[str], list[str]]:
    """The rule decomposer's atoms in canonical words."""
    return lambda text: [decomposer.canonical(atom) for atom in decomposer(text)]


@dataclass(frozen=True)
class PairCounts:
    """How many questions there were. naive: one per row, unit and direction. distinct: after taking equal ones
    together over all rows, methods and systems. cached: of those, answered from the file."""

    naive: int
    distinct: int
    cached: int


def cross_nli(
    systems: Mapping[str, pd.DataFrame], methods: Sequence[Method], scorer: Scorer
) -> tuple[dict[str, pd.DataFrame], PairCounts]:
    """Every method on every system, all new pairs asked in one go.

    systems: name to a frame with id, reference and prediction (None and NaN are empty outputs). Every method judges the
    texts of :func:`texts_of`.
    Returns per system a frame with :data:`COLUMNS`, one line per method and row, and the counts.
    Besides the rows themselves (some 50 bytes each), memory grows with the distinct captions and pairs only.
    """
    cutters = {method.name: _cutter(method) for method in methods}
    naive = 0
    needed: set[Pair] = set()
    for method in methods:
        cut = cutters[method.name]
        seen: set[tuple[Units, Units]] = set()
        for frame in systems.values():
            for reference, output in _texts(frame):
                one, other = cut(reference)[0], cut(output)[0]
                naive += 2 * len(one) * len(other)
                if (one, other) not in seen:
                    seen.add((one, other))
                    needed.update(_pairs(one, other))
    before = scorer.cached
    answers = scorer(iter(sorted(needed)))
    counts = PairCounts(naive, len(needed), scorer.cached - before)
    return {name: _rows(frame, methods, cutters, answers) for name, frame in systems.items()}, counts


def _rows(
    frame: pd.DataFrame, methods: Sequence[Method], cutters: Mapping[str, Cutter], answers: Mapping[Pair, Answer]
) -> pd.DataFrame:
    """A system's :data:`COLUMNS`, method by method; in arrays, since a tuple per row takes ten times the memory."""
    length = len(methods) * len(frame)
    scores = np.empty((length, len(QUANTITIES)))
    units = np.empty((length, 2), dtype=np.int16)  # at most MOST_UNITS
    rule = np.empty(length, dtype=object)
    told = rules_of(frame)
    texts = ((method, *line) for method in methods for line in zip(_texts(frame), told, strict=True))
    for place, (method, (reference, output), known) in enumerate(texts):
        cut = cutters[method.name]
        scores[place], units[place], decided = _score(method, *cut(reference), *cut(output), answers)
        rule[place] = known or decided
    return pd.DataFrame(
        {
            "id": np.tile(frame["id"].to_numpy(), len(methods)),
            "method": np.repeat([method.name for method in methods], len(frame)),
            **dict(zip(QUANTITIES, scores.T, strict=True)),
            "reference_units": units[:, 0],
            "output_units": units[:, 1],
            "rule": rule,
        }
    )


def texts_of(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Reference and prediction of each row as they are judged.

    Empty for None and NaN, without lone surrogates; a prediction of the wrong modality is empty too.
    """
    return list(_texts(frame))


def rules_of(frame: pd.DataFrame) -> list[str]:
    """What decides each row before any method sees it (empty reference, empty output, wrong modality), else ""."""
    pairs = zip(_column(frame, "reference"), _column(frame, "prediction"), strict=True)
    of = {"caption": "", "empty": EMPTY_OUTPUT}
    return [
        of.get(modality(output), WRONG_MODALITY) if reference.strip() else EMPTY_REFERENCE
        for reference, output in pairs
    ]


def _texts(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    outputs = (text if modality(text) == "caption" else "" for text in _column(frame, "prediction"))
    return zip(_column(frame, "reference"), outputs, strict=True)


def _column(frame: pd.DataFrame, name: str) -> Iterator[str]:
    cells = zip(frame[name], frame[name].isna(), strict=True)
    return ("" if gone else _utf8(str(text)) for text, gone in cells)


def _utf8(text: str) -> str:
    """The text without lone surrogates, which JSON may hold and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def _cutter(method: Method) -> Cutter:
    """The method's units of a text, at most :data:`MOST_UNITS`, and whether there were more."""

    @lru_cache(65_536)
    def cut(text: str) -> tuple[Units, bool]:
        units = method.units(text) if text.strip() else ()
        return units[:MOST_UNITS], len(units) > MOST_UNITS

    return cut


def _pairs(reference: Units, output: Units) -> Iterator[Pair]:
    for one in reference:
        for other in output:
            yield one, other
            yield other, one


def _score(
    method: Method,
    reference: Units,
    long_reference: bool,
    output: Units,
    long_output: bool,
    answers: Mapping[Pair, Answer],
) -> tuple[tuple[float, float, float], tuple[int, int], str]:
    """:data:`QUANTITIES`, the units of both sides, and the rule that decided."""
    counts = len(reference), len(output)
    if not reference:
        return (np.nan, np.nan, np.nan), counts, EMPTY_REFERENCE
    if not output:
        return (np.nan, 0.0, np.nan), counts, EMPTY_OUTPUT
    forward = np.array([[answers[premise, said] for premise in reference] for said in output])
    backward = np.array([[answers[premise, wanted] for premise in output] for wanted in reference])
    return method.pool(forward, backward), counts, CUT if long_reference or long_output else ""


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means of a system's rows: one line per method and quantity, with what the means leave out.

    Columns: method, quantity, mean, n (rows that count), mean_empty_as_0 (with 0 where an output that is empty or no
    caption leaves the quantity undefined), empty_outputs, wrong_modality, empty_references, cut.
    """
    lines = []
    for method, group in rows.groupby("method", sort=False):
        rule = group["rule"]
        odd = {
            "empty_outputs": int((rule == EMPTY_OUTPUT).sum()),
            "wrong_modality": int((rule == WRONG_MODALITY).sum()),
            "empty_references": int((rule == EMPTY_REFERENCE).sum()),
            "cut": int((rule == CUT).sum()),
        }
        for quantity in QUANTITIES:
            values = group[quantity]
            filled = values.where(~rule.isin([EMPTY_OUTPUT, WRONG_MODALITY]), values.fillna(0.0))
            lines.append(
                {
                    "method": method,
                    "quantity": quantity,
                    "mean": float(values.mean()),
                    "n": int(values.notna().sum()),
                    "mean_empty_as_0": float(filled.mean()),
                    **odd,
                }
            )
    return pd.DataFrame(lines)
