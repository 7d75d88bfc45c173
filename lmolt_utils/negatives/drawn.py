"""Rejected answers without a model: references of other rows, edited captions, nearest neighbours.

What gives a negative generator's answers away (their length, their alphabet, a few favourite answers) is not in such
pairs. All come from the training split, so that no test molecule is ever rejected.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Literal, get_args

import numpy as np
import pandas as pd
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from lmolt_utils.config.prompts import Task
from lmolt_utils.data.captioner import Compose
from lmolt_utils.data.molecules import parse
from lmolt_utils.embedded.captions import caption_for

#: ``translator`` asks the negative generator, as the papers do (:mod:`lmolt_utils.negatives.pairs`); the others are
#: drawn here.
Kind = Literal["translator", "shuffled", "random", "property_edited", "nearest"]
#: Source and answer column of each task.
SIDES: dict[Task, tuple[str, str]] = {"mol2cap": ("molecule", "caption"), "cap2mol": ("caption", "molecule")}
_TRIES = 200
_NONE = ("", "")
#: What stands before a property tells its kind in L+M-24's sentences: "is a X", "is X", "impacts X".
_BEFORE = {
    **dict.fromkeys(("a", "an", "the"), "role"),
    "is": "quality",
    **dict.fromkeys(("impacts", "impacting", "on", "both", "affects", "influences"), "effect"),
}


def draw(
    kind: Kind, sampled: pd.DataFrame, corpus: pd.DataFrame, task: Task, seed: int, compose: Compose = caption_for
) -> pd.DataFrame:
    """A rejected answer for each row of ``sampled``: columns id, rejected, origin.

    ``origin`` is the id of the row that an answer was taken from, or the edit (``fruity -> waxy``). Where there is
    none to be had, both are empty. Neither the row's own answer nor one of the same source is ever given.

    - ``shuffled``: the sample's references, permuted;
    - ``random``: references of the corpus;
    - ``property_edited``: mol2cap: the caption with one property replaced by another of its kind, or written anew by
      ``compose`` where it does not spell the property out; cap2mol: a molecule whose property set differs by the fewest
      properties, but differs;
    - ``nearest``: the reference of the most similar molecule (Tanimoto, Morgan radius 2) with another property set:
      with the same set it would be a right answer.

    Deterministic in its arguments; raises ``ValueError`` for a kind that is not drawn.
    """
    pool = corpus[corpus["split"] == "train"].reset_index(drop=True)
    if kind == "shuffled":
        found = _shuffled(sampled, task, seed)
    elif kind == "random":
        found = _random(sampled, pool, task, seed)
    elif kind == "property_edited" and task == "mol2cap":
        found = _edited_captions(sampled, pool, seed, compose)
    elif kind == "property_edited":
        found = _edited_molecules(sampled, pool, seed)
    elif kind == "nearest":
        found = _nearest(sampled, pool, task)
    else:
        raise ValueError(f"negatives of kind {kind!r} are not drawn; {', '.join(get_args(Kind)[1:])} are")
    return pd.DataFrame({"id": sampled["id"], "rejected": [f[0] for f in found], "origin": [f[1] for f in found]})


def same_properties(drawn: pd.DataFrame, sampled: pd.DataFrame, corpus: pd.DataFrame) -> int:
    """How many rejected answers come from a row with the same property set: right answers all the same."""
    sets = dict(zip(corpus["id"], _sets(corpus), strict=True))
    own = _sets(sampled)
    return sum(bool(mine) and sets.get(origin) == mine for mine, origin in zip(own, drawn["origin"], strict=True))


def _sets(frame: pd.DataFrame) -> list[frozenset[str]]:
    """Each row's property set; empty where the data has none."""
    return [frozenset(filter(None, text.split("|"))) for text in frame["properties"]]


def _rows(frame: pd.DataFrame, task: Task) -> list[tuple[str, str, str]]:
    """Source, answer and id of each row."""
    source, answer = SIDES[task]
    return list(zip(frame[source], frame[answer], frame["id"], strict=True))


def _shuffled(sampled: pd.DataFrame, task: Task, seed: int) -> list[tuple[str, str]]:
    rows = _rows(sampled, task)
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


def _another(
    rng: random.Random, candidates: Sequence[int], pool: list[tuple[str, str, str]], own_source: str, own_answer: str
) -> tuple[str, str]:
    """Answer and id of one of the ``candidates`` (rows of ``pool``) with another source and another answer."""
    for _ in range(_TRIES if candidates else 0):
        source, answer, name = pool[candidates[rng.randrange(len(candidates))]]
        if source != own_source and answer != own_answer:
            return answer, name
    return _NONE


def _random(sampled: pd.DataFrame, pool: pd.DataFrame, task: Task, seed: int) -> list[tuple[str, str]]:
    rows = _rows(pool, task)
    return [
        _another(random.Random(f"random:{seed}:{task}:{name}"), range(len(rows)), rows, source, answer)
        for source, answer, name in _rows(sampled, task)
    ]


def property_kinds(frame: pd.DataFrame) -> dict[str, str]:
    """Each property's kind, ``role``, ``effect`` or ``quality``, by the word that most often introduces it."""
    votes: dict[str, Counter[str]] = {}
    for caption, names in zip(frame["caption"].str.lower(), _sets(frame), strict=True):
        for name in names:
            seen = votes.setdefault(name, Counter())
            at = caption.find(f" {name.lower()}")
            if at > 0 and (kind := _BEFORE.get(caption[:at].rsplit(None, 1)[-1])):
                seen[kind] += 1
    return {name: max(sorted(seen), key=lambda kind: seen[kind], default="role") for name, seen in votes.items()}


def _edited_captions(sampled: pd.DataFrame, pool: pd.DataFrame, seed: int, compose: Compose) -> list[tuple[str, str]]:
    """Another property comes in as often as captions state it, so that rare words give nothing away."""
    kinds = property_kinds(pd.concat([pool, sampled], ignore_index=True))
    counts = Counter(name for names in _sets(pool) for name in names)
    choices: dict[str, tuple[list[str], list[int]]] = {}
    for kind in set(kinds.values()):
        names = sorted(name for name in counts if kinds[name] == kind)
        choices[kind] = names, [counts[name] for name in names]

    def edited(caption: str, own: frozenset[str], rng: random.Random) -> tuple[str, str]:
        present = {name.lower() for name in own}
        old_names = sorted(own)
        rng.shuffle(old_names)
        stated = _stated(caption, own)
        # A property that the caption spells out can be replaced in place; failing that, the caption is written anew.
        for old in sorted(old_names, key=lambda name: name.lower() not in stated):
            names, weights = choices[kinds[old]]
            drawn = (rng.choices(names, weights)[0] for _ in range(_TRIES if names else 0))
            new = next((name for name in drawn if name.lower() not in present), None)
            if new is None:
                continue
            if old.lower() not in stated:
                text = compose("", sorted(own - {old} | {new}), rng.getrandbits(32), 0)
            else:
                text = caption
                for start, end in reversed(stated[old.lower()]):
                    text = text[:start] + (new if text[start:end] == old else new.lower()) + text[end:]
            if text != caption:
                return text, f"{old} -> {new}"
        return _NONE

    return [
        edited(caption, own, random.Random(f"property_edited:{seed}:{name}"))
        for name, caption, own in zip(sampled["id"], sampled["caption"], _sets(sampled), strict=True)
    ]


def _stated(caption: str, names: frozenset[str]) -> dict[str, list[tuple[int, int]]]:
    """Where ``caption`` spells out each of ``names`` (lower case), the longest name first."""
    longest_first = sorted(map(re.escape, names), key=lambda name: (-len(name), name))
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(longest_first)})(?![\w-])", re.IGNORECASE)
    found: dict[str, list[tuple[int, int]]] = {}
    for match in pattern.finditer(caption) if names else ():
        found.setdefault(match.group().lower(), []).append(match.span())
    return found


def _edited_molecules(sampled: pd.DataFrame, pool: pd.DataFrame, seed: int) -> list[tuple[str, str]]:
    rows_of: dict[frozenset[str], list[int]] = {}
    for row, names in enumerate(_sets(pool)):
        if names:
            rows_of.setdefault(names, []).append(row)

    @cache
    def closest(own: frozenset[str]) -> list[int]:
        """Rows whose property set differs from ``own`` by the fewest properties, but differs."""
        apart = {names: len(own ^ names) for names in rows_of if names != own}
        fewest = min(apart.values(), default=0)
        return [row for names, count in apart.items() if count == fewest for row in rows_of[names]] if own else []

    rows = _rows(pool, "cap2mol")
    return [
        _another(random.Random(f"property_edited:{seed}:{name}"), closest(own), rows, source, answer)
        for (source, answer, name), own in zip(_rows(sampled, "cap2mol"), _sets(sampled), strict=True)
    ]


def _nearest(sampled: pd.DataFrame, pool: pd.DataFrame, task: Task) -> list[tuple[str, str]]:
    answer = SIDES[task][1]
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    rows, prints, spellings = [], [], []
    for row, text in enumerate(pool["molecule"]):
        mol = parse(text)
        if mol is not None:
            rows.append(row)
            prints.append(morgan.GetFingerprint(mol))
            spellings.append(Chem.MolToSmiles(mol))
    canonical = np.array(spellings, dtype=object)
    pool_sets = _sets(pool)
    codes = {names: code for code, names in enumerate(dict.fromkeys(pool_sets))}
    set_of = np.array([codes[pool_sets[row]] for row in rows])
    answers = np.array([pool[answer].iloc[row] for row in rows], dtype=object)
    found = []
    for smiles, own_answer, own in zip(sampled["molecule"], sampled[answer], _sets(sampled), strict=True):
        mol = parse(smiles)
        if mol is None or not rows:
            found.append(_NONE)
            continue
        likeness = np.array(DataStructs.BulkTanimotoSimilarity(morgan.GetFingerprint(mol), prints))
        likeness[(canonical == Chem.MolToSmiles(mol)) | (answers == own_answer)] = -1
        if own:
            likeness[set_of == codes.get(own, -1)] = -1
        at = int(likeness.argmax())
        found.append(_NONE if likeness[at] < 0 else (answers[at], pool["id"].iloc[rows[at]]))
    return found
