"""``figures/report/index.html``: one self-contained page of a run, verdicts first, made from the files that 08 wrote.

What is not there is listed as missing. Nothing on the page asks for anything: figures are data URIs, the style and the
few lines of script are in ``report.html.j2``.
"""

import base64
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from lmolt_utils.config.params import ParameterError, Params, describe, load
from lmolt_utils.config.switches import shown as switch_shown
from lmolt_utils.config.switches import switches
from lmolt_utils.figures.claims import counts, read_verdicts
from lmolt_utils.figures.results_page import ledgers
from lmolt_utils.figures.table_files import ALPHA, NOISE
from lmolt_utils.files import BadFileError, write_text
from lmolt_utils.paths import root, run_folder, shown
from lmolt_utils.run.notebook import Run, altered, read_notebook_record
from lmolt_utils.run.notebooks import NOTEBOOKS, with_data_switches
from lmolt_utils.run.steps import commit, record_path, records

TABLES = ("T2", "T3", "T4", "T5", "AT1", "AT2")
FIGURES = (
    "overview", "distributions", "almol_distributions", "win_rates", "ratio_sweep", "merge_comparison",
    "nli_distributions", "nli_divergence_all", "nli_divergence_long", "nli_divergence_extreme", "word_counts",
    "training_curves", "example_molecules", "example_captions", "example_captions_printed",
)  # fmt: skip
#: Of the study, on the report of the default profile.
STUDY_FIGURES = ("table_answers", "overview", "errors_seen")
#: Further tables that 08 writes, as they lie in their CSV files.
FURTHER = {
    "nli_table_6": "Table 6 of Less for More, judged here",
    "molecule_sets": "Diversity and synthesizability of molecules",
    "rewritten_smiles": "Captions of the same molecules in other SMILES",
}
#: A text, or a text and what it links to.
Cell = str | tuple[str, str]


@dataclass(frozen=True)
class Grid:
    """A table of the page, which its reader can sort and filter."""

    title: str
    head: list[str]
    rows: list[list[Cell]]
    notes: tuple[str, ...] = ()


def report_path(run: Run) -> Path:
    return run.figures / "report" / "index.html"


def report(profile: str) -> int:
    """Make the page of a profile's run again, in seconds, from what is there."""
    run = Run("08_figures", run_folder(profile), with_data_switches(load(profile)))
    if not run.path("scores").is_dir():
        raise ParameterError(f"profile {profile} has no scores yet: make reproduce PROFILE={profile}")
    missing = write_report(run, finished=True)
    print(f"{shown(report_path(run))}: {f'{len(missing)} parts are missing' if missing else 'complete'}")
    return 0


def write_report(run: Run, *, finished: bool = False) -> list[str]:
    """Write the page; returns what is missing on it. Once 08 has ``finished``, its own files are checked too."""
    missing: list[str] = []
    context = {
        "run": run.title,
        "scale": run.scale,
        "verdicts": _verdicts(run, missing),
        "study": _study(run),
        "tables": [grid for name in TABLES if (grid := _table(run.figures, name, missing))]
        + [grid for name, title in FURTHER.items() if (grid := _further(run, name, title, missing))],
        "figures": list(_figures(run.figures, FIGURES, missing)),
        "notebooks": _notebooks(run, missing, finished),
        "parameters": _parameters(run),
        "deviations": _deviations(run),
        "cost": _cost(run, missing),
        "missing": missing,
        "links": {name: _link(run, root() / name) for name in ("README.md", "RESULTS.md", "docs/audit.md")},
    }
    places = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=places, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    write_text(report_path(run), template.get_template("report.html.j2").render(context))
    run.wrote(report_path(run))
    return missing


def _link(run: Run, target: Path) -> str:
    return Path(os.path.relpath(target, report_path(run).parent)).as_posix()


def _verdicts(run: Run, missing: list[str]) -> Grid:
    """The ledger: this run's verdicts and numbers, and the verdicts of the other profiles beside them."""
    own = run.figures / "claims.csv"
    tables = dict[str, pd.DataFrame]()
    try:
        if own.exists():
            tables[run.title] = read_verdicts(own)
        else:
            missing.append("verdicts of this run (claims.csv)")
        if run.figures.is_relative_to(root() / "figures"):
            tables |= {name: table for name, (_, table) in ledgers().items() if name != run.params.profile}
    except BadFileError as error:
        missing.append(f"verdicts: {error}")
    columns = {name: table.set_index("id")["verdict"].to_dict() for name, table in tables.items()}
    told = {name: [f"{count} {verdict}" for verdict, count in counts(table).items()] for name, table in tables.items()}
    notes = [f"{name}: {', '.join(parts)}." for name, parts in told.items()]
    rows: list[list[Cell]] = []
    for line in next(iter(tables.values()), pd.DataFrame()).to_dict("records"):
        found = [columns[name].get(line["id"], "not run") for name in tables]
        rows.append([line["id"], line["claim"], *found, line["source"], line["evidence"], line["draws"]])
    own_numbers = f"numbers of {next(iter(tables), 'none')}"
    head = ["", "claim", *tables, "stated in", own_numbers, "holds in draws"]
    return Grid("Verdicts", head, rows, tuple(notes))


def _study(run: Run) -> dict[str, Any] | None:
    """What is committed of the study, beside a tracked run of another profile."""
    folder = root() / load("study").figures_dir
    if run.figures == folder or not run.figures.is_relative_to(root() / "figures") or not folder.is_dir():
        return None
    lost: list[str] = []  # the study's own report tells what is missing there
    found = [grid for name in TABLES if (grid := _table(folder, name, lost))]
    tables = [replace(grid, title=f"The study: {grid.title}") for grid in found]
    return {
        "tables": tables,
        "figures": list(_figures(folder, STUDY_FIGURES, lost, "../study")),
        "links": {name: _link(run, place) for name, place in {
            "how it was done": root() / "docs" / "study.md", "its own report": folder / "report" / "index.html",
        }.items() if place.exists()},
    }  # fmt: skip


def _table(folder: Path, name: str, missing: list[str]) -> Grid | None:
    """A table as its CSV holds it, a row per system; captions and notes from its Markdown."""
    path = folder / f"table_{name}.csv"
    columns = ("row", "kind", "metric", "paper", "reproduced", "n", "system", "low", "high", "p")
    lines = _read(path, f"Table {name}", columns, missing)
    if lines is None:
        return None
    lines = lines[lines["kind"] == "value"]
    metrics = list(dict.fromkeys(lines["metric"]))
    rows: list[list[Cell]] = []
    for row, cells in lines.groupby("row", sort=False):
        texts = {cell.metric: _value(cell) for cell in cells.itertuples()}
        n = pd.to_numeric(cells["n"], errors="coerce").max()
        rows.append([str(row), "" if pd.isna(n) else f"{n:.0f}", *(texts.get(metric, "") for metric in metrics)])
    notes = path.with_suffix(".md")
    told = notes.read_text(encoding="utf-8", errors="replace") if notes.exists() else ""
    parts = [
        re.sub(r"\\(.)", r"\1", part.replace("**", "")) for part in told.split("\n\n") if part[:1] not in ("", "|")
    ]
    return Grid(parts[0] if parts else f"Table {name}", ["system", "n", *metrics], rows, tuple(parts[1:]))


def _further(run: Run, name: str, title: str, missing: list[str]) -> Grid | None:
    lines = _read(run.figures / f"{name}.csv", title, (), missing)
    return None if lines is None else Grid(title, [str(name) for name in lines], lines.to_numpy().tolist())


def _read(path: Path, what: str, columns: Sequence[str], missing: list[str]) -> pd.DataFrame | None:
    """A CSV file as texts; None, and ``what`` is missing, where it is not there, damaged or without a row."""
    try:
        lines = pd.read_csv(path, dtype=str, keep_default_na=False)
        if set(columns) <= set(lines) and not lines.empty:
            return lines
        lost = f"{path.name}: {'no rows' if set(columns) <= set(lines) else 'damaged'}"
    except FileNotFoundError:
        lost = path.name
    except (OSError, ValueError):  # pandas' errors, and texts that are not UTF-8, are ValueErrors
        lost = f"{path.name}: damaged"
    missing.append(f"{what} ({lost})")
    return None


def _value(cell: Any) -> str:
    texts = (cell.reproduced, cell.low, cell.high, cell.paper)
    number, low, high, paper_value = (pd.to_numeric(text, errors="coerce") for text in texts)
    away = "" if pd.isna(number - paper_value) else f"; {number - paper_value:+.3f}"
    paper = f" ({cell.paper}{away})" if cell.paper else ""
    half = "" if pd.isna(high - low) else f" ± {(high - low) / 2:.3f}"
    noise = NOISE if pd.to_numeric(cell.p, errors="coerce") >= ALPHA else ""
    return f"{cell.reproduced if pd.isna(number) else f'{number:.3f}'}{half}{noise}{paper}"


def _figures(folder: Path, names: Iterable[str], missing: list[str], data: str = "..") -> Iterable[dict[str, str]]:
    """Each figure as a data URI, with its text for those who cannot see it; ``data``: the folder that its CSV is in."""
    for name in names:
        path = folder / f"{name}.png"
        try:
            with Image.open(path) as picture:
                picture.verify()
                alt = str(picture.info.get("Description") or name)
        except (OSError, SyntaxError) as error:
            missing.append(f"figure {name} ({'missing' if isinstance(error, FileNotFoundError) else 'damaged'})")
            continue
        uri = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        told = {"name": name.replace("_", " "), "alt": alt.replace("``", "")}
        yield {**told, "uri": uri, "data": f"{data}/{name}.csv"}


def _notebooks(run: Run, missing: list[str], finished: bool) -> Grid:
    """The executed notebooks, the code that ran and whether their files are still what they wrote."""
    rows: list[list[Cell]] = []
    for name in NOTEBOOKS:
        record = read_notebook_record(run.folder, name)
        if name == NOTEBOOKS[-1] and not finished:
            rows.append([(name, _executed(run, name)), commit()[:7], "makes this page"])
        elif record is None:
            missing.append(f"run of notebook {name}")
            rows.append([name, "", "NOT RUN here"])
        else:
            # lmolt report writes the page again
            lost = [one for one in altered(run.folder, name) if not one.endswith("report/index.html")]
            missing += [f"{one} (missing or changed)" for one in lost[:3]]
            missing += [f"{len(lost) - 3} more files of {name} (missing or changed)"] if len(lost) > 3 else []
            state = (
                f"{', '.join(lost[:3])} MISSING or CHANGED" if lost else f"{len(record['files'])} files, all as written"
            )
            rows.append([(name, _executed(run, name)), str(record.get("commit", "unknown"))[:7], state])
    older = (f"Made by older code, and kept: {run.older_code}.",) if run.older_code else ()
    return Grid("Executed notebooks and provenance", ["notebook", "commit", "files"], rows, older)


def _executed(run: Run, name: str) -> str:
    """Tracked figures have cleaned copies beside them, which reproduce writes after 08; others are in the run."""
    tracked = run.figures.is_relative_to(root() / "figures")
    return _link(run, (run.figures if tracked else run.folder) / "notebooks" / f"{name}.ipynb")


def _parameters(run: Run) -> Grid:
    paper, here = load("paper").model_dump(), run.params.model_dump()
    rows: list[list[Cell]] = []
    for name, value in here.items():
        told = describe(name)
        differs = "differs" if value != paper[name] else ""
        rows.append([name, str(value), str(paper[name]), differs, told["unit"], told["meaning"], told["source"]])
    head = ["parameter", "here", "paper profile", "", "unit", "meaning", "source"]
    return Grid(f"All {len(Params.model_fields)} parameters", head, rows)


def _deviations(run: Run) -> Grid:
    """Where the papers' text and code disagree, and what this run follows."""
    rows: list[list[Cell]] = [
        [name, one.audit, one.text, switch_shown(one.as_printed), switch_shown(one.as_released),
         str(run.params.switches.get(name, run.params.semantics))]
        for name, one in switches().items()
    ]  # fmt: skip
    head = ["switch", "audit", "what", "as printed", "as released", "here"]
    return Grid("Where text and released code disagree", head, rows)


def _cost(run: Run, missing: list[str]) -> Grid:
    """Time and memory of each notebook's steps, by their records."""
    whole = records(run.folder)
    kept = [path for path in run.folder.rglob("*.record.json") if path.parent != run.path("notebooks")]
    missing += [f"{run.shown(p)} (damaged)" for p in kept if p not in map(record_path, whole)]
    found = [[r["notebook"], r["wall_s"], r["peak_mb"]] for r in whole.values()]
    frame = pd.DataFrame(found, columns=["notebook", "seconds", "MB"])
    rows: list[list[Cell]] = [
        [str(name), str(len(part)), f"{part['seconds'].sum():.0f}", f"{part['MB'].max():.0f}"]
        for name, part in frame.groupby("notebook")
    ]
    told = f"All steps together: {frame['seconds'].sum():.0f} s." if found else "No step has a record here."
    return Grid("Cost", ["notebook", "steps", "seconds of its steps", "peak MB"], rows, (told,))
