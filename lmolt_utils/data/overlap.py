"""What a test set shares with what models were trained and selected on.

The papers call their 3,000 test pairs unseen and out of distribution; they are re-captionings of L+M-24's own
training or validation molecules (audit D21). Such a claim is checked here, against each reference set: by
canonical SMILES, InChIKey, Bemis-Murcko scaffold, property set, caption, and by the similarity of each test molecule's
nearest neighbour.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rdkit.DataStructs import ExplicitBitVect

from lmolt_utils.data.captioner import Compose, Knowledge, kept_captioner
from lmolt_utils.data.molecules import Molecule, molecule, nearest
from lmolt_utils.data.sample import draw, property_key
from lmolt_utils.embedded.captions import caption_for
from lmolt_utils.embedded.corpus import MODEL_ROWS, MODEL_SEED, generate
from lmolt_utils.errors import CompanionError, DataError
from lmolt_utils.files import read_rows, write_rows
from lmolt_utils.run.notebook import Run

#: What two rows may have in common, from the same molecule to the same words.
BY = ("canonical SMILES", "InChIKey", "scaffold", "property set", "caption")
#: What a data set may lack altogether; then nothing can be compared, which is not the same as nothing shared.
_OPTIONAL = ("property set", "caption")
COUNT_COLUMNS = ("reference", "rows", "by", "seen", "of", "share")
SIMILAR = 0.9
#: What :func:`possible_test_sets` shows, with the ``test_set`` that draws it.
POSSIBLE = {
    "held out (test)": "test",
    "withheld combinations": "withheld_combos",
    "extra_train": "extra_train",
    "extra_valid": "extra_valid",
}


class OverlapError(CompanionError):
    """Rows that cannot be compared."""


@dataclass(frozen=True)
class Overlap:
    """One test set against several reference sets.

    counts: per reference and per entry of :data:`BY`, how many test rows it has ``seen``, ``of`` how many that can
    be compared (readable molecules; with a ring for scaffolds; with a property set or a caption on both sides), and
    the ``share`` (NaN of none). similarities: per test row its ``id`` and, one column per reference, the Tanimoto
    similarity (Morgan, radius 2, 2,048 bits) of its nearest neighbour there; NaN for what RDKit cannot read.
    unreadable: per set how many rows RDKit cannot read, and the first of them.
    """

    counts: pd.DataFrame
    similarities: pd.DataFrame
    unreadable: pd.DataFrame

    def neighbours(self) -> pd.DataFrame:
        """Per reference: test rows compared, mean similarity of the nearest neighbour, shares at 0.9 and at 1."""
        values = self.similarities.drop(columns="id").astype(float)
        compared = values.notna().sum().replace(0, np.nan)
        return pd.DataFrame(
            {
                "of": values.notna().sum(),
                "mean": values.mean(),
                f"share >= {SIMILAR}": (values >= SIMILAR).sum() / compared,
                "share = 1": (values == 1).sum() / compared,
            }
        ).rename_axis("nearest neighbour in")


def overlap_report(test: pd.DataFrame, references: Mapping[str, pd.DataFrame]) -> Overlap:
    """Compare ``test`` with each of ``references``, by name.

    All frames need a column ``molecule``; ``properties`` (``|``-separated) and ``caption`` are compared where both
    sides have them; ids come from ``id`` if ``test`` has it. Raises :class:`OverlapError` for an empty test set or a
    missing column.
    """
    for name, frame in {"the test set": test, **references}.items():
        if "molecule" not in frame:
            raise OverlapError(f"{name} has no column 'molecule'; it has {', '.join(map(str, frame.columns))}")
    if test.empty:
        raise OverlapError("the test set has no rows: there is nothing to compare")
    tested = [molecule(text) for text in test["molecule"]]
    formulas = {found.formula for found in tested if found}
    mine = _keys(test, tested, formulas)
    lines = []
    similarities = pd.DataFrame({"id": test["id"] if "id" in test else range(len(test))}).reset_index(drop=True)
    unreadable = [_unreadable("test", test)]
    for name, frame in references.items():
        distinct = [molecule(text) for text in frame["molecule"].unique()]
        theirs = {by: set(keys) - {None} for by, keys in _keys(frame, distinct, formulas).items()}
        for by in BY:
            keys = [key for key in mine[by] if key is not None] if theirs[by] or by not in _OPTIONAL else []
            seen = sum(key in theirs[by] for key in keys)
            lines.append((name, len(frame), by, seen, len(keys), seen / len(keys) if keys else np.nan))
        among = list(_distinct(distinct).values())
        best = {key: nearest(bits, among)[1] for key, bits in _distinct(tested).items()} if among else {}
        similarities[name] = [best.get(m.fingerprint.ToBinary(), np.nan) if m else np.nan for m in tested]
        unreadable.append(_unreadable(name, frame))
    return Overlap(pd.DataFrame(lines, columns=list(COUNT_COLUMNS)), similarities, pd.DataFrame(unreadable))


def _keys(frame: pd.DataFrame, found: Sequence[Molecule | None], formulas: set[str]) -> dict[str, Sequence[str | None]]:
    """Per entry of :data:`BY` what identifies each row, or each molecule; ``None`` where nothing does.

    Equal InChIKeys need equal formulas, so molecules of a formula that the test set lacks are spared the costly key.
    """
    return {
        "canonical SMILES": [m.canonical if m else None for m in found],
        "InChIKey": [(m.inchikey or None) if m and m.formula in formulas else None for m in found],
        "scaffold": [(m.scaffold or None) if m else None for m in found],
        "property set": [property_key(text) for text in frame.get("properties", [])],
        "caption": [" ".join(str(text).split()) or None for text in frame.get("caption", [])],
    }


def _distinct(molecules: Sequence[Molecule | None]) -> dict[bytes, ExplicitBitVect]:
    """Fingerprints, each once: chains of different length often share one (L+M-24: 56,321 of 160,560 molecules)."""
    return {found.fingerprint.ToBinary(): found.fingerprint for found in molecules if found}


def _unreadable(name: str, frame: pd.DataFrame) -> dict[str, Any]:
    bad = [str(text) for text in frame["molecule"] if molecule(text) is None]
    return {"set": name, "rows": len(frame), "unreadable": len(bad), "first": bad[0][:60] if bad else ""}


# ---- the sets of a run ----


def initialisation_data(corpus: pd.DataFrame, model: str) -> pd.DataFrame:
    """The molecules that the per-task model ``model`` was trained on.

    The embedded models: the train split of their own corpus. Any other: all of the run's training molecules, as the
    papers' models were fine-tuned on all of L+M-24 train.
    """
    trained_on = generate(MODEL_ROWS, MODEL_SEED) if model.startswith("embedded:") else corpus
    return trained_on[trained_on["split"] == "train"]


def possible_test_sets(
    corpus: pd.DataFrame, rows: int, seed: int, corpus_seed: int = 0, compose: Compose = caption_for
) -> dict[str, pd.DataFrame]:
    """Test sets one may draw from ``corpus``, at most ``rows`` each, as a run with that ``test_set`` draws them.

    Held out, withheld combinations, and the papers' two readings: ``extra_train`` and ``extra_valid`` are what their
    "supplementary data" is (audit D21), L+M-24's own training and validation molecules with new captions. What the
    corpus has too few molecules for is left out.
    """
    sets = {}
    for label, name in POSSIBLE.items():
        with suppress(DataError):
            sets[label] = draw(name, corpus, rows, seed, corpus_seed=corpus_seed, known=Knowledge(compose=compose))[0]
    return sets


def make_overlap(
    run: Run, corpus: pd.DataFrame, sampled: pd.DataFrame, tested: pd.DataFrame, initial_model: str
) -> tuple[Overlap, pd.DataFrame]:
    """The run's test set against training, validation and the initialisation, and the possible test sets beside it.

    Both are made once and kept (``data/overlap*.jsonl``). Returns the report of the run's test set and, for every
    possible test set and reference, the columns ``test set`` and :data:`COUNT_COLUMNS` (nearest neighbours as rows
    ``nearest neighbour >= 0.9``).
    """
    paths = [run.path("data", f"overlap.{name}.jsonl") for name in ("counts", "neighbours", "unreadable", "possible")]
    train, validation = (corpus[corpus["split"] == split] for split in ("train", "validation"))
    references = {"the sample": sampled, "all training": train, "validation": validation}

    def make(_: Path) -> None:
        initial = {"the initialisation's training": initialisation_data(corpus, initial_model)}
        report = overlap_report(tested, {**references, **initial})
        compose = kept_captioner(run.path("data"))
        others = possible_test_sets(corpus, len(tested), run.params.seed, run.params.corpus_seed, compose)
        lines = [
            _with_neighbours(overlap_report(frame, references)).assign(**{"test set": name})
            for name, frame in others.items()
        ]
        frames = (report.counts, report.similarities, report.unreadable, pd.concat(lines, ignore_index=True))
        for path, frame in zip(paths, frames, strict=True):
            write_rows(path, frame)

    run.step(
        "overlap",
        make,
        outputs=paths,
        params={"initial model": initial_model, "seed": run.params.seed, "corpus_seed": run.params.corpus_seed},
        inputs={
            **{name: run.path("data", f"{name}.jsonl") for name in ("corpus", "sample", "test")},
            "property tree": run.path("data", "property_tree.json"),
        },
    )
    counts, similarities, unreadable, possible = (
        read_rows(path, columns)
        for path, columns in zip(
            paths, (COUNT_COLUMNS, ("id",), ("set", "unreadable"), ("test set", *COUNT_COLUMNS)), strict=True
        )
    )
    return Overlap(counts, similarities, unreadable), possible


def _with_neighbours(report: Overlap) -> pd.DataFrame:
    """The counts, and a line per reference for close neighbours."""
    near = report.neighbours()
    sizes = report.counts.drop_duplicates("reference").set_index("reference")["rows"]
    share = near[f"share >= {SIMILAR}"]
    lines = pd.DataFrame(
        {
            "reference": near.index,
            "rows": sizes[near.index].to_numpy(),
            "by": f"nearest neighbour >= {SIMILAR}",
            "seen": (share * near["of"]).round().fillna(0).astype(int).to_numpy(),
            "of": near["of"].to_numpy(),
            "share": share.to_numpy(),
        }
    )
    return pd.concat([report.counts, lines], ignore_index=True)


def shared_table(counts: pd.DataFrame, rows: str = "reference") -> pd.DataFrame:
    """Counts as a small table: ``rows`` against what is shared, each cell "seen of comparable (share)"."""
    text = [
        f"{seen:,} of {of:,} ({100 * share:.0f} %)" if of else "nothing to compare"
        for seen, of, share in counts[["seen", "of", "share"]].itertuples(index=False)
    ]
    wide = counts.assign(text=text).pivot(index=rows, columns="by", values="text")
    return wide.loc[list(dict.fromkeys(counts[rows])), list(dict.fromkeys(counts["by"]))]
