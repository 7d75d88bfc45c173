"""The captions that Less for More prints (Table 6, Fig. 17; ``params/printed_captions.tsv``), judged here."""

import csv
from pathlib import Path

import pandas as pd

from lmolt_utils.files import read_rows, write_rows
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.models.loading import model_identity
from lmolt_utils.nli.cross_nli import Method, canonical_atoms, cross_nli
from lmolt_utils.nli.evaluation import nli_settings, scorer_of
from lmolt_utils.nli.truth import truth
from lmolt_utils.paths import root
from lmolt_utils.run.notebook import Run

_CAPTIONS = "printed_captions"
TABLE_6, FIGURE_17 = "Table 6", "Fig. 17"
#: What is found out here of each pair.
OURS = (
    "reference_units", "output_units", "nli_hallucination", "nli_coverage", "unsupported", "recall", "hallucinated",
)  # fmt: skip
#: The corpus of a run need not know the properties that the paper's captions name.
RULES = Decomposer(open_vocabulary=True)


def printed_captions(source: str | None = None) -> pd.DataFrame:
    """source, case, system, reference, caption; of Table 6 also the facts and scores that are printed."""
    frame = pd.read_csv(root() / "params" / f"{_CAPTIONS}.tsv", sep="\t", quoting=csv.QUOTE_NONE)
    return frame[frame["source"] == source].reset_index(drop=True) if source else frame


def figure_17() -> pd.DataFrame:
    """A line per molecule: id, reference, and a column per system; the molecules are printed as pictures only."""
    part = printed_captions(FIGURE_17)
    wide = part.pivot(index=["case", "reference"], columns="system", values="caption")
    return wide[list(dict.fromkeys(part["system"]))].reset_index().rename(columns={"case": "id"})


def judge_printed(run: Run) -> None:
    """Atomic cross-NLI of these captions by the run's model, beside what their property sets say, in their order:
    ``scores/printed_captions.jsonl``."""
    output = _scores_path(run)

    def make(_: Path) -> None:
        printed = printed_captions()
        asked = pd.DataFrame({"id": printed.index, "reference": printed["reference"], "prediction": printed["caption"]})
        found = cross_nli({"": asked}, [Method("atomic", canonical_atoms(RULES))], scorer_of(run))[0][""]
        known = truth(list(zip(printed["reference"], printed["caption"], strict=True)), RULES)
        found = found.rename(columns={name: f"nli_{name}" for name in ("hallucination", "coverage")})
        write_rows(output, pd.concat([printed, found, known], axis=1)[[*printed, *OURS]])

    run.step(
        "captions that the paper prints",
        make,
        outputs=[output],
        params=nli_settings(run),
        inputs={"captions": root() / "params" / f"{_CAPTIONS}.tsv", "model": model_identity(run.params.nli_model)},
    )


def _scores_path(run: Run) -> Path:
    return run.path("scores", f"{_CAPTIONS}.jsonl")


def table_6(run: Run) -> pd.DataFrame:
    """Table 6 again, by case: the paper's numbers, ours (NaN before 07 ran), and what the property sets say."""
    there = _scores_path(run).exists()
    judged = read_rows(_scores_path(run), OURS) if there else printed_captions()
    names = {
        "facts of reference": {"paper": "premises", "here": "reference_units"},
        "facts of output": {"paper": "hypotheses", "here": "output_units"},
        "coverage": {"paper": "coverage", "here": "nli_coverage", "property sets": "recall"},
        "hallucination": {"paper": "hallucination", "here": "nli_hallucination"},
        "unsupported": {"here": "unsupported", "property sets": "hallucinated"},
    }
    part = judged[judged["source"] == TABLE_6].set_index("case").reindex(columns=[*printed_captions(), *OURS])
    return pd.DataFrame({(of, side): part[name] for of, sides in names.items() for side, name in sides.items()})
