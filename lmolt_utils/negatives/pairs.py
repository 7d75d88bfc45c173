"""From the sample to preference pairs: rejected answers are made or drawn, and what carries a preference is kept."""

from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.data.captioner import kept_captioner
from lmolt_utils.data.manifest import property_note
from lmolt_utils.data.sample import CORPUS_COLUMNS, PAIR_COLUMNS, SAMPLE_COLUMNS, for_task
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import read_json, read_rows, write_json, write_rows
from lmolt_utils.models.loading import model_identity
from lmolt_utils.negatives.drawn import draw, same_properties
from lmolt_utils.negatives.generated import SIDES, preference_pairs, translate, triple_counts, usable
from lmolt_utils.run.notebook import Run


class NegativesError(CompanionError):
    """Rejected answers of which none can be trained on."""


def make_negatives(run: Run, task: Task, translator: str) -> None:
    """The rejected answers for the sample, one file per task: columns id, rejected (and origin where drawn).

    ``run.params.negatives`` says which: ``translator`` asks the model ``translator``, in shards of
    ``run.params.negatives_shard_rows`` rows, so that a killed run goes on where it was; the others
    (:data:`lmolt_utils.negatives.drawn.KINDS`) are drawn from the corpus.
    """
    if run.params.negatives == "translator":
        _translated(run, task, translator)
    else:
        _drawn(run, task)


def _translated(run: Run, task: Task, translator: str) -> None:
    sampled, output = run.path("data", "sample.jsonl"), run.path("data", f"negatives.{task}.jsonl")
    limits: dict[str, Any] = {"max_new_tokens": run.params.max_new_tokens, "batch_size": run.params.generation_batch}
    machine: dict[str, Any] = {"device": run.params.device, "dtype": run.params.dtype}

    def make(work: Path) -> None:
        rows = for_task(read_rows(sampled, SAMPLE_COLUMNS), task)
        sources = list(rows[SIDES[task][0]])
        answers = translate(
            translator, sources, work, run.params.negatives_shard_rows, title=f"negatives {task}", **limits, **machine
        )
        write_rows(output, pd.DataFrame({"id": rows["id"], "rejected": answers}))

    run.step(
        f"negatives {task}",
        make,
        outputs=[output],
        params={"negatives": "translator", **limits, **machine},
        inputs={"sample": sampled, "translator": model_identity(translator)},
    )


def _drawn(run: Run, task: Task) -> None:
    sampled, output = run.path("data", "sample.jsonl"), run.path("data", f"negatives.{task}.jsonl")
    corpus = run.path("data", "corpus.jsonl")

    def make(_: Path) -> None:
        rows, everything = for_task(read_rows(sampled, SAMPLE_COLUMNS), task), read_rows(corpus, CORPUS_COLUMNS)
        drawn = draw(run.params.negatives, rows, everything, task, run.params.seed, kept_captioner(run.path("data")))
        write_rows(output, drawn)
        print(
            f"{run.params.negatives} {task}: {len(drawn)} rows, {(drawn['rejected'] == '').sum()} of them without an "
            f"answer; "
            f"{same_properties(drawn, rows, everything)} answers come from a row with the same property set. "
            + property_note(run.path("data"))
        )

    run.step(
        f"negatives {task}",
        make,
        outputs=[output],
        params={"negatives": run.params.negatives, "seed": run.params.seed},
        inputs={"sample": sampled, "corpus": corpus, "manifest": run.path("data", "corpus.manifest.json")},
    )


def make_pairs(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The preference pairs of both directions, and their counts
    (:func:`lmolt_utils.negatives.generated.triple_counts`).

    Files: ``data/pairs.jsonl``, ``data/pairs.counts.json``.
    """
    sampled, output = run.path("data", "sample.jsonl"), run.path("data", "pairs.jsonl")
    counts = run.path("data", "pairs.counts.json")
    answers = {task: run.path("data", f"negatives.{task}.jsonl") for task in TASKS}

    def make(_: Path) -> None:
        rejected = {task: list(read_rows(path, ("rejected",))["rejected"]) for task, path in answers.items()}
        pairs = preference_pairs(read_rows(sampled, SAMPLE_COLUMNS), rejected)
        kept = usable(pairs, drop_equal=run.params.drop_equal)
        if kept.empty:
            raise NegativesError(
                f"none of {len(pairs)} rejected answers can be used: each is empty or equals its reference; "
                "is negatives_..._model a translator for this task?"
            )
        write_rows(output, kept[list(PAIR_COLUMNS)])
        write_json(counts, triple_counts(pairs, kept).to_dict(orient="index"))

    run.step(
        "pairs",
        make,
        outputs=[output, counts],
        params={"drop_equal": run.params.drop_equal},
        inputs={"sample": sampled, **{str(task): path for task, path in answers.items()}},
    )
    table = pd.DataFrame.from_dict(read_json(counts), orient="index").rename_axis("task")
    return read_rows(output, PAIR_COLUMNS), table.loc[
        [*TASKS, "both"], ["molecules", "triples", "equal", "empty", "kept"]
    ]
