"""Copies of the notebooks: executed ones to read (``figures/notebooks/``), and a profile's own to work in."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

from PIL import Image

from lmolt_utils.config.params import load
from lmolt_utils.files import write_text
from lmolt_utils.paths import root, run_folder, shown
from lmolt_utils.run.notebooks import NOTEBOOKS, notebook_path

#: What a repository page draws at once.
MOST_BYTES = 1_000_000
#: A picture in HTML, as :func:`lmolt_utils.figures.views.folded` writes it.
_FOLDED = re.compile("(?<=data:image/png;base64,)[A-Za-z0-9+/=]+")


def lab_copies(profile: str) -> Path:
    """The folder ``lab`` of the profile's run, with a copy of each notebook whose parameters cell names the profile.

    Copies that are there stay: they are the reader's. Raises ``ParameterError`` for a profile that does not exist.
    """
    load(profile)
    folder = run_folder(profile) / "lab"
    for name in NOTEBOOKS:
        text = notebook_path(name).read_text(encoding="utf-8")
        if not (folder / f"{name}.ipynb").exists():
            write_text(folder / f"{name}.ipynb", text.replace('profile = \\"cpu\\"', f'profile = \\"{profile}\\"', 1))
    return folder


def copy_executed(folder: Path, figures: Path) -> None:
    """Write ``notebooks/NAME.ipynb`` into ``figures`` for each executed notebook of a run.

    Left out: widgets, warnings and progress bars, times of execution and paths of this machine. Pictures keep 64
    colours, folded ones too. A note names a copy that is larger than :data:`MOST_BYTES`.
    """
    for name in NOTEBOOKS:
        source, target = (place / "notebooks" / f"{name}.ipynb" for place in (folder, figures))
        if not source.exists():
            continue
        notebook = json.loads(source.read_text(encoding="utf-8"))
        kept = ("kernelspec", "language_info")
        notebook["metadata"] = {key: value for key, value in notebook["metadata"].items() if key in kept}
        for cell in notebook["cells"]:
            cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key == "tags"}
            if cell["cell_type"] == "code":
                cell["outputs"] = [_shown(output) for output in cell["outputs"] if _wanted(output)]
        text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        text = re.sub(rf"{re.escape(str(root()))}/?", "", text)
        if (home := str(Path.home())) != "/":  # as in a container whose user has no name
            text = text.replace(home, "~")
        if (size := len(text.encode())) > MOST_BYTES:
            told = f"more than the {MOST_BYTES:,} that a repository page draws: open it in Jupyter"
            print(f"note: {shown(target)} has {size:,} bytes, {told}")
        write_text(target, text)


def _wanted(output: dict[str, Any]) -> bool:
    widget = any(kind.startswith("application/vnd.jupyter.widget") for kind in output.get("data", {}))
    return output.get("name", "stdout") == "stdout" and not widget


def _shown(output: dict[str, Any]) -> dict[str, Any]:
    data = output.get("data", {})
    if "image/png" in data:
        data = {**data, "image/png": _smaller(data["image/png"])}
    if "text/html" in data:
        html = _FOLDED.sub(lambda found: _smaller(found[0]), "".join(data["text/html"]))
        data = {**data, "text/html": html.splitlines(keepends=True)}
    if "text/html" in data or "image/png" in data:
        data = {kind: value for kind, value in data.items() if kind in ("text/html", "image/png", "text/markdown")}
    return {**output, "data": data, "metadata": {}} if data else output


def _smaller(encoded: str | list[str]) -> str:
    with Image.open(io.BytesIO(base64.b64decode("".join(encoded)))) as picture, io.BytesIO() as stream:
        picture.convert("RGB").quantize(64).save(stream, format="PNG", optimize=True)
        return base64.b64encode(stream.getvalue()).decode()
