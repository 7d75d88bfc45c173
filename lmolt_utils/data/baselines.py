"""Trivial systems: what can be had from the sample without training a language model.

L+M-24 is so skewed (one property set covers 36.5 % of its molecules; audit D26) that answering always the same
scores well on n-grams; a trained system must beat that. Three rows of the systems table, all from the 10 % sample
that every other system trains on, and from nothing of a test row but its source:

``constant``
    mol2cap: the most frequent caption among the molecules of the most frequent property set (of equally frequent
    ones the medoid: the caption whose words are on average most like the others'). cap2mol: the medoid of those
    molecules by Tanimoto similarity.
``nearest-neighbour``
    mol2cap: the caption of the most similar sample molecule (Tanimoto, Morgan radius 2). cap2mol: the molecule of
    the sample caption that shares most words (Jaccard of the sets of words).
``rule``
    mol2cap: a decision tree over counts of functional groups (RDKit's ``fr_`` fragments) names the property set; the
    answer is that set's caption, chosen as in ``constant``. cap2mol: the sample's property names found in the
    caption, longest first, pick the property set with the highest Jaccard similarity (ties: the more frequent
    set); the answer is the medoid of its molecules.

Where the corpus states no property sets, ``constant`` takes the whole sample for one set, and ``rule`` is not run.
Of equal candidates the first in the sample counts. An unreadable molecule is answered as ``constant`` does.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem
from rdkit.Chem import Fragments
from sklearn.tree import DecisionTreeClassifier, export_text

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.systems import BASELINES, System
from lmolt_utils.data.molecules import Molecules, fingerprints, parse
from lmolt_utils.data.overlap import property_key
from lmolt_utils.data.sample import CORPUS_COLUMNS, TEST_COLUMNS
from lmolt_utils.data.similarity import encode, medoid, nearest
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import read_rows, write_rows, write_text
from lmolt_utils.models.predictions import PREDICTION_COLUMNS, prediction_path
from lmolt_utils.run.notebook import Run

#: Leaves of ``rule``'s decision tree: few enough to be read.
MAX_LEAVES = 32
_FRAGMENTS: list[tuple[str, Callable[[Chem.Mol], int]]] = sorted(Fragments.fns)


class BaselineError(CompanionError):
    """A baseline that cannot be made from the sample."""


def words_of(caption: str) -> frozenset[str]:
    """The distinct lower-cased words of a caption, without punctuation at their ends."""
    return frozenset(word for text in caption.lower().split() if (word := text.strip(".,;:!?()\"'")))


class Sample:
    """The training sample with what baselines ask of it. Raises :class:`BaselineError` if it has no readable molecule.

    ``rows`` needs the columns molecule, caption and properties; molecules that RDKit cannot read are left out.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        self.parsed = Molecules()
        self.rows = rows[[self.parsed[text] is not None for text in rows["molecule"]]].reset_index(drop=True)
        if self.rows.empty:
            raise BaselineError(f"none of the {len(rows)} sampled molecules can be read: check the corpus")
        self.sets = [property_key(text) for text in self.rows["properties"]]
        self.fingerprints = fingerprints([m for m in self.parsed.of(self.rows["molecule"]) if m])
        #: Property sets, the most frequent first (of equals the first in the sample).
        self.by_frequency = list(pd.Series(self.sets).dropna().value_counts(sort=True).index)
        counts = pd.Series(self.sets).value_counts()
        first = {key: self.sets.index(key) for key in self.by_frequency}
        self.by_frequency.sort(key=lambda key: (-int(counts[key]), first[key]))

    @property
    def largest(self) -> list[int]:
        """Row numbers of the most frequent property set; all rows where no property sets are stated."""
        return self.rows_of(self.by_frequency[0]) if self.by_frequency else list(range(len(self.rows)))

    def rows_of(self, key: str) -> list[int]:
        """Row numbers of one property set."""
        return [number for number, own in enumerate(self.sets) if own == key]

    def caption_of(self, numbers: Sequence[int]) -> str:
        """The most frequent caption among these rows; of equally frequent ones the medoid by words."""
        captions = self.rows["caption"].iloc[list(numbers)].tolist()
        counts = pd.Series(captions).value_counts()
        most = [place for place, text in enumerate(captions) if counts[text] == counts.max()]
        (bits,) = encode([words_of(text) for text in captions])
        return str(captions[medoid(bits, most)])

    def molecule_of(self, numbers: Sequence[int]) -> str:
        """The medoid of these rows' molecules."""
        return str(self.rows["molecule"].iloc[numbers[medoid(self.fingerprints[list(numbers)])]])


# ---- the three of them ----


def constant(sample: Sample, task: Task, sources: Sequence[str]) -> list[str]:
    """The same answer for every source."""
    answer = sample.caption_of(sample.largest) if task == "mol2cap" else sample.molecule_of(sample.largest)
    return [answer] * len(sources)


def nearest_neighbour(sample: Sample, task: Task, sources: Sequence[str]) -> list[str]:
    """The other half of the sample row whose own half is most like the source."""
    if task == "cap2mol":
        asked, known = encode([words_of(t) for t in sources], [words_of(t) for t in sample.rows["caption"]])
        return [str(text) for text in sample.rows["molecule"].iloc[nearest(asked, known)[0]]]
    answers = constant(sample, task, sources)
    readable = [(place, found) for place, found in enumerate(sample.parsed.of(sources)) if found]
    if readable:
        numbers, _ = nearest(fingerprints([found for _, found in readable]), sample.fingerprints)
        for (place, _), number in zip(readable, numbers, strict=True):
            answers[place] = str(sample.rows["caption"].iloc[number])
    return answers


def rule(sample: Sample, task: Task, sources: Sequence[str]) -> list[str]:
    """Functional groups name the property set; property names in a caption name it, too."""
    if not sample.by_frequency:
        raise BaselineError("the sample states no property sets, and 'rule' is about nothing else: leave it out")
    if task == "cap2mol":
        find = name_finder(sample.by_frequency)
        asked, known = encode([find(text) for text in sources], [key.split("|") for key in sample.by_frequency])
        chosen = [sample.by_frequency[number] for number in nearest(asked, known)[0]]
        answer = {key: sample.molecule_of(sample.rows_of(key)) for key in dict.fromkeys(chosen)}
        return [answer[key] for key in chosen]
    tree = fit_tree(sample)
    answers = constant(sample, task, sources)
    places = [place for place, found in enumerate(sample.parsed.of(sources)) if found]
    if places:
        keys = tree.predict(functional_groups([sources[place] for place in places]))
        captions = {str(key): sample.caption_of(sample.rows_of(str(key))) for key in dict.fromkeys(keys)}
        for place, key in zip(places, keys, strict=True):
            answers[place] = captions[str(key)]
    return answers


def functional_groups(smiles: Sequence[str]) -> np.ndarray:
    """Counts of RDKit's 85 ``fr_`` fragments in readable molecules, shape (n, 85)."""
    counts: dict[str, list[int]] = {}
    for text in dict.fromkeys(smiles):
        mol = parse(text)
        counts[text] = [count(mol) for _, count in _FRAGMENTS]
    return np.array([counts[text] for text in smiles], dtype=np.float32)


def fit_tree(sample: Sample) -> DecisionTreeClassifier:
    """The tree from functional groups to property sets; deterministic (ties between splits by a fixed seed)."""
    stated = [number for number, key in enumerate(sample.sets) if key]
    tree = DecisionTreeClassifier(max_leaf_nodes=MAX_LEAVES, random_state=0)
    groups = functional_groups(sample.rows["molecule"].iloc[stated].tolist())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes")  # property sets are many, in truth
        return tree.fit(groups, [sample.sets[number] for number in stated])


def tree_text(tree: DecisionTreeClassifier) -> str:
    """The tree's rules, one indented line per test."""
    names = [name.removeprefix("fr_").replace("_", " ") for name, _ in _FRAGMENTS]
    shown = [key if len(key) < 100 else f"{key[:97]}..." for key in tree.classes_]
    return str(export_text(tree, feature_names=names, class_names=shown, decimals=1, max_depth=MAX_LEAVES))


def name_finder(sets: Sequence[str]) -> Callable[[str], frozenset[str]]:
    """A function that finds the property names of these sets in a caption: whole words, the longest first."""
    names = sorted({name for key in sets for name in key.split("|")}, key=lambda name: (-len(name), name))
    pattern = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, names)) + r")(?!\w)")
    return lambda caption: frozenset(pattern.findall(caption.lower()))


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

        def make(_: Path, task: Task = task, outputs: Sequence[Any] = outputs) -> None:
            sample = Sample(read_rows(sampled, CORPUS_COLUMNS))
            rows = read_rows(tested, TEST_COLUMNS)
            columns = ("molecule", "caption") if task == "mol2cap" else ("caption", "molecule")
            source, reference = rows[columns[0]], rows[columns[1]]
            answers = ANSWERS[system.name](sample, task, source.tolist())
            frame = pd.DataFrame({"id": rows["id"], "task": task, "source": source, "reference": reference})
            frame["raw"] = frame["prediction"] = answers
            write_rows(outputs[0], frame[list(PREDICTION_COLUMNS)])
            if len(outputs) > 1:
                write_text(outputs[1], tree_text(fit_tree(sample)))

        run.step(
            f"predict {system.name} {task}",
            make,
            outputs=outputs,
            params={"task": task, "baseline": system.name},
            inputs={"sample": sampled, "test": tested},
            say=say,
        )
    return True
