"""What stands beside the scores: tests between systems, properties, copies, wrong modality, win rates.

Each is a step over files that scoring and entailment wrote, so that tables and figures only read.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.published import REFERENCE, pairs_to_test
from lmolt_utils.config.systems import System
from lmolt_utils.data.captioner import kept_tree
from lmolt_utils.files import read_json, read_rows, write_json
from lmolt_utils.grammar.rules import LIPID_RULES, ODORANT_RULES, PHARMACOPHORE_RULES, properties_of
from lmolt_utils.metrics.captions import caption_tokenizer
from lmolt_utils.metrics.distributions import copied, modality, wrong_modality_rate
from lmolt_utils.metrics.intervals import COMPARISON_COLUMNS, compare_all
from lmolt_utils.metrics.molecules import parse_smiles
from lmolt_utils.metrics.properties import (
    PropertyScores,
    by_frequency,
    property_scores,
)
from lmolt_utils.metrics.results import NOT_RUN, read_scores
from lmolt_utils.metrics.winrates import caption_curve, caption_wins, molecule_curve, molecule_wins, win_rate
from lmolt_utils.models.predictions import prediction_path, rule_of, scored_answers
from lmolt_utils.paths import from_root
from lmolt_utils.run.notebook import Run

PERMUTATIONS = 9999
#: What 01 keeps of the corpus's properties besides the rows.
_KEPT = ("property_tree.json", "withheld_pairs.json")


# ---- significance ----


def significance(
    run: Run, systems: Sequence[System], task: Task, *, reference: str = REFERENCE, permutations: int = PERMUTATIONS
) -> None:
    """Test the pairs of systems that the tables compare: ``scores/significance.<task>.json``.

    Systems without scores are left out, and so are their pairs; the file names the pairs that were tested.
    """
    scored = [system for system in systems if _statistics(run, system.name, task).exists()]
    pairs = pairs_to_test(scored, task, reference=reference)
    output = run.path("scores", f"significance.{task}.json")

    def make(_: Path) -> None:
        read = {name: read_scores(run, name, task) for name in dict.fromkeys(name for pair in pairs for name in pair)}
        frame = compare_all(read, pairs, permutations=permutations).assign(task=task)
        lines = frame.astype(object).where(frame.notna(), None).to_dict("records")
        write_json(output, {"reference": reference, "permutations": permutations, "tests": lines})

    run.step(
        f"significance {task}",
        make,
        outputs=[output],
        params={"reference": reference, "permutations": permutations, "pairs": [list(pair) for pair in pairs]},
        inputs={
            f"{name} {path.name.split('.')[-1]}": path
            for name in sorted({name for pair in pairs for name in pair})
            for path in (run.path("scores", f"{name}.{task}.samples.jsonl"), _statistics(run, name, task))
        },
    )


def _statistics(run: Run, name: str, task: Task) -> Path:
    path: Path = run.path("scores", f"{name}.{task}.statistics.npz")
    return path


def all_significance(run: Run) -> pd.DataFrame:
    """Every test of :func:`significance` that there is, both tasks; without any a frame without rows."""
    paths = [run.path("scores", f"significance.{task}.json") for task in TASKS]
    frames = [pd.DataFrame(read_json(path)["tests"]) for path in paths if path.exists()]
    kept = [frame for frame in frames if len(frame)]
    if not kept:
        return pd.DataFrame(columns=["task", *COMPARISON_COLUMNS])
    numbers = ["difference", "low", "high", "p", "p_holm"]
    return pd.concat(kept, ignore_index=True).astype(dict.fromkeys(numbers, float))


# ---- behaviour: properties, copies, modality, wins ----


def embedded_tree() -> dict[str, list[str]]:
    """The embedded corpus's properties by kind of molecule, in the shape of L+M-24's tree."""
    kinds = {"Lipids": LIPID_RULES, "Drug-like molecules": PHARMACOPHORE_RULES, "Odorants": ODORANT_RULES}
    return {kind: properties_of(rule.family for rule in rules) for kind, rules in kinds.items()}


def property_tree(run: Run, corpus: pd.DataFrame) -> dict[str, list[Any]]:
    """The tree that properties are averaged up: the one that 01 kept, else the embedded one, else one category."""
    kept = kept_tree(run.path("data"))
    if kept:
        return kept
    if run.params.corpus == "embedded":
        return embedded_tree()
    names = {name for properties in corpus["properties"] for name in properties.split("|") if name}
    return {"Properties": sorted(names)} if names else {}


def withheld_pairs(run: Run) -> list[tuple[str, str]]:
    """The property pairs that training withholds, as 01 kept them."""
    path = run.path("data", "withheld_pairs.json")
    return [(first, second) for first, second in read_json(path)] if path.exists() else []


def behaviour(run: Run, systems: Sequence[System]) -> None:
    """What each system says besides its scores: ``scores/<system>.behaviour.json``.

    Outputs are those that were scored: the raw ones after the run's rule for post-processing. mol2cap: L+M-24's
    property metrics, omitted and hallucinated properties (mean per caption, and by how often training has them),
    outputs that are no caption, copies of training captions, NLI win rate with its curve. cap2mol: outputs that are no
    molecule, copies of training molecules (as canonical SMILES), win rate with its curve.
    """
    loaded: dict[str, Any] = {}
    tokenizer = caption_tokenizer(from_root(run.params.caption_tokenizer))

    def training() -> dict[str, Any]:
        if not loaded:
            corpus = read_rows(run.path("data", "corpus.jsonl"), ("split", "molecule", "caption", "properties"))
            train = corpus[corpus["split"] == "train"]
            counts = Counter(name.lower() for line in train["properties"] for name in line.split("|") if name)
            loaded.update(
                tree=property_tree(run, corpus),
                frequency=counts,
                captions=list(train["caption"]),
                molecules=canonical(train["molecule"]),
                combinations=withheld_pairs(run),
            )
        return loaded

    for system in systems:
        output = run.path("scores", f"{system.name}.behaviour.json")
        files: dict[str, Path] = {task: prediction_path(run, system.name, task) for task in TASKS}
        files["rows"] = run.path("scores", f"{system.name}.cap2mol.samples.jsonl")
        nli = run.path("scores", f"{system.name}.nli.jsonl")
        if nli.exists():
            files["nli"] = nli

        def make(_: Path, files: dict[str, Path] = files, output: Path = output, system: System = system) -> None:
            frames = {task: scored_answers(run, system, task) for task in TASKS}
            captions, molecules = (list(frames[task]["prediction"]) for task in TASKS)
            references = list(frames["mol2cap"]["reference"])
            known = training()
            samples = read_rows(files["rows"], ("id",))
            spoken = _captions(captions, known["captions"])
            if known["tree"]:  # a corpus may state no properties, and the grammar find none
                properties = property_scores(
                    references, captions, known["tree"], tokenizer, combinations=known["combinations"]
                )
                spoken |= property_summary(properties, known["frequency"])
            if "nli" in files:
                probabilities = read_rows(files["nli"], ("id",))
                spoken |= _wins(caption_wins(probabilities), caption_curve(probabilities))
            drawn = _molecules(molecules, known["molecules"])
            drawn |= _wins(molecule_wins(samples), molecule_curve(samples))
            write_json(output, _plain({"system": system.name, "mol2cap": spoken, "cap2mol": drawn}))

        run.step(
            f"behaviour {system.name}",
            make,
            outputs=[output],
            params={"tokenizer": tokenizer.name, "corpus": run.params.corpus, "postprocess": rule_of(run, system)},
            inputs={
                **files,
                "corpus": run.path("data", "corpus.jsonl"),
                **{path.stem: path for name in _KEPT if (path := run.path("data", name)).exists()},
            },
            say=_only_news,
        )


def canonical(molecules: Iterable[str]) -> list[str]:
    """Canonical SMILES of each, in order; what RDKit cannot read stays as it is."""
    from rdkit import Chem

    spelt: dict[str, str] = {}
    result = []
    for text in molecules:
        if text not in spelt:
            parsed = parse_smiles(text)
            spelt[text] = text if parsed is None else Chem.MolToSmiles(parsed)
        result.append(spelt[text])
    return result


def _captions(captions: Sequence[str], training: Iterable[str]) -> dict[str, Any]:
    return _modality(captions, "mol2cap") | {"copied": float(copied(captions, training).mean())}


def _molecules(molecules: Sequence[str], training: Iterable[str]) -> dict[str, Any]:
    return _modality(molecules, "cap2mol") | {"copied": float(copied(canonical(molecules), training).mean())}


def _modality(outputs: Sequence[str], task: Task) -> dict[str, float]:
    return {
        "wrong_modality": wrong_modality_rate(outputs, task),
        "empty": float(np.mean([modality(text) == "empty" for text in outputs])),
    }


def _wins(wins: np.ndarray, curve: pd.DataFrame) -> dict[str, Any]:
    return {"win_rate": win_rate(wins), "curve": curve.to_dict("records")}


def property_summary(scores: PropertyScores, frequency: Counter[str]) -> dict[str, Any]:
    """Property scores as JSON: categories, combinations, frequency bands, and means per caption."""
    return {
        "tokenizer": scores.tokenizer,
        "categories": scores.categories.reset_index().to_dict("records"),
        "combinations": scores.combinations,
        "bands": by_frequency(scores, frequency).to_dict("records"),
        "omitted": float(scores.rows["omitted"].mean()),
        "hallucinated": float(scores.rows["hallucinated"].mean()),
    }


def _plain(value: Any) -> Any:
    """NaN as null and infinity as text, all the way down: strict JSON."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else "any" if math.isinf(value) else float(value)
    return value


def _only_news(line: str) -> None:
    if not line.endswith("up to date"):
        print(line)


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
    """Win rates against their thresholds, long: system, task, threshold, length, value, low, high, n.

    threshold: Chr-F (cap2mol; length is the other threshold, "any" for none) or entailment (mol2cap).
    """
    frames = []
    for name, entry in behaviours(run, systems).items():
        for task in TASKS:
            if "curve" in entry[task]:
                curve = pd.DataFrame(entry[task]["curve"]).rename(columns={"chr_f": "threshold"})
                frames.append(curve.assign(system=name, task=task))
    columns = ["system", "task", "threshold", "length", "value", "low", "high", "n"]
    return pd.concat(frames, ignore_index=True).reindex(columns=columns) if frames else pd.DataFrame(columns=columns)
