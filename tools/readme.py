"""The numbers of README.md, written from result files: ``python -m tools.readme`` (a test compares).

Each block stands between ``<!-- NAME -->`` and ``<!-- end -->``.
"""

import re
from pathlib import Path

import pandas as pd

from lmolt_utils.files import write_text
from lmolt_utils.paths import root


def effects(figures: Path) -> str:
    """What the papers claim and what the default profile shows, with three training seeds where systems are trained."""
    table = pd.read_csv(figures / "seeds" / "effects.csv")
    lines = ["| effect | stated in | here | seen |", "|---|---|---|---|"]
    for row in table.itertuples(index=False):
        lines.append(f"| {row.effect} | {row.source} | {row.here} | {row.seen} |")
    return "\n".join(lines)


def summary(figures: Path) -> str:
    """How many of the effects are seen, in one sentence."""
    seen = pd.read_csv(figures / "seeds" / "effects.csv")["seen"].str.split().str[0]
    yes, no, undecided = ((seen == word).sum() for word in ("yes", "no", "undecided"))
    return (
        f"Of {len(seen)} effects looked for at this small scale, {yes} are seen, {no} are not, and {undecided} are "
        "undecided with three training seeds."
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


BLOCKS = {"summary": summary, "effects": effects, "correlations": correlations}


def render(text: str, figures: Path) -> str:
    """``text`` with every block made anew; raises ValueError for a block that the text lacks."""
    for name, make in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        found = pattern.search(text)
        if not found:
            raise ValueError(f"README.md has no block {name}: put <!-- {name} --> and <!-- end --> where it belongs")
        text = text[: found.end(1)] + make(figures) + "\n" + text[found.start(2) :]
    return text


if __name__ == "__main__":
    path = root() / "README.md"
    write_text(path, render(path.read_text(encoding="utf-8"), root() / "figures"))
