"""Notebook 02: rejected answers are generated or drawn, and make preference pairs with the references (L4M §4.1).

The papers ask MolT5, fine-tuned on all of L+M-24, for its own training molecules and call the answers dispreferred,
unfiltered (audit D24). Drawn answers are references of other rows; no length, alphabet or favourite answer gives those
away.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rdkit.DataStructs import BulkTanimotoSimilarity

from lmolt_utils.config.prompts import SIDES, TASKS, Task
from lmolt_utils.data.molecules import molecules
from lmolt_utils.data.sample import CORPUS_COLUMNS, PAIR_COLUMNS, SAMPLE_COLUMNS, for_task
from lmolt_utils.errors import DataError
from lmolt_utils.files import read_json, read_rows, write_json, write_rows
from lmolt_utils.models.generation import stream
from lmolt_utils.models.loading import load_model, load_tokenizer, model_identity
from lmolt_utils.models.postprocess import clean
from lmolt_utils.run.notebook import Run
from lmolt_utils.run.resume import answered

_TRIES = 200
_NONE = ("", "")
#: A longer source is not asked, its answer is empty: attention grows with its square. L+M-24's longest SMILES has 990.
LONGEST_SOURCE = 4096


# ---- rejected answers ----


def make_negatives(run: Run, task: Task, generator: str) -> None:
    """The rejected answers for the sample, one file per task: columns id, rejected (and origin where drawn).

    ``run.params.negatives`` says which: ``translator`` asks the model ``generator`` greedily, in shards, so that a
    killed run goes on where it was; MolT5 takes the bare source, no instruction. The others are drawn (:func:`draw`).
    """
    sampled, corpus = run.path("data", "sample.jsonl"), run.path("data", "corpus.jsonl")
    output, kind = run.path("data", f"negatives.{task}.jsonl"), run.params.negatives
    limits: dict[str, Any] = {"max_new_tokens": run.params.max_new_tokens, "batch_size": run.params.generation_batch}
    place: dict[str, Any] = {"device": run.params.device, "dtype": run.params.dtype}

    def ask(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
        model, tokenizer = load_model(generator, "translator", **place), load_tokenizer(generator)
        short = [text if len(text) <= LONGEST_SOURCE else "" for text in texts]
        for batch in stream(model, tokenizer, short, **limits):
            yield [(index, clean(text) if short[index] else "") for index, text in batch]

    def make(work: Path) -> None:
        rows = for_task(read_rows(sampled, SAMPLE_COLUMNS), task)
        if kind == "translator":
            sources, shard_rows = list(rows[SIDES[task][0]]), run.params.negatives_shard_rows
            answers = answered(sources, ask, work, shard_rows, f"negatives {task}")
            write_rows(output, pd.DataFrame({"id": rows["id"], "rejected": answers}))
            return
        everything = read_rows(corpus, CORPUS_COLUMNS)
        drawn = draw(kind, rows, everything, task, run.params.seed)
        write_rows(output, drawn)
        none, right = (drawn["rejected"] == "").sum(), same_properties(drawn, rows, everything)
        print(
            f"{kind} {task}: {len(drawn)} rows, {none} of them without an answer; {right} answers come from a row with "
            f"the same property set. {run.property_note}"
        )

    params: dict[str, Any] = {"negatives": kind, "seed": run.params.seed}
    inputs: dict[str, Path | str] = {"sample": sampled, "corpus": corpus}
    if kind == "translator":
        params = {"negatives": kind, **limits, **place}
        inputs = {"sample": sampled, "translator": model_identity(generator)}
    run.step(f"negatives {task}", make, outputs=[output], params=params, inputs=inputs)


def draw(
    kind: Literal["shuffled", "nearest"], sampled: pd.DataFrame, corpus: pd.DataFrame, task: Task, seed: int
) -> pd.DataFrame:
    """A rejected answer for each row of ``sampled``: columns id, rejected, origin (the training row it was taken from).

    ``shuffled``: the sample's references, permuted. ``nearest``: the reference of the most similar molecule (Tanimoto,
    Morgan radius 2) with another property set: with the same set it would be a right answer. Neither the row's own
    answer nor one of the same source is ever given; where there is no other, both columns are empty.
    """
    pool = corpus[corpus["split"] == "train"].reset_index(drop=True)
    found = _shuffled(sampled, task, seed) if kind == "shuffled" else _nearest(sampled, pool, task)
    return pd.DataFrame({"id": sampled["id"], "rejected": [f[0] for f in found], "origin": [f[1] for f in found]})


def same_properties(drawn: pd.DataFrame, sampled: pd.DataFrame, corpus: pd.DataFrame) -> int:
    """How many rejected answers come from a row with the same property set: right answers all the same."""
    sets = dict(zip(corpus["id"], _sets(corpus), strict=True))
    own = _sets(sampled)
    return sum(bool(mine) and sets.get(origin) == mine for mine, origin in zip(own, drawn["origin"], strict=True))


def _sets(frame: pd.DataFrame) -> list[frozenset[str]]:
    """Each row's property set; empty where the data has none."""
    return [frozenset(filter(None, text.split("|"))) for text in frame["properties"]]


def _shuffled(sampled: pd.DataFrame, task: Task, seed: int) -> list[tuple[str, str]]:
    source, answer = SIDES[task]
    rows = list(zip(sampled[source], sampled[answer], sampled["id"], strict=True))
    rng = random.Random(f"shuffled:{seed}:{task}")
    order = rng.sample(range(len(rows)), len(rows))

    def clash(row: int, other: int) -> bool:
        return rows[row][0] == rows[other][0] or rows[row][1] == rows[other][1]

    for row in range(len(rows)):
        for _ in range(_TRIES):
            if not clash(row, order[row]):
                break
            other = rng.randrange(len(rows))
            if not clash(row, order[other]) and not clash(other, order[row]):
                order[row], order[other] = order[other], order[row]
    return [_NONE if clash(row, other) else rows[other][1:] for row, other in enumerate(order)]


def _nearest(sampled: pd.DataFrame, pool: pd.DataFrame, task: Task) -> list[tuple[str, str]]:
    known, pool_sets = molecules(pool["molecule"]), _sets(pool)
    prints, canonical = [one.fingerprint for one in known], np.array([one.canonical for one in known], dtype=object)
    codes = {names: code for code, names in enumerate(dict.fromkeys(pool_sets))}
    set_of = np.array([codes[names] for names in pool_sets])
    sources, answers = (pool[side].to_numpy(dtype=object) for side in SIDES[task])
    asked = zip(*(sampled[side] for side in SIDES[task]), strict=True)
    found = []
    for mine, (source, answer), own in zip(molecules(sampled["molecule"]), asked, _sets(sampled), strict=True):
        likeness = np.array(BulkTanimotoSimilarity(mine.fingerprint, prints))
        likeness[(canonical == mine.canonical) | (sources == source) | (answers == answer)] = -1
        if own:
            likeness[set_of == codes.get(own, -1)] = -1
        at = int(likeness.argmax())
        found.append(_NONE if likeness[at] < 0 else (answers[at], pool["id"].iloc[at]))
    return found


# ---- pairs ----


def make_pairs(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The preference pairs of both tasks, and their counts (:func:`triple_counts`): ``data/pairs.*``."""
    sampled, output = run.path("data", "sample.jsonl"), run.path("data", "pairs.jsonl")
    counts = run.path("data", "pairs.counts.json")
    answers = {task: run.path("data", f"negatives.{task}.jsonl") for task in TASKS}

    def make(_: Path) -> None:
        rejected = {task: list(read_rows(path, ("rejected",))["rejected"]) for task, path in answers.items()}
        pairs = preference_pairs(read_rows(sampled, SAMPLE_COLUMNS), rejected)
        kept = usable(pairs, drop_equal=run.params.drop_equal)
        if kept.empty:
            raise DataError(
                f"none of {len(pairs)} rejected answers can be used: each is empty or equals its reference; "
                "does negatives_..._model name a model for this task?"
            )
        write_rows(output, kept[list(PAIR_COLUMNS)])
        write_json(counts, triple_counts(pairs, kept))

    inputs = {"sample": sampled, **{str(task): path for task, path in answers.items()}}
    run.step("pairs", make, outputs=[output, counts], params={"drop_equal": run.params.drop_equal}, inputs=inputs)
    table = pd.DataFrame.from_dict(read_json(counts), orient="index").rename_axis("task")
    columns = ["molecules", "triples", "equal", "empty", "kept"]  # files are sorted by name
    return read_rows(output, PAIR_COLUMNS), table.loc[[*TASKS, "both"], columns]


def preference_pairs(sampled: pd.DataFrame, rejected: Mapping[Task, Sequence[str]]) -> pd.DataFrame:
    """Triples of each task's rows (:func:`for_task`): id, task, source, chosen (the reference), rejected."""
    frames = []
    for task, answers in rejected.items():
        rows, (source, answer) = for_task(sampled, task), SIDES[task]
        sides = {"source": rows[source], "chosen": rows[answer], "rejected": list(answers)}
        frames.append(pd.DataFrame({"id": rows["id"], "task": task, **sides}))
    return pd.concat(frames, ignore_index=True)


def usable(pairs: pd.DataFrame, *, drop_equal: bool = True) -> pd.DataFrame:
    """Pairs with an answer to reject: not an empty one, which cannot be trained on, nor one that equals the reference:
    its gradient is zero (``drop_equal=False`` keeps it, as the released code does).
    """
    equal = (pairs["rejected"] == pairs["chosen"]) & drop_equal
    return pairs[(pairs["rejected"] != "") & ~equal].reset_index(drop=True)


def triple_counts(pairs: pd.DataFrame, kept: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Per task and in all (``both``): molecules, triples made, those equal or empty, triples kept.

    The papers' 12.7k are molecules; both tasks in one adapter make 25.4k triples of them (audit D3).
    """
    rows = {}
    for name in (*TASKS, "both"):
        made, left = (frame if name == "both" else frame[frame["task"] == name] for frame in (pairs, kept))
        rows[name] = {
            "molecules": made["id"].nunique(),
            "triples": len(made),
            "equal": int((made["rejected"] == made["chosen"]).sum()),
            "empty": int((made["rejected"] == "").sum()),
            "kept": len(left),
        }
    return rows
