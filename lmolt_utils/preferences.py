"""From the sample to preference pairs: the translators answer, and what carries a preference is kept."""

from typing import Any

import pandas as pd

from lmolt_utils.data import CORPUS_COLUMNS, PAIR_COLUMNS
from lmolt_utils.files import read_rows, write_rows
from lmolt_utils.models import fingerprintable, load_model, load_tokenizer
from lmolt_utils.negatives import preference_pairs, translate, usable
from lmolt_utils.prompts import TASKS, Task


def make_negatives(run: Any, task: Task, translator: str) -> None:
    """The translator's answers for the sample, one file per task: columns id, rejected."""
    sampled, output = run.path("data", "sample.jsonl"), run.path("data", f"negatives.{task}.jsonl")
    limits = {"max_new_tokens": run.max_new_tokens, "batch_size": run.generation_batch}

    def make() -> None:
        rows = read_rows(sampled, CORPUS_COLUMNS)
        model = load_model(translator, "translator", device=run.device, dtype=run.dtype)
        source = rows["molecule" if task == "mol2cap" else "caption"]
        answers = translate(model, load_tokenizer(translator), list(source), title=f"negatives {task}", **limits)
        write_rows(output, pd.DataFrame({"id": rows["id"], "rejected": answers}))

    run.step(
        f"negatives {task}",
        make,
        outputs=[output],
        params={**limits, "device": run.device, "dtype": run.dtype},
        inputs={"sample": sampled, "translator": fingerprintable(translator)},
        modules=["lmolt_utils.negatives"],
    )


def make_pairs(run: Any) -> tuple[pd.DataFrame, int]:
    """The preference pairs of both directions, and how many were left out as equal or empty."""
    sampled, output = run.path("data", "sample.jsonl"), run.path("data", "pairs.jsonl")
    answers = {task: run.path("data", f"negatives.{task}.jsonl") for task in TASKS}

    def all_pairs() -> pd.DataFrame:
        rejected = {task: list(read_rows(path, ("rejected",))["rejected"]) for task, path in answers.items()}
        return preference_pairs(read_rows(sampled, CORPUS_COLUMNS), rejected)

    run.step(
        "pairs",
        lambda: write_rows(output, usable(all_pairs())[list(PAIR_COLUMNS)]),
        outputs=[output],
        params={},
        inputs={"sample": sampled, **{str(task): path for task, path in answers.items()}},
        modules=["lmolt_utils.negatives"],
    )
    kept = read_rows(output, PAIR_COLUMNS)
    return kept, len(all_pairs()) - len(kept)
