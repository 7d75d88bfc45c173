"""Executed copies: what a repository page can show, and nothing of the machine that made them."""

import base64
import io
import json
import os
import re
from argparse import Namespace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from lmolt_utils.cli import _lab
from lmolt_utils.paths import root
from lmolt_utils.run import copies
from lmolt_utils.run.copies import copy_executed, lab_copies


def executed(folder: Path) -> None:
    stream = io.BytesIO()
    Image.effect_noise((200, 200), 80).convert("RGB").save(stream, format="PNG")
    picture = base64.b64encode(stream.getvalue()).decode()
    html = f'<b>1</b>\n<img src="data:image/png;base64,{picture}">'
    outputs = [
        new_output("stream", name="stdout", text=f"files in {root()}/runs/cpu, {Path.home() / 'hub'}\n"),
        new_output("stream", name="stderr", text="a library's warning\n"),
        new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0 %"}),
        new_output("display_data", data={"image/png": picture, "text/plain": "x"}),
        new_output("execute_result", data={"text/html": html, "text/plain": "1"}, execution_count=1),
    ]
    cell = new_code_cell("1", outputs=outputs, metadata={"papermill": {"duration": 1.5}, "tags": ["parameters"]})
    notebook = new_notebook(cells=[cell], metadata={"papermill": {"output_path": str(folder)}, "widgets": {}})
    (folder / "notebooks").mkdir(parents=True)
    nbformat.write(notebook, folder / "notebooks" / "01_data.ipynb")


@pytest.mark.parametrize(("home", "hub"), [("/home/me", "~/hub"), ("/", "/hub")])
def test_a_copy_keeps_what_is_read_and_drops_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: str, hub: str
) -> None:
    """And a copy that no page would show is written and told."""
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(copies, "MOST_BYTES", 1000)
    executed(tmp_path / "run")
    copy_executed(tmp_path / "run", tmp_path / "figures")
    path = tmp_path / "figures" / "notebooks" / "01_data.ipynb"
    told = f"note: {path} has {path.stat().st_size:,} bytes, more than the 1,000 that a repository page draws"
    assert capsys.readouterr().out.startswith(told)
    nbformat.validate(nbformat.read(path, as_version=4))
    cell = json.loads(path.read_text())["cells"][0]
    assert cell["metadata"] == {"tags": ["parameters"]}
    text, picture, html = cell["outputs"]
    assert "".join(text["text"]) == f"files in runs/cpu, {hub}\n"
    assert list(html["data"]) == ["text/html"]
    before, folded, after = re.split('base64,|(?=">)', "".join(html["data"]["text/html"]))
    assert (before, after) == ('<b>1</b>\n<img src="data:image/png;', '">')
    for encoded in ("".join(picture["data"]["image/png"]), folded):
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            assert image.size == (200, 200)
            assert len(image.getcolors() or ()) == 64
    for gone in (str(root()), "warning", "widget", "papermill"):
        assert gone not in path.read_text()


def test_a_profiles_own_copies_name_it_and_stay_as_the_reader_left_them(runs: Path) -> None:
    first = lab_copies("smoke") / "01_data.ipynb"
    assert '"profile = \\"smoke\\"  #' in first.read_text()
    first.write_text("mine")
    assert (lab_copies("smoke") / first.name).read_text() == "mine"


def test_lab_opens_where_repository_and_copies_both_are(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(os, "execv", lambda _, command: asked.extend(command))
    _lab(Namespace(profile="smoke", jupyter=["--no-browser"]))
    told = dict(word.split("=", 1) for word in asked if "=" in word)
    top = Path(told["--ServerApp.root_dir"])
    assert top / told["--LabApp.default_url"].removeprefix("/lab/tree/") == runs.resolve() / "smoke/lab/01_data.ipynb"
    assert root().resolve().is_relative_to(top)
