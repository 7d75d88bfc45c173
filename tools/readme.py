"""The numbers of README.md and pages in docs/, written from result files: ``python -m tools.readme`` (a test compares).

Each block stands between ``<!-- NAME -->`` and ``<!-- end -->``.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from lmolt_utils.files import write_text
from lmolt_utils.paths import root
from tools.study import page as study
from tools.study.page import Row, markdown


def claims(figures: Path) -> str:
    """What the papers claim and what the default profile shows, with three training seeds where systems are trained."""
    table = pd.read_csv(figures / "seeds" / "claims.csv", dtype=str)
    stated = table[(table["verdict"] != "not decidable") & ~table["source"].str.startswith("control")]
    shown = stated[["id", "claim", "source", "verdict"]].to_numpy().tolist()
    return markdown("", ["claim", "stated in", "verdict"], [(name, cells) for name, *cells in shown])


def summary(figures: Path) -> str:
    """How many of the claims hold, in one sentence."""
    table = pd.read_csv(figures / "seeds" / "claims.csv", dtype=str)
    needs_no_run = table["source"].str.contains("official scores|released file|arithmetic")
    verdicts = table["verdict"][~needs_no_run]
    count = {name: int((verdicts == name).sum()) for name in ("holds", "does not hold", "within noise")}
    return (
        f"Of {sum(count.values())} claims and controls that the default run can decide, {count['holds']} hold, "
        f"{count['does not hold']} do not\nhold, and {count['within noise']} are within noise, "
        "in its profile `seeds` (three training seeds): [RESULTS.md](RESULTS.md)."
    )


def correlations(figures: Path) -> str:
    """How far each NLI method's scores follow the known property sets."""
    table = pd.read_csv(figures / "nli_correlations.csv")
    wanted = {
        "coverage": "coverage and recall",
        "hallucination": "Eq. 6 and invented",
        "unsupported": "unsupported and invented",
    }
    lines = []
    for method, rows in table.groupby("method", sort=False):
        cells = rows.set_index("quantity")["spearman"]
        if str(method).startswith("SummaC"):  # one score, which stands in the last column
            cells["hallucination"] = math.nan
        shown = ["" if math.isnan(cells[name]) else f"{cells[name]:.2f}" for name in wanted]
        lines.append((str(method), shown))
    return markdown("Spearman correlation", [*wanted.values()], lines)


def captions(figures: Path) -> str:
    """Composed captions beside real ones."""
    table = pd.read_csv(figures / "study" / "captions.csv")
    lines = []
    for measure, *numbers in table.to_numpy().tolist():
        real, composed, spread = map(float, numbers)
        digits = 3 if real < 1 else 1
        cell = "" if math.isnan(composed) else f"{composed:.{digits}f} ± {spread:.{digits}f}"
        lines.append((str(measure), [f"{real:.{digits}f}", cell]))
    return markdown("measure", ["real", "composed (± over repeats)"], lines)


#: The cells that docs/artifact.md shows: what the papers' main claims rest on.
ARTIFACT = (
    ("T2", "Meditron", "BLEU-2"), ("T2", "DPO", "BLEU-2"), ("T2", "KTO", "BLEU-2"), ("T2", "CPO", "BLEU-2"),
    ("T3", "Meditron", "MACCS"), ("T3", "CPO", "MACCS"), ("T3", "KTO", "Validity"), ("T4", "SLERP+CPO", "BLEU-2"),
    ("T4", "TIES+CPO", "BLEU-2"), ("T5", "SLERP+CPO", "MACCS"), ("T5", "TIES+CPO", "MACCS"),
)  # fmt: skip


def verdict_counts(figures: Path) -> str:
    """How many claims and controls got each verdict, per profile."""
    files = {"default (A2)": figures / "claims.csv", "seeds (A3)": figures / "seeds" / "claims.csv"}
    found = {name: pd.read_csv(path, dtype=str)["verdict"].value_counts() for name, path in files.items()}
    return pd.DataFrame(found).fillna(0).astype(int).T.to_markdown()


def cells(figures: Path) -> str:
    """Expected cells of the tables, their tolerance (three standard deviations over training seeds; what rounding hides
    where nothing is trained), and the committed mean over seeds."""
    lines: list[Row] = []
    spreads = pd.read_csv(figures / "seeds" / "seed_spread.csv")
    spreads[["mean", "spread"]] = spreads[["mean", "spread"]].apply(pd.to_numeric, errors="coerce")
    for name, row, metric in ARTIFACT:
        table = pd.read_csv(figures / f"table_{name}.csv", dtype=str)
        (cell,) = table[(table["row"] == row) & (table["metric"] == metric) & (table["kind"] == "value")].itertuples()
        mine = spreads[(spreads["system"] == cell.system) & (spreads["metric"] == metric)]
        allowed, mean = max([0.005, *(3 * mine["spread"])]), "".join(f"{value:.3f}" for value in mine["mean"])
        command = f"`lmolt why figures/table_{name}.csv {row} {metric}`"
        lines.append((command, [f"{float(str(cell.reproduced)):.3f}", f"± {allowed:.3f}", mean, str(cell.paper)]))
    return markdown("command", ["expected", "tolerance", "with three seeds", "paper"], lines)


def coverage(figures: Path) -> str:
    """Correlation of coverage and recall by NLI method."""
    table = pd.read_csv(figures / "nli_correlations.csv")
    rows = table[table["quantity"] == "coverage"].itertuples()
    lines = [(str(row.method), [f"{row.spearman:.2f}", f"{row.low:.2f} to {row.high:.2f}"]) for row in rows]
    return markdown("method", ["expected", "tolerance"], lines)


def growth(figures: Path) -> str:
    """Processor seconds and peak memory of each stage by corpus rows, as benchmarks/growth.py measured them."""
    table = pd.read_csv(figures.parent / "docs" / "growth.csv")
    table["cell"] = [f"{one.seconds:,.1f} s, {one.peak_mb:,.0f} MB" for one in table.itertuples()]
    cells = table.pivot(index="stage", columns="rows", values="cell").fillna("not run")
    rows = [(name, line) for name, *line in cells.reset_index().to_numpy().tolist()]
    return markdown("stage", [f"{count:,} rows" for count in cells], rows)


#: Page -> its blocks.
PAGES: dict[str, dict[str, Callable[[Path], str]]] = {
    "README.md": {"study": study.lead, "summary": summary, "claims": claims, "correlations": correlations},
    "docs/study.md": {"answers": study.answers, "released": study.released, "verdicts": study.verdicts},
    "docs/study-details.md": {
        "captions": captions,
        "trivial": study.trivial,
        "rare": study.rare,
        "models": study.models,
        "curve": study.curve,
        "systems": study.systems,
        "variants": study.variants,
        "rewritten": study.rewritten,
        "errors": study.errors,
        "costs": study.costs,
    },
    "docs/benchmarks.md": {"growth": growth},
    "docs/artifact.md": {"verdicts": verdict_counts, "cells": cells, "coverage": coverage},
}


def render(page: str, text: str, figures: Path) -> str:
    """``text`` of ``page`` with every block made anew; raises ValueError for a block that it lacks."""
    for name, make in PAGES[page].items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        found = pattern.search(text)
        if not found:
            raise ValueError(f"{page} has no block {name}: put <!-- {name} --> and <!-- end --> where it belongs")
        text = text[: found.end(1)] + make(figures) + "\n" + text[found.start(2) :]
    return text


if __name__ == "__main__":
    for page in PAGES:
        path = root() / page
        write_text(path, render(page, path.read_text(encoding="utf-8"), root() / "figures"))
