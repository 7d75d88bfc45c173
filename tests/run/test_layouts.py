"""Corpora as they are released, through the notebooks: L+M-24's archive, and molecules with captions only."""

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from lmolt_utils.embedded.corpus import WITHHELD_PAIRS, generate
from lmolt_utils.files import read_json, read_rows
from lmolt_utils.metrics.analysis import embedded_tree
from lmolt_utils.run.notebooks import NOTEBOOKS
from tests.run.executing import in_one_kernel, repository_with

#: One system per way of making one: what a layout may break is the data's way, not the number of systems.
SYSTEMS = ("meditron", "cpo", "slerp", "slerp+cpo", "cpo-mol2cap", "constant", "nearest-neighbour", "rule")
SCRIPT = "<script>alert(1)</script>"
READ_OFF = "read off the captions"


def execute(
    folder: Path,
    profile: str,
    monkeypatch: pytest.MonkeyPatch,
    systems: Sequence[str] = SYSTEMS,
    notebooks: Sequence[str] = NOTEBOOKS,
    **values: object,
) -> nbformat.NotebookNode:
    """Notebooks in a copy of the repository with few systems and one more profile, ``smoke`` but for ``values``."""
    repository_with(systems, folder)
    text = (folder / "params" / "smoke.yaml").read_text()
    small = {"test_rows": 8, "max_new_tokens": 16, "effective_batch": 4, "micro_batch": 4, "epochs": 0.5}
    for key, value in {"profile": profile, "figures_dir": f"runs/{profile}/figures", **small, **values}.items():
        text, found = re.subn(rf"^{key}: .*$", f"{key}: {value}", text, flags=re.MULTILINE)
        assert found == 1, key
    (folder / "params" / f"{profile}.yaml").write_text(text)
    monkeypatch.setenv("LMOLT_ROOT", str(folder))
    monkeypatch.setenv("LMOLT_RUNS", str(folder / "runs"))
    return in_one_kernel(profile, folder, notebooks)


def html_of(book: nbformat.NotebookNode) -> str:
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return "".join(output.get("data", {}).get("text/html", "") for output in outputs)


@pytest.mark.slow
def test_the_release_goes_through_all_eight_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python sets, a tree and withheld pairs in the zip, no captions, no splits; names as L+M-24 writes them."""
    frame = generate(300, 5)
    lines = []
    for number, (molecule, text) in enumerate(zip(frame["molecule"], frame["properties"], strict=True)):
        names = [*text.split("|"), *(["Odor_evaluation"] if number % 20 == 0 else [])]
        lines.append(f"{molecule}\t{{{', '.join(map(repr, names))}}}")
    archive = tmp_path / "additional_data.zip"
    with zipfile.ZipFile(archive, "w") as handle:
        handle.writestr("train_props.txt", "\n".join(lines) + "\n")
        handle.writestr("nested_props.json", json.dumps(embedded_tree() | {"Odor": ["Odor_evaluation"]}))
        handle.writestr("train_withheld_combos.txt", "".join(f"{pair!r}\t1\n" for pair in WITHHELD_PAIRS))
    values = {"corpus": archive, "test_set": "extra_valid", "negatives": "nearest"}
    whole = execute(tmp_path, "release", monkeypatch, **values)
    run = tmp_path / "runs" / "release"
    facts = read_json(run / "data" / "manifest.json")["corpus"]
    assert facts["property_tree"]["from"] == "additional_data.zip: nested_props.json"
    assert (sum(facts["rows"].values()), facts["properties"]) == (300, "stated")
    corpus = read_rows(run / "data" / "corpus.jsonl", ("split", "properties"))
    train = corpus.loc[corpus["split"] == "train", "properties"].str.split("|").map(set)
    assert not any(set(pair) <= names for pair in WITHHELD_PAIRS for names in train)
    behaviour = read_json(run / "scores" / "rule.behaviour.json")["mol2cap"]
    assert {"Overall", "Odor"} <= {line["category"] for line in behaviour["categories"]}, "the archive's tree"
    assert set(behaviour["combinations"]) == {"precision", "recall", "f1", "accuracy"}, "the archive's pairs"
    assert (run / "figures" / "table_T2.md").stat().st_size > 500
    assert READ_OFF not in json.dumps([cell.get("outputs", []) for cell in whole.cells])


@pytest.mark.slow
def test_molecules_and_captions_alone_go_through_the_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two columns, no short molecule, markup in captions, the released code's choices; 04 to 06 see no other data."""
    frame = generate(300, 5)
    frame = frame.loc[frame["molecule"].str.len() > 60, ["molecule", "caption"]]
    frame.loc[frame.index[::3], "caption"] += f" {SCRIPT}"
    frame.to_csv(tmp_path / "mine.csv", index=False)
    systems = ("meditron", "sft", "constant", "nearest-neighbour", "rule")
    notebooks = [name for name in NOTEBOOKS if name[:2] not in ("04", "05", "06")]
    given = {"corpus": tmp_path / "mine.csv", "test_set": "validation", "semantics": "as_released"}
    whole = execute(tmp_path, "captions", monkeypatch, systems, notebooks, **given)
    run = tmp_path / "runs" / "captions"
    facts = read_json(run / "data" / "manifest.json")["corpus"]
    assert facts["properties"] == READ_OFF
    assert facts["notes"]["rows whose property set was read off the caption"] > 0.9 * len(frame)
    assert (run / "predictions" / "rule.mol2cap.jsonl").exists(), "a baseline that is about property sets"
    assert pd.notna(read_json(run / "scores" / "rule.behaviour.json")["mol2cap"]["omitted"])
    printed = [json.dumps(cell.get("outputs", [])) for cell in whole.cells]
    tables = "skew = ", "shared_table(overlap", "make_card(", "behaviour_table(", "bands"
    for shown in tables:
        (place,) = [number for number, cell in enumerate(whole.cells) if shown in cell.source and cell.source]
        assert READ_OFF in printed[place], shown
    assert READ_OFF in (run / "figures" / "table_T2.md").read_text()
    html = html_of(whole)
    assert SCRIPT not in html
    assert "&lt;script&gt;" in html
