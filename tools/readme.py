"""The numbers of README.md and docs/study.md, written from result files: ``python -m tools.readme`` (a test compares).

Each block stands between ``<!-- NAME -->`` and ``<!-- end -->``.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from lmolt_utils.files import write_text
from lmolt_utils.paths import root
from tools.study.page import errors, models, rare, trivial


def claims(figures: Path) -> str:
    """What the papers claim and what the default profile shows, with three training seeds where systems are trained."""
    table = pd.read_csv(figures / "seeds" / "claims.csv", dtype=str)
    lines = ["| | claim | stated in | verdict |", "|---|---|---|---|"]
    stated = table[(table["verdict"] != "not decidable") & ~table["source"].str.startswith("control")]
    for row in stated.itertuples(index=False):
        lines.append(f"| {row.id} | {row.claim} | {row.source} | {row.verdict} |")
    return "\n".join(lines)


def summary(figures: Path) -> str:
    """How many of the claims hold, in one sentence."""
    verdicts = pd.read_csv(figures / "seeds" / "claims.csv", dtype=str)["verdict"]
    count = {name: int((verdicts == name).sum()) for name in ("holds", "does not hold", "within noise")}
    return (
        f"Of {sum(count.values())} claims and controls that this small scale can decide, {count['holds']} hold, "
        f"{count['does not hold']} do not\nhold, and {count['within noise']} are within noise, "
        "with three training seeds: [RESULTS.md](RESULTS.md)."
    )


def correlations(figures: Path) -> str:
    """How far each NLI method's scores follow the known property sets."""
    table = pd.read_csv(figures / "nli_correlations.csv")
    wanted = {
        "coverage": "coverage and recall",
        "hallucination": "Eq. 6 and invented",
        "unsupported": "unsupported and invented",
    }
    lines = [f"| Spearman correlation | {' | '.join(wanted.values())} |", f"|---|{'---|' * len(wanted)}"]
    for method, rows in table.groupby("method", sort=False):
        cells = rows.set_index("quantity")["spearman"]
        lines.append(f"| {method} | {' | '.join(f'{cells[name]:.2f}' for name in wanted)} |")
    return "\n".join(lines)


def captions(figures: Path) -> str:
    """Composed captions beside real ones."""
    table = pd.read_csv(figures / "study" / "captions.csv")
    lines = ["| measure | real | composed (± over repeats) |", "|---|---|---|"]
    for measure, *numbers in table.to_numpy().tolist():
        real, composed, spread = map(float, numbers)
        digits = 3 if real < 1 else 1
        cell = "" if math.isnan(composed) else f"{composed:.{digits}f} ± {spread:.{digits}f}"
        lines.append(f"| {measure} | {real:.{digits}f} | {cell} |")
    return "\n".join(lines)


#: Page -> its blocks.
PAGES: dict[str, dict[str, Callable[[Path], str]]] = {
    "README.md": {"summary": summary, "claims": claims, "correlations": correlations},
    "docs/study.md": {
        "captions": captions,
        "trivial": trivial,
        "rare": rare,
        "models": models,
        "errors": errors,
    },
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
