"""How good the study's models are before any alignment: ``python -m tools.study.models``.

Every model on both tasks (the negative generators on their own), on validation molecules that no training saw, beside
the trivial baselines on the same rows from the 10 % sample and from all training molecules. Writes
``figures/study/models.csv``, and ``figures/study/training.csv`` with what each training cost. ``... curve``: the models
of the learning curve and the full ones, on their own task: ``figures/study/curve.csv``.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from safetensors import safe_open

from lmolt_utils.config.params import load
from lmolt_utils.config.prompts import TASKS, prompt
from lmolt_utils.config.systems import load_systems
from lmolt_utils.data.baselines import ANSWERS, Sample
from lmolt_utils.data.captioner import kept_tree, reader
from lmolt_utils.data.sample import held_out, sample
from lmolt_utils.files import read_json, read_rows
from lmolt_utils.models.generation import generate
from lmolt_utils.models.loading import Kind, load_model, load_tokenizer
from lmolt_utils.models.postprocess import clean
from lmolt_utils.paths import root, run_folder
from lmolt_utils.training.progress import timing_path
from tools.study import save_table
from tools.study.backbones import CURVE, FOLDER, SCHEDULES, SEED, corpus
from tools.study.baselines import Measure

COLUMNS = ("system", "task", "metric", "value", "low", "high", "n")


def main(rows: int = 500) -> None:
    """``models.csv`` and ``training.csv``, of so many validation molecules."""
    save_table("models", scored(tuple(SCHEDULES), rows))
    costs()


def curve() -> None:
    """``curve.csv``: what models of fewer molecules or epochs know, with as many steps as one epoch of all has."""
    save_table("curve", scored((*CURVE, *TASKS), own_task=True))


def scored(names: Sequence[str], rows: int = 1000, *, own_task: bool = False) -> pd.DataFrame:
    """Scores of the baselines and of those models of ``names`` that there are (:data:`COLUMNS`)."""
    params, frame, folder = load("study"), corpus(), root() / FOLDER
    tested = held_out(frame, "validation", rows, SEED)
    measure = Measure(reader(kept_tree(run_folder("study", {}) / "data")))
    found = []
    for share in (params.sample_share, 1.0):
        known = Sample(sample(frame, share, params.seed))
        for name, answer in ANSWERS.items():
            if share == 1.0 and name != "nearest-neighbour":
                continue
            for task in TASKS:
                answers = answer(known, task, tested["molecule" if task == "mol2cap" else "caption"].tolist())
                found.append(measure(task, tested, answers).assign(system=f"{name}, {share:.0%}", task=task))
    for name in names:
        if name == "nli" or not (folder / name / "record.json").exists():
            continue
        kind: Kind = "translator" if name.startswith("negatives") else "causal"
        model, tokenizer = load_model(str(folder / name), kind), load_tokenizer(str(folder / name))
        for task in TASKS:
            if (kind == "translator" or own_task) and task not in name:
                continue
            sources = tested["molecule" if task == "mol2cap" else "caption"].tolist()
            asked = sources if kind == "translator" else [prompt(task, text, params.test_prompt) for text in sources]
            limits = {"max_new_tokens": params.max_new_tokens, "batch_size": params.generation_batch}
            answers = [clean(text) for text in generate(model, tokenizer, asked, title=f"{name} {task}", **limits)]
            found.append(measure(task, tested, answers).assign(system=name, task=task))
    return pd.concat(found)[list(COLUMNS)]


def costs() -> None:
    """What each training cost, of the backbones and of the adapters that there are: ``figures/study/training.csv``."""
    save_table("training", pd.concat([backbone_costs(), adapter_costs(run_folder("study", {}))]))


def backbone_costs() -> pd.DataFrame:
    """The records of the models that were trained from nothing."""
    folder = root() / FOLDER
    made = [name for name in (*SCHEDULES, *CURVE) if (folder / name / "record.json").exists()]
    table = pd.DataFrame([{"model": name} | read_json(folder / name / "record.json") for name in made])
    return table.drop(columns="schedule", errors="ignore")


def adapter_costs(run: Path) -> pd.DataFrame:
    """The adapters of a run: trained parameters, tokens, seconds and peak memory; without the pause after a kill."""
    found = []
    copies = [path.name.removesuffix(".record.json") for path in sorted((run / "models").glob("*@seed*.record.json"))]
    for name in [*(system.name for system in load_systems()), *copies]:
        path, log = run / "models" / f"{name}.record.json", run / "logs" / f"{name}.training.jsonl"
        if not path.exists() or not (log := timing_path(log)).exists():  # the latter where it is another run's
            continue
        last = read_rows(log, ("seconds", "tokens")).iloc[-1]
        with safe_open(run / "models" / name / "adapter_model.safetensors", "np") as weights:
            parameters = sum(math.prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
        cost = {"seconds": last["seconds"], "tokens": last["tokens"], "tokens_per_s": last["tokens"] / last["seconds"]}
        found.append({"model": name, "parameters": parameters, **cost, "peak_mb": read_json(path)["peak_mb"]})
    return pd.DataFrame(found)


if __name__ == "__main__":
    curve() if sys.argv[1:] == ["curve"] else main(*map(int, sys.argv[1:]))
