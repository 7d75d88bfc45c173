"""Baselines: what can be had from the 10 % sample without training a language model, as rows of the systems table.

L+M-24 is so skewed (one property set covers 36.5 % of its molecules; audit D26) that always answering the same scores
well on n-grams; a trained system must beat that. Of equal candidates the first in the sample counts.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit.Chem import Fragments
from rdkit.DataStructs import ExplicitBitVect
from sklearn.tree import DecisionTreeClassifier, export_text

from lmolt_utils.config.prompts import SIDES, TASKS, Task
from lmolt_utils.config.systems import BASELINES, System
from lmolt_utils.data.molecules import medoid, molecules, nearest, parse
from lmolt_utils.data.sample import CORPUS_COLUMNS, TEST_COLUMNS, property_key
from lmolt_utils.files import read_rows, write_rows, write_text
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.models.predictions import PREDICTION_COLUMNS, prediction_path
from lmolt_utils.run.notebook import Run

#: Leaves of ``rule``'s decision tree: few enough to be read.
MAX_LEAVES = 32
_FRAGMENTS = sorted(Fragments.fns)


def words_of(caption: str) -> frozenset[str]:
    """The distinct lower-cased words of a caption, without punctuation at their ends."""
    return frozenset(word for text in caption.lower().split() if (word := text.strip(".,;:!?()\"'")))


def as_bits(*collections: Sequence[Iterable[str]]) -> list[list[ExplicitBitVect]]:
    """Sets of words as RDKit's bit vectors, all over one vocabulary."""
    number: dict[str, int] = {}
    numbered = [[[number.setdefault(word, len(number)) for word in one] for one in sets] for sets in collections]

    def vector(members: list[int]) -> ExplicitBitVect:
        bits = ExplicitBitVect(max(1, len(number)))
        bits.SetBitsFromList(members)
        return bits

    return [[vector(members) for members in sets] for sets in numbered]


class Sample:
    """The training sample (columns molecule, caption, properties) with what baselines ask of it."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows
        self.fingerprints = [one.fingerprint for one in molecules(rows["molecule"])]
        self.sets = [property_key(text) for text in rows["properties"]]
        #: Property sets, the most frequent first (of equals the first in the sample).
        self.by_frequency = [key for key, _ in Counter(key for key in self.sets if key).most_common()]
        self._typical: dict[tuple[Task, str | None], str] = {}

    @cached_property
    def tree(self) -> DecisionTreeClassifier:
        """From functional groups to property sets; deterministic (ties between splits by a fixed seed)."""
        stated = [number for number, key in enumerate(self.sets) if key]
        groups = functional_groups(self.rows["molecule"].iloc[stated].tolist())
        tree = DecisionTreeClassifier(max_leaf_nodes=MAX_LEAVES, random_state=0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The number of unique classes")  # there are many
            return tree.fit(groups, [self.sets[number] for number in stated])

    def typical(self, task: Task, key: str | None = None) -> str:
        """What answers for one property set, by default the most frequent (of all rows where no sets are stated);
        kept, as time grows with the square of a set's rows."""
        key = key or next(iter(self.by_frequency), None)
        if (task, key) not in self._typical:
            rows = [number for number, own in enumerate(self.sets) if own == key] if key else range(len(self.rows))
            self._typical[task, key] = self._caption_of(rows) if task == "mol2cap" else self._molecule_of(rows)
        return self._typical[task, key]

    def _caption_of(self, numbers: Sequence[int]) -> str:
        """The most frequent caption among these rows; of equally frequent ones the medoid by words."""
        captions = self.rows["caption"].iloc[list(numbers)].tolist()
        counts = Counter(captions)
        highest = max(counts.values())
        most = [place for place, text in enumerate(captions) if counts[text] == highest]
        (bits,) = as_bits([words_of(text) for text in captions])
        return str(captions[medoid(bits, most)])

    def _molecule_of(self, numbers: Sequence[int]) -> str:
        """The medoid of these rows' molecules."""
        return str(self.rows["molecule"].iloc[numbers[medoid([self.fingerprints[number] for number in numbers])]])


def constant(sample: Sample, task: Task, sources: Sequence[str]) -> list[str]:
    """The same answer for every source: caption, or medoid molecule, of the most frequent property set."""
    return [sample.typical(task)] * len(sources)


def nearest_neighbour(sample: Sample, task: Task, sources: Sequence[str]) -> list[str]:
    """The other half of the sample row whose own half is most like the source.

    Molecules by Tanimoto similarity (Morgan radius 2), captions by the Jaccard similarity of their sets of words.
    """
    if task == "cap2mol":
        asked, known = as_bits([words_of(t) for t in sources], [words_of(t) for t in sample.rows["caption"]])
        return [str(sample.rows["molecule"].iloc[nearest(one, known)[0]]) for one in asked]
    closest = [nearest(one.fingerprint, sample.fingerprints)[0] for one in molecules(sources)]
    return sample.rows["caption"].iloc[closest].tolist()


def rule(sample: Sample, task: Task, sources: Sequence[str]) -> list[str]:
    """The answer of ``constant`` for the property set that the source tells.

    mol2cap: a decision tree over counts of functional groups (RDKit's ``fr_`` fragments) names the set. cap2mol: the
    set most similar (Jaccard) to the names that the grammar reads in the caption; of equals the more frequent.
    """
    if task == "cap2mol":
        sets = [key.split("|") for key in sample.by_frequency]
        read = Decomposer(Vocabulary.from_names(name for names in sets for name in names)).properties
        asked, known = as_bits([read(text) for text in sources], sets)
        return [sample.typical(task, sample.by_frequency[nearest(one, known)[0]]) for one in asked]
    return [sample.typical(task, str(key)) for key in sample.tree.predict(functional_groups(sources))]


def functional_groups(smiles: Sequence[str]) -> np.ndarray:
    """Counts of RDKit's 85 ``fr_`` fragments, shape (n, 85)."""
    return np.array([[count(mol) for _, count in _FRAGMENTS] for mol in map(parse, smiles)], dtype=np.float32)


def tree_text(tree: DecisionTreeClassifier) -> str:
    """The tree's rules, one indented line per test."""
    names = [name.removeprefix("fr_").replace("_", " ") for name, _ in _FRAGMENTS]
    shown = [key if len(key) < 100 else f"{key[:97]}..." for key in tree.classes_]
    return str(export_text(tree, feature_names=names, class_names=shown, decimals=1, max_depth=MAX_LEAVES))


ANSWERS = dict(zip(BASELINES, (constant, nearest_neighbour, rule), strict=True))


# ---- as systems ----


def make_baseline(run: Run, system: System, say: Callable[[str], None] = print) -> bool:
    """Predict both tasks with one baseline; ``rule`` also leaves its tree, ``models/rule.txt``. Returns whether it ran.

    A baseline that the corpus does not allow is said to be not run, and leaves no predictions to be scored.
    """
    sampled, tested = run.path("data", "sample.jsonl"), run.path("data", "test.jsonl")
    if system.name == "rule" and not read_rows(sampled, CORPUS_COLUMNS)["properties"].map(property_key).any():
        say("rule: not run: the corpus states no property sets")
        for task in TASKS:
            prediction_path(run, system.name, task).unlink(missing_ok=True)
        return False
    for task in TASKS:
        outputs = [prediction_path(run, system.name, task)]
        if (system.name, task) == ("rule", "mol2cap"):
            outputs.append(run.path("models", "rule.txt"))

        def make(_: Path, task: Task = task, outputs: Sequence[Path] = outputs) -> None:
            sample, rows = Sample(read_rows(sampled, CORPUS_COLUMNS)), read_rows(tested, TEST_COLUMNS)
            source, reference = SIDES[task]
            answers = ANSWERS[system.name](sample, task, rows[source].tolist())
            frame = rows.assign(task=task, source=rows[source], reference=rows[reference])
            write_rows(outputs[0], frame.assign(raw=answers, prediction=answers)[list(PREDICTION_COLUMNS)])
            if len(outputs) > 1:
                write_text(outputs[1], tree_text(sample.tree))

        params, inputs = {"task": task, "baseline": system.name}, {"sample": sampled, "test": tested}
        run.step(f"predict {system.name} {task}", make, outputs=outputs, params=params, inputs=inputs, say=say)
    return True
