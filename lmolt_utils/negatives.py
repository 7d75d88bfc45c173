"""Rejected answers: what the translators write for the sampled molecules and captions (L4M §4.1).

The papers ask MolT5, fine-tuned on all of L+M-24, for its own training molecules and call the answers
dispreferred, unfiltered.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from transformers import PreTrainedTokenizerBase

from lmolt_utils.generation import generate
from lmolt_utils.postprocess import clean
from lmolt_utils.prompts import Task


def translate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    title: str,
) -> list[str]:
    """The translator's greedy answer to each source; MolT5 takes the bare source, no instruction."""
    raw = generate(model, tokenizer, sources, max_new_tokens=max_new_tokens, batch_size=batch_size, title=title)
    return [clean(text) for text in raw]


def preference_pairs(sampled: pd.DataFrame, rejected: Mapping[Task, Sequence[str]]) -> pd.DataFrame:
    """Triples of both directions: id, task, source, chosen (the reference), rejected (the translator's answer)."""
    columns: dict[Task, tuple[str, str]] = {
        "mol2cap": ("molecule", "caption"),
        "cap2mol": ("caption", "molecule"),
    }
    frames = [
        pd.DataFrame(
            {
                "id": sampled["id"],
                "task": task,
                "source": sampled[columns[task][0]],
                "chosen": sampled[columns[task][1]],
                "rejected": list(answers),
            }
        )
        for task, answers in rejected.items()
    ]
    return pd.concat(frames, ignore_index=True)


def usable(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs with an answer to reject: equal or empty ones carry no preference."""
    return pairs[(pairs["rejected"] != pairs["chosen"]) & (pairs["rejected"] != "")].reset_index(drop=True)


def audit(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """What surface features alone give away, per task.

    ``equal`` and ``empty`` are rows, ``distinct`` the share of different rejected texts, ``length_ratio`` mean rejected
    over mean chosen length in characters, ``separable`` the cross-validated accuracy of a linear classifier on
    character pairs (0.5: cannot be told apart).
    """
    rows = []
    for task, group in pairs.groupby("task", sort=False):
        real = group[(group["rejected"] != group["chosen"]) & (group["rejected"] != "")]
        rows.append(
            {
                "task": task,
                "pairs": len(group),
                "equal": int((group["rejected"] == group["chosen"]).sum()),
                "empty": int((group["rejected"] == "").sum()),
                "distinct": group["rejected"].nunique() / len(group),
                "length_ratio": group["rejected"].str.len().mean() / group["chosen"].str.len().mean(),
                "separable": _separable(real, seed),
            }
        )
    return pd.DataFrame(rows).set_index("task")


def _separable(pairs: pd.DataFrame, seed: int) -> float:
    if len(pairs) < 10:
        return float("nan")
    texts = [*pairs["chosen"], *pairs["rejected"]]
    labels = [1] * len(pairs) + [0] * len(pairs)
    classifier = make_pipeline(
        CountVectorizer(analyzer="char", ngram_range=(1, 2), lowercase=False),
        MaxAbsScaler(),
        LogisticRegression(max_iter=1000, random_state=seed),
    )
    guesses = cross_val_predict(classifier, texts, labels, cv=5)
    return float((guesses == labels).mean())
