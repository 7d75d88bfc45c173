"""What a test set shares with what models were trained and selected on.

The papers call their 3,000 test pairs unseen and out of distribution; they are re-captionings of L+M-24's own
training or validation molecules (audit D21). Such a claim is checked here, against each reference set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit.DataStructs import ExplicitBitVect

from lmolt_utils.data.molecules import Molecule, molecules, nearest
from lmolt_utils.data.sample import property_key
from lmolt_utils.embedded.corpus import MODEL_ROWS, MODEL_SEED, generate
from lmolt_utils.files import read_rows, write_rows
from lmolt_utils.run.notebook import Run

COUNT_COLUMNS = ("reference", "rows", "by", "seen", "of", "share")
SIMILAR = 0.9


@dataclass(frozen=True)
class Overlap:
    """One test set against several reference sets.

    counts: per reference and per entry of :func:`_keys`, how many test rows it has ``seen``, ``of`` how many that can
    be compared (with a ring for scaffolds, a property set for those), and the ``share`` (NaN of none). similarities:
    per test row its ``id`` and, one column per reference, the Tanimoto similarity (Morgan, radius 2, 2,048 bits) of
    its nearest neighbour there; NaN where the reference is empty.
    """

    counts: pd.DataFrame
    similarities: pd.DataFrame

    def neighbours(self) -> pd.DataFrame:
        """Per reference: test rows compared, mean similarity of the nearest neighbour, shares at 0.9 and at 1."""
        values = self.similarities.drop(columns="id").astype(float)
        compared = values.notna().sum()
        table = {"of": compared, "mean": values.mean(), f"share >= {SIMILAR}": (values >= SIMILAR).sum() / compared}
        return pd.DataFrame(table | {"share = 1": (values == 1).sum() / compared}).rename_axis("nearest neighbour in")


def overlap_report(test: pd.DataFrame, references: Mapping[str, pd.DataFrame]) -> Overlap:
    """Compare ``test`` with each of ``references``, by name; all have readable molecules.

    Where one side lacks property sets altogether nothing is compared, which is not the same as nothing shared.
    """
    tested = molecules(test["molecule"])
    formulas = {found.formula for found in tested}
    mine = _keys(test, tested, formulas)
    lines = []
    similarities = test[["id"]].reset_index(drop=True)
    for name, frame in references.items():
        distinct = molecules(frame["molecule"].unique())
        theirs = {by: set(keys) - {None} for by, keys in _keys(frame, distinct, formulas).items()}
        for by, all_keys in mine.items():
            comparable = len(frame) and (theirs[by] or by != "property set")
            keys = [key for key in all_keys if key is not None] if comparable else []
            seen = sum(key in theirs[by] for key in keys)
            lines.append((name, len(frame), by, seen, len(keys), seen / len(keys) if keys else np.nan))
        among = list(_distinct(distinct).values())
        best = {key: nearest(bits, among)[1] for key, bits in _distinct(tested).items()} if among else {}
        similarities[name] = [best.get(found.fingerprint.ToBinary(), np.nan) for found in tested]
    return Overlap(pd.DataFrame(lines, columns=list(COUNT_COLUMNS)), similarities)


def _keys(frame: pd.DataFrame, found: Sequence[Molecule], formulas: set[str]) -> dict[str, Sequence[str | None]]:
    """What each row, or each molecule, may have in common with others; ``None`` where nothing identifies it.

    Equal InChIKeys need equal formulas, so molecules of a formula that the test set lacks are spared the costly key.
    """
    return {
        "canonical SMILES": [one.canonical for one in found],
        "InChIKey": [(one.inchikey or None) if one.formula in formulas else None for one in found],
        "scaffold": [one.scaffold or None for one in found],
        "property set": [property_key(text) for text in frame["properties"]],
        "caption": [" ".join(text.split()) for text in frame["caption"]],
    }


def _distinct(found: Sequence[Molecule]) -> dict[bytes, ExplicitBitVect]:
    """Fingerprints, each once: chains of different length often share one (L+M-24: 56,321 of 160,560 molecules)."""
    return {one.fingerprint.ToBinary(): one.fingerprint for one in found}


# ---- the sets of a run ----


def initialisation_data(corpus: pd.DataFrame, model: str) -> pd.DataFrame:
    """What the per-task model ``model`` was trained on: an embedded one the train split of its own corpus, any other
    all of the run's training molecules, as the papers' models were fine-tuned on all of L+M-24 train.
    """
    trained_on = generate(MODEL_ROWS, MODEL_SEED) if model.startswith("embedded:") else corpus
    return trained_on[trained_on["split"] == "train"]


def make_overlap(
    run: Run, corpus: pd.DataFrame, sampled: pd.DataFrame, tested: pd.DataFrame, initial_model: str
) -> Overlap:
    """The run's test set against the sample, training, validation and the initialisation (``data/overlap.*.jsonl``)."""
    paths = [run.path("data", f"overlap.{name}.jsonl") for name in ("counts", "neighbours")]
    train, validation = (corpus[corpus["split"] == split] for split in ("train", "validation"))

    def make(_: Path) -> None:
        references = {"the sample": sampled, "all training": train, "validation": validation}
        references["the initialisation's training"] = initialisation_data(corpus, initial_model)
        report = overlap_report(tested, references)
        for path, frame in zip(paths, (report.counts, report.similarities), strict=True):
            write_rows(path, frame)

    inputs = {name: run.path("data", f"{name}.jsonl") for name in ("corpus", "sample", "test")}
    run.step("overlap", make, outputs=paths, params={"initial model": initial_model}, inputs=inputs)
    return Overlap(read_rows(paths[0], COUNT_COLUMNS), read_rows(paths[1], ("id",)))


def shared_table(counts: pd.DataFrame) -> pd.DataFrame:
    """Counts as a small table: references against what is shared, each cell "seen of comparable (share)"."""
    rows = counts[["seen", "of", "share"]].itertuples(index=False)
    text = [f"{seen:,} of {of:,} ({100 * share:.0f} %)" if of else "nothing to compare" for seen, of, share in rows]
    wide = counts.assign(text=text).pivot(index="reference", columns="by", values="text")
    return wide.loc[list(dict.fromkeys(counts["reference"])), list(dict.fromkeys(counts["by"]))]
