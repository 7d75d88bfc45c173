"""What stands beside the scores: tests between systems, behaviour of the outputs, effects of single changes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from rdkit import Chem

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.published import REFERENCE, pairs_to_test
from lmolt_utils.config.systems import System, load_systems
from lmolt_utils.data.captioner import kept_tree
from lmolt_utils.data.molecules import parse
from lmolt_utils.files import read_json, read_rows, write_json
from lmolt_utils.grammar.rules import LIPID_RULES, ODORANT_RULES, PHARMACOPHORE_RULES, properties_of
from lmolt_utils.metrics.captions import CaptionTokenizer, caption_tokenizer
from lmolt_utils.metrics.distributions import (
    caption_curve,
    caption_wins,
    copied,
    molecule_curve,
    molecule_wins,
    right_modality,
    win_rate,
    wrong_modality_rate,
)
from lmolt_utils.metrics.intervals import COMPARISON_COLUMNS, compare_all, mean_of, percentiles, resampled, strict_json
from lmolt_utils.metrics.ngrams import chr_f
from lmolt_utils.metrics.properties import by_frequency, property_scores
from lmolt_utils.metrics.results import NOT_RUN, read_scores
from lmolt_utils.metrics.scoring import only_news, score_path
from lmolt_utils.models.predictions import prediction_path, rule_of, scored_answers
from lmolt_utils.paths import from_root
from lmolt_utils.run.notebook import Run

PERMUTATIONS = 9999
#: What 01 keeps of the corpus's properties besides the rows.
_TREE, _WITHHELD = "property_tree.json", "withheld_pairs.json"


# ---- significance ----


def significance(run: Run, systems: Sequence[System], task: Task) -> None:
    """Test the pairs of systems that the tables compare and that have scores: ``scores/significance.<task>.json``."""
    scored = [system for system in systems if score_path(run, system.name, task, "statistics.npz").exists()]
    pairs = pairs_to_test(scored, task, reference=REFERENCE)
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    output = run.path("scores", f"significance.{task}.json")

    def make(_: Path) -> None:
        read = {name: read_scores(run, name, task) for name in names}
        frame = compare_all(read, pairs, permutations=PERMUTATIONS).assign(task=task)
        write_json(output, {"permutations": PERMUTATIONS, "tests": strict_json(frame)})

    run.step(
        f"significance {task}",
        make,
        outputs=[output],
        params={"permutations": PERMUTATIONS, "pairs": [list(pair) for pair in pairs]},
        inputs={
            f"{name} {kind.split('.')[-1]}": score_path(run, name, task, kind)
            for name in sorted(names)
            for kind in ("samples.jsonl", "statistics.npz")
        },
    )


def all_significance(run: Run) -> pd.DataFrame:
    """Every test of :func:`significance` that there is, both tasks; without any a frame without rows."""
    paths = [run.path("scores", f"significance.{task}.json") for task in TASKS]
    lines = [line for path in paths if path.exists() for line in read_json(path)["tests"]]
    numbers = ["difference", "low", "high", "p", "p_holm"]
    return pd.DataFrame(lines, columns=["task", *COMPARISON_COLUMNS]).astype(dict.fromkeys(numbers, float))


# ---- behaviour: properties, copies, modality, wins ----


@dataclass(frozen=True)
class _Training:
    """What outputs are held against: training captions, canonical molecules, properties and their frequency."""

    captions: list[str]
    molecules: list[str]
    tree: dict[str, list[Any]]
    withheld: list[tuple[str, str]]
    frequency: Counter[str]

    @classmethod
    def read(cls, run: Run) -> "_Training":
        corpus = read_rows(run.path("data", "corpus.jsonl"), ("split", "molecule", "caption", "properties"))
        train = corpus[corpus["split"] == "train"]
        withheld = run.path("data", _WITHHELD)
        return cls(
            captions=list(train["caption"]),
            molecules=canonical(train["molecule"]),
            tree=_property_tree(run, corpus),
            withheld=[(first, second) for first, second in read_json(withheld)] if withheld.exists() else [],
            frequency=Counter(name.lower() for line in train["properties"] for name in line.split("|") if name),
        )


def embedded_tree() -> dict[str, list[str]]:
    """The embedded corpus's properties by kind of molecule, in the shape of L+M-24's tree."""
    kinds = {"Lipids": LIPID_RULES, "Drug-like molecules": PHARMACOPHORE_RULES, "Odorants": ODORANT_RULES}
    return {kind: properties_of(rule.family for rule in rules) for kind, rules in kinds.items()}


def _property_tree(run: Run, corpus: pd.DataFrame) -> dict[str, list[Any]]:
    """The tree that properties are averaged up: the one that 01 kept, else the embedded one, else one category."""
    if kept := kept_tree(run.path("data")):
        return kept
    if run.params.corpus == "embedded":
        return embedded_tree()
    names = {name for properties in corpus["properties"] for name in properties.split("|") if name}
    return {"Properties": sorted(names)} if names else {}


def behaviour(run: Run, systems: Sequence[System]) -> None:
    """What each system says besides its scores: ``scores/<system>.behaviour.json``, of the outputs as scored.

    Both tasks: outputs of the wrong modality, copies of training targets (molecules as canonical SMILES), win rate with
    its curve. mol2cap also: L+M-24's property metrics, omitted and hallucinated properties (per caption, and by how
    often training has them).
    """
    training = cache(lambda: _Training.read(run))  # only if a step is to be done
    tokenizer = caption_tokenizer(from_root(run.params.caption_tokenizer))
    kept = {Path(name).stem: run.path("data", name) for name in (_TREE, _WITHHELD)}
    for system in systems:
        output = run.path("scores", f"{system.name}.behaviour.json")
        files: dict[str, Path] = {task: prediction_path(run, system.name, task) for task in TASKS}
        files["rows"] = score_path(run, system.name, "cap2mol", "samples.jsonl")
        nli = run.path("scores", f"{system.name}.nli.jsonl")
        if nli.exists():
            files["nli"] = nli

        def make(_: Path, files: dict[str, Path] = files, output: Path = output, system: System = system) -> None:
            answers, drawings = (scored_answers(run, system, task) for task in TASKS)
            captions, molecules = list(answers["prediction"]), list(drawings["prediction"])
            samples = read_rows(files["rows"], ("id",))
            spoken: dict[str, Any] = {
                "wrong_modality": wrong_modality_rate(captions, "mol2cap"),
                "copied": float(copied(captions, training().captions).mean()),
                **_properties(list(answers["reference"]), captions, training(), tokenizer),
            }
            if "nli" in files:
                judged = read_rows(files["nli"], ("id",))
                spoken |= {"win_rate": win_rate(caption_wins(judged)), "curve": caption_curve(judged)}
            drawn = {
                "wrong_modality": wrong_modality_rate(molecules, "cap2mol"),
                "copied": float(copied(canonical(molecules), training().molecules).mean()),
                "win_rate": win_rate(molecule_wins(samples)),
                "curve": molecule_curve(samples),
            }
            write_json(output, strict_json({"system": system.name, "mol2cap": spoken, "cap2mol": drawn}))

        run.step(
            f"behaviour {system.name}",
            make,
            outputs=[output],
            params={"tokenizer": tokenizer.name, "corpus": run.params.corpus, "postprocess": rule_of(run, system)},
            inputs={
                **files,
                "corpus": run.path("data", "corpus.jsonl"),
                **{name: path for name, path in kept.items() if path.exists()},
            },
            say=only_news,
        )


def canonical(molecules: Iterable[str]) -> list[str]:
    """Canonical SMILES of each, in order; what RDKit cannot read stays as it is."""
    texts = list(molecules)
    spelt = {text: Chem.MolToSmiles(mol) if (mol := parse(text)) else text for text in dict.fromkeys(texts)}
    return [spelt[text] for text in texts]


def _properties(
    references: Sequence[str], captions: Sequence[str], training: _Training, tokenizer: CaptionTokenizer
) -> dict[str, Any]:
    if not training.tree:  # a corpus may state no properties, and the grammar find none
        return {}
    scores = property_scores(references, captions, training.tree, tokenizer, combinations=training.withheld)
    return {
        "categories": scores.categories.reset_index(),
        "combinations": scores.combinations,
        "bands": by_frequency(scores, training.frequency),
        "omitted": float(scores.rows["omitted"].mean()),
        "hallucinated": float(scores.rows["hallucinated"].mean()),
    }


def behaviours(run: Run, systems: Sequence[System]) -> dict[str, dict[str, Any]]:
    """The behaviour files that there are, by system."""
    paths = {system.name: run.path("scores", f"{system.name}.behaviour.json") for system in systems}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


def behaviour_table(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Per system: property F1 (overall), omitted, hallucinated, wrong modality, copied, win rates; or "not run"."""
    found = behaviours(run, systems)
    lines = []
    for system in systems:
        line: dict[str, Any] = {"system": system.label}
        if system.name in found:
            spoken, drawn = found[system.name]["mol2cap"], found[system.name]["cap2mol"]
            overall = [entry["f1"] for entry in spoken.get("categories", []) if entry["category"] == "Overall"]
            line |= {
                "property F1": overall[0] if overall else None,
                "omitted": spoken.get("omitted"),
                "hallucinated": spoken.get("hallucinated"),
                "no caption": spoken["wrong_modality"],
                "copied captions": spoken["copied"],
                "caption wins": spoken.get("win_rate", {}).get("value"),
                "no molecule": drawn["wrong_modality"],
                "copied molecules": drawn["copied"],
                "molecule wins": drawn["win_rate"]["value"],
            }
        lines.append(line)
    frame = pd.DataFrame(lines).set_index("system")
    text = frame.apply(lambda column: column.map(lambda x: "undefined" if pd.isna(x) else f"{x:.2f}"))
    text[[system.name not in found for system in systems]] = NOT_RUN
    return text


def win_curves(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Win rates by threshold: Chr-F (cap2mol; length is the other, "any" for none) or entailment (mol2cap)."""
    frames = []
    for name, entry in behaviours(run, systems).items():
        for task in TASKS:
            if "curve" in entry[task]:
                curve = pd.DataFrame(entry[task]["curve"]).rename(columns={"chr_f": "threshold"})
                frames.append(curve.assign(system=name, task=task))
    columns = ["system", "task", "threshold", "length", "value", "low", "high", "n"]
    return pd.concat(frames, ignore_index=True).reindex(columns=columns) if frames else pd.DataFrame(columns=columns)


# ---- ablation: what one change does to the answers, row by row ----

_ABLATION = ["system", "against", "task", "measure", "before", "after", "difference", "low", "high", "n"]
_RESAMPLES = 2000


def ablation(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """Per system with ``against``, task and measure the paired difference of row means, with its 95 % interval.

    Measures: Chr-F (0 to 1), right modality (share of outputs of the task's modality), length in characters. Raises
    ``ValueError`` when the two systems answered different rows.
    """
    by_name = {system.name: system for system in (*load_systems(), *systems)}
    lines = []
    for system, against in ((s, s.against) for s in systems if s.against is not None):
        for task in TASKS:
            before, after = (_measures(scored_answers(run, by_name[n], task), task) for n in (against, system.name))
            if list(before.index) != list(after.index):
                raise ValueError(f"{against} and {system.name} answered different test rows: run both again")
            moved = after - before
            drawn = resampled([mean_of(moved[name].to_numpy()) for name in moved], _RESAMPLES, run.params.seed)
            for measure, values in zip(moved, drawn, strict=True):
                names = (system.label, by_name[against].label, task, measure)
                means = (before[measure].mean(), after[measure].mean(), moved[measure].mean())
                lines.append((*names, *means, *percentiles(values), len(moved)))
    return pd.DataFrame(lines, columns=_ABLATION)


def _measures(answers: pd.DataFrame, task: Task) -> pd.DataFrame:
    outputs = list(answers["prediction"].astype(str))
    values = {
        "Chr-F": chr_f(list(answers["reference"]), outputs),
        "right modality": right_modality(outputs, task).astype(float),
        "characters": np.array([float(len(text)) for text in outputs]),
    }
    return pd.DataFrame(values, index=answers["id"])


def ablation_table(frame: pd.DataFrame) -> Styler:
    """:func:`ablation` for the eye: one line per system and task, differences with intervals, clear ones bold."""
    text = [f"{d:+.2f} [{lo:+.2f}, {hi:+.2f}]" for d, lo, hi in frame[["difference", "low", "high"]].to_numpy()]
    cells = frame.assign(text=text, clear=(frame["low"] > 0) | (frame["high"] < 0))
    keys = ["system", "against", "task"]
    rows = pd.MultiIndex.from_frame(frame[keys].drop_duplicates())
    order = list(dict.fromkeys(frame["measure"]))
    wide, bold = (cells.pivot(index=keys, columns="measure", values=v)[order].reindex(rows) for v in ("text", "clear"))
    return wide.style.apply(lambda _: bold.map(lambda clear: "font-weight: bold" if clear else ""), axis=None)
