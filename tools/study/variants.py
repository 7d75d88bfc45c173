"""What the study asks beside its main run: other test sets, other seeds, the released code's choices.

Each is a run of its own (``runs/study+test_set=test`` and so on), made by the notebooks' own calls for the headline
rows; adapters that the main run trained are taken from there, where each step's record tells whether they fit.
``corrected`` is the main run itself, which the others are held against: made here where it is not there.
``python -m tools.study.variants rates`` tries learning rates the same way, with a quarter of the steps, another sample
and seed, on validation molecules that are in none of the test sets; ``... save`` writes the table of the others.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.systems import BASELINES, System, load_systems
from lmolt_utils.data.baselines import make_baseline
from lmolt_utils.data.captioner import knowledge
from lmolt_utils.data.prepare import corpus_source, make_corpus, make_sample_and_test
from lmolt_utils.data.sample import draw
from lmolt_utils.files import read_rows, write_text
from lmolt_utils.metrics.intervals import intervals
from lmolt_utils.metrics.results import SCORE_COLUMNS, all_scores
from lmolt_utils.metrics.scoring import Scorer, score_systems
from lmolt_utils.models.predictions import PREDICTION_COLUMNS, prediction_path
from lmolt_utils.negatives.pairs import make_negatives, make_pairs
from lmolt_utils.paths import from_root, run_folder
from lmolt_utils.run.notebook import Run, start
from lmolt_utils.run.steps import records
from lmolt_utils.training.experiment import make_system
from tools.study import FOLDER, save_table
from tools.study.models import adapter_costs, backbone_costs

PROFILE = "study"
HEADLINE = ("meditron", "init", "sft", "dpo", "cpo", "slerp+cpo")
#: Name of a variant -> what differs, and which systems it makes.
VARIANTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "corrected": ({}, (*HEADLINE, "sft.no-eos")),
    # 500 rows, as the released prompts' white space makes each answer eight times as dear here.
    "prompts": ({"test_rows": 500}, ("meditron", "meditron.test-prompt", "cpo", "cpo.test-prompt", "cpo.cleaning")),
    "test": ({"test_set": "test"}, (*HEADLINE, *BASELINES)),
    "withheld": ({"test_set": "withheld_combos"}, (*HEADLINE, *BASELINES)),
    "seeds": ({"seeds": [0, 1, 2]}, ("sft", "dpo", "cpo", "slerp+cpo")),
    "lower-rate": ({"learning_rate": 2.5e-4}, ("dpo",)),
    # All choices of the released code but its prompts' white space, which the models' tokenizer, made on one form of
    # the prompts, writes in 280 to 390 tokens instead of 10 to 15: eight times the cost, of a kind that 7B never pays.
    "released": (
        {"semantics": "as_released", "switches": {"train_prompt": "corrected", "test_prompt": "corrected"}},
        ("meditron", "sft", "dpo", "cpo", "slerp+cpo"),
    ),
    # With their white space, in training and in testing; of these long rows, small batches are faster on a CPU.
    "released-white-space": (
        {"semantics": "as_released", "micro_batch": 4},
        ("meditron", "sft", "dpo", "cpo", "slerp+cpo"),
    ),
}


#: Peak learning rates that were tried, by whom, and the run that each was tried in.
RATES = {1.0e-3: ("dpo",), 4.0e-3: ("sft", "cpo"), 8.0e-3: ("sft", "cpo")}
TRIED = {"epochs": 0.75, "seed": 1, "seeds": [1], "test_set": "validation", "test_rows": 700}


def make(overrides: Mapping[str, Any], names: Sequence[str]) -> Run:
    """Make the systems of a changed run and score them; what is there already is kept."""
    data = _run("01_data", overrides)
    base = data.folder.with_name(PROFILE)
    for part in ("data/corpus", "data/property_tree", "data/withheld_pairs", "data/negatives"):
        _take(base, data.folder, part)
    if "semantics" not in overrides:  # the pairs are the same, and so may the trainings be
        _take(base, data.folder, "data/pairs.jsonl")
        for own in names:
            _take(base, data.folder, f"models/{own}")
            _take(base, data.folder, f"logs/{own}.training.jsonl")
    make_corpus(data)
    make_sample_and_test(data)
    negatives = _run("02_negatives", overrides)
    generators = {
        "mol2cap": negatives.params.negatives_mol2cap_model,
        "cap2mol": negatives.params.negatives_cap2mol_model,
    }
    for task in TASKS:
        make_negatives(negatives, task, generators[task])
    make_pairs(negatives)
    made: list[System] = []
    for notebook in ("01_data", "03_sft", "04_alignment", "05_merging", "06_ablation"):
        wanted = [name for name in names if _notebook(name) == notebook]
        if not wanted:
            continue
        run = _run(notebook, overrides, None if notebook == "01_data" else wanted)
        systems = [s for s in run.systems if s.name.split("@")[0] in wanted]
        for system in systems:
            if system.init == "baseline":
                make_baseline(run, system)
            else:
                make_system(run, system)
        made += systems
    run = _run("07_nli_evaluation", overrides)
    score_systems(run, made)
    return run


def scores(name: str) -> pd.DataFrame:
    """Every score of a variant, none where it was not made: variant, system, task, metric, value, n, low, high."""
    overrides, names = VARIANTS[name]
    if not (run_folder(PROFILE, overrides) / "scores").is_dir():
        return pd.DataFrame()
    run = _run("07_nli_evaluation", overrides)
    return all_scores(run, [one for one in run.table if one.name.split("@seed")[0] in names]).assign(variant=name)


def uncut() -> pd.DataFrame:
    """The released code's SFT again, which does not stop: its outputs as they are, and cut at their first line break.

    RDKit reads a SMILES up to the first white space, so that fingerprints and validity are of the first line in both,
    BLEU and Levenshtein in the second only. The released cleaning takes line breaks out, and so joins the lines.
    """
    if scores("released").empty:
        return pd.DataFrame()
    run, found = _run("07_nli_evaluation", VARIANTS["released"][0]), [pd.DataFrame()]
    for task in TASKS:
        if not (path := prediction_path(run, "sft", task)).exists():
            continue
        frame = read_rows(path, PREDICTION_COLUMNS)
        raw = frame["raw"].astype(str)
        answers = {"released-uncleaned": raw, "released-first-line": raw.str.strip().str.split("\n").str[0]}
        for variant, texts in answers.items():
            found.append(_scored(run, "sft", task, frame.assign(prediction=texts)).assign(variant=variant))
    return pd.concat(found)


def _scored(run: Run, system: str, task: Task, frame: pd.DataFrame) -> pd.DataFrame:
    """The scores of some answers, as :func:`scores` has them."""
    scorer = Scorer(from_root(run.params.caption_tokenizer), run.params.invalid)
    found = intervals(scorer.score(frame.reset_index(drop=True), task)).items()
    lines = [(system, task, metric, one.value, one.n, one.low, one.high) for metric, one in found]
    return pd.DataFrame(lines, columns=list(SCORE_COLUMNS))


def save() -> None:
    """Write ``figures/study/variants.csv``, and ``variants_training.csv``: which models they are of, what they cost.

    Rows of variants that were not made here stay as they are there. ``variants_records.jsonl`` has the provenance
    records of those that were, hashes of adapters and predictions among them.
    """
    made = {name: records(run_folder(PROFILE, overrides)) for name, (overrides, _) in VARIANTS.items()}
    lines = [{"variant": name, **record} for name, found in made.items() for record in found.values()]
    write_text(FOLDER / "variants_records.jsonl", "".join(f"{json.dumps(line, sort_keys=True)}\n" for line in lines))
    costs = [adapter_costs(run_folder(PROFILE, VARIANTS[name][0])).assign(variant=name) for name in VARIANTS]
    _replace("variants", [*(scores(name) for name in VARIANTS), uncut()])
    _replace("variants_training", [backbone_costs().assign(variant="all"), *costs])


def _replace(name: str, tables: Sequence[pd.DataFrame]) -> None:
    found, path = [table for table in tables if not table.empty], FOLDER / f"{name}.csv"
    made = {str(variant) for table in found for variant in table["variant"]}
    if path.exists():
        kept = pd.read_csv(path)
        found.append(kept[~kept["variant"].isin(made)])
    if found:
        save_table(name, pd.concat(found))


def rates() -> pd.DataFrame:
    """Scores by peak learning rate: ``figures/study/rates.csv``."""
    data, found = _run("01_data", {}), []
    known, frame = knowledge(corpus_source(data)), make_corpus(data)
    tested = [
        draw(name, frame, data.params.test_rows, data.params.seed, known=known)[0]
        for name in ("validation", "withheld_combos")  # the molecules of extra_valid are validation's
    ]
    for rate, names in RATES.items():
        run = make({**TRIED, "learning_rate": rate}, names)
        for name, task in product(names, TASKS):
            answers = read_rows(prediction_path(run, name, task), PREDICTION_COLUMNS)
            answers = answers[~answers["id"].isin(pd.concat(tested)["id"])]
            found.append(_scored(run, name, task, answers).assign(learning_rate=rate))
    table = pd.concat(found)
    save_table("rates", table)
    return table


def _notebook(name: str) -> str:
    return next(system.notebook for system in load_systems() if system.name == name)


def _run(notebook: str, overrides: Mapping[str, Any], systems: Sequence[str] | None = None) -> Run:
    cell = {"profile": PROFILE, "systems": list(systems) if systems else None, "overrides": dict(overrides)}
    return start(notebook, cell)


def _take(base: Path, folder: Path, name: str) -> None:
    """Link a file or folder of the main run, with its record, under the same name (none is ever written into)."""
    for path in (base / name).parent.glob(f"{(base / name).name}*"):
        for source in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
            target = folder / source.relative_to(base)
            if source.name.endswith(".lock") or target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)


def main(names: Sequence[str] = ()) -> None:
    for name in names or VARIANTS:
        make(*VARIANTS[name])


if __name__ == "__main__":
    parts = {"rates": rates, "save": save}
    if sys.argv[1:2] and sys.argv[1] in parts:
        parts[sys.argv[1]]()
    else:
        main(sys.argv[1:])
