"""From the sample to preference pairs: rejected answers are made or drawn, and what carries a preference is kept."""

from typing import Any

import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.data.captioner import kept_captioner
from lmolt_utils.data.manifest import property_note
from lmolt_utils.data.sample import CORPUS_COLUMNS, PAIR_COLUMNS, SAMPLE_COLUMNS, for_task
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import fingerprint, read_json, read_rows, write_json, write_rows
from lmolt_utils.models.loading import fingerprintable
from lmolt_utils.negatives.drawn import draw, same_properties
from lmolt_utils.negatives.generated import SIDES, preference_pairs, translate, triple_counts, usable
from lmolt_utils.run.shards import Shards
from lmolt_utils.run.steps import code_hash


class NegativesError(CompanionError):
    """Rejected answers of which none can be trained on."""


def make_negatives(run: Any, task: Task, translator: str) -> None:
    """The rejected answers for the sample, one file per task: columns id, rejected (and origin where drawn).

    ``run.negatives`` says which: ``translator`` asks the model ``translator``, in shards of
    ``run.negatives_shard_rows`` rows, so that a killed run goes on where it was; the others
    (:data:`lmolt_utils.negatives.drawn.KINDS`) are drawn from the corpus.
    """
    if run.negatives == "translator":
        _translated(run, task, translator)
    else:
        _drawn(run, task)


def _translated(run: Any, task: Task, translator: str) -> None:
    sampled, output = run.path("data", "sample.jsonl"), run.path("data", f"negatives.{task}.jsonl")
    limits = {"max_new_tokens": run.max_new_tokens, "batch_size": run.generation_batch}
    machine = {"device": run.device, "dtype": run.dtype}
    modules = ["lmolt_utils.negatives.generated"]

    def make() -> None:
        model = fingerprintable(translator)
        key = {
            **limits,
            **machine,
            "sample": fingerprint(sampled),
            "translator": model if isinstance(model, str) else fingerprint(model),
            "code": code_hash(modules),
        }
        shards = Shards(run.path("data", f"negatives.{task}.shards"), run.negatives_shard_rows, key)
        rows = for_task(read_rows(sampled, SAMPLE_COLUMNS), task)
        sources = list(rows[SIDES[task][0]])
        answers = translate(translator, sources, shards, title=f"negatives {task}", **limits, **machine)
        write_rows(output, pd.DataFrame({"id": rows["id"], "rejected": answers}))
        shards.remove()

    run.step(
        f"negatives {task}",
        make,
        outputs=[output],
        params={"negatives": "translator", **limits, **machine},
        inputs={"sample": sampled, "translator": fingerprintable(translator)},
        modules=modules,
    )


def _drawn(run: Any, task: Task) -> None:
    sampled, output = run.path("data", "sample.jsonl"), run.path("data", f"negatives.{task}.jsonl")
    corpus = run.path("data", "corpus.jsonl")

    def make() -> None:
        rows, everything = for_task(read_rows(sampled, SAMPLE_COLUMNS), task), read_rows(corpus, CORPUS_COLUMNS)
        drawn = draw(run.negatives, rows, everything, task, run.seed, kept_captioner(run.path("data")))
        write_rows(output, drawn)
        print(
            f"{run.negatives} {task}: {len(drawn)} rows, {(drawn['rejected'] == '').sum()} of them without an answer; "
            f"{same_properties(drawn, rows, everything)} answers come from a row with the same property set. "
            + property_note(run.path("data"))
        )

    run.step(
        f"negatives {task}",
        make,
        outputs=[output],
        params={"negatives": run.negatives, "seed": run.seed},
        inputs={"sample": sampled, "corpus": corpus, "manifest": run.path("data", "corpus.manifest.json")},
        modules=["lmolt_utils.negatives.drawn", "lmolt_utils.data.captioner"],
    )


def make_pairs(run: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The preference pairs of both directions, and their counts
    (:func:`lmolt_utils.negatives.generated.triple_counts`).

    Files: ``data/pairs.jsonl``, ``data/pairs.counts.json``.
    """
    sampled, output = run.path("data", "sample.jsonl"), run.path("data", "pairs.jsonl")
    counts = run.path("data", "pairs.counts.json")
    answers = {task: run.path("data", f"negatives.{task}.jsonl") for task in TASKS}

    def make() -> None:
        rejected = {task: list(read_rows(path, ("rejected",))["rejected"]) for task, path in answers.items()}
        pairs = preference_pairs(read_rows(sampled, SAMPLE_COLUMNS), rejected)
        kept = usable(pairs, drop_equal=run.drop_equal)
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
        params={"drop_equal": run.drop_equal},
        inputs={"sample": sampled, **{str(task): path for task, path in answers.items()}},
        modules=["lmolt_utils.negatives.generated"],
    )
    table = pd.DataFrame.from_dict(read_json(counts), orient="index").rename_axis("task")
    return read_rows(output, PAIR_COLUMNS), table.loc[
        [*TASKS, "both"], ["molecules", "triples", "equal", "empty", "kept"]
    ]
