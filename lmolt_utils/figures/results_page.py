"""``RESULTS.md``: the ledger of the papers' claims as a page, the profiles side by side."""

from collections.abc import Mapping, Sequence

import pandas as pd

from lmolt_utils.config.params import load
from lmolt_utils.config.published import METRICS, load_published
from lmolt_utils.config.systems import load_systems
from lmolt_utils.figures.claims import AUTHORS, DELTAS, NLI, Claim, counts, load_claims, read_verdicts, sure
from lmolt_utils.files import write_text
from lmolt_utils.paths import figures_folder, root
from lmolt_utils.run.notebook import Run

_HEAD = """# Results: what holds of the papers' claims

Every claim is a rule over result files ([params/claims.yaml](params/claims.yaml)); `lmolt claims` decides them again.
*control* is not a claim of the papers but what decides how to read one; [docs/audit.md](docs/audit.md) says where the
papers and their code disagree.
A claim **holds**, **does not hold**, is **within noise** (more than 2.5 % of 1,000 draws of other test rows, and of
other seeds where a system was trained with several, say otherwise), **not decidable** (by no run, or not by this one:
the evidence says why) or **not run** (a system or file that it needs is not there). A number is followed by the
standard deviation over training seeds (±), where there are several, and by the 95 % interval over the draws, in square
brackets. A verdict says what is so in these runs, with these models (Meditron: the stand-ins for it, trained for one
task each). L4M is Less for More, FMix Feedback-aligned Mixed LLMs:

{profiles}

"""


#: Whose verdicts the page shows, where 08 has written them.
PROFILES = ("study", "seeds", "cpu")


def write_results(run: Run) -> None:
    """``RESULTS.md`` beside README, from the verdicts of every profile that has some; only for tracked figures."""
    if run.figures.is_relative_to(root() / "figures"):
        write_text(root() / "RESULTS.md", page(ledgers()))


def ledgers() -> dict[str, tuple[str, pd.DataFrame]]:
    """The verdicts of every profile that has some: profile -> (what it is, its claims.csv)."""
    tables = {}
    for profile in PROFILES:
        params = root() / "params" / f"{profile}.yaml"
        path = figures_folder(root() / "runs" / profile, load(profile).figures_dir) / "claims.csv"
        if path.exists():
            what = params.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").rstrip(".")
            tables[profile] = what, read_verdicts(path)
    return tables


def page(tables: Mapping[str, tuple[str, pd.DataFrame]]) -> str:
    """``RESULTS.md``: the ledger with a column of verdicts per profile, then the numbers behind each verdict.

    tables: profile -> (what it is, its verdicts).
    """
    profiles = [
        f"- **{name}**: {what} ({', '.join(f'{verdict}: {count}' for verdict, count in counts(table).items())})."
        + (f" Made by older code, and kept: {table['older_code'].iloc[0]}." if "older_code" in table else "")
        for name, (what, table) in tables.items()
    ]
    by_id = {name: table.set_index("id").to_dict("index") for name, (_, table) in tables.items()}
    ledger = [
        {"": f"[{one.id}](#{one.id.lower()})", "claim": one.claim, "source": one.source}
        | {name: f"**{found[one.id]['verdict']}**" if one.id in found else "–" for name, found in by_id.items()}
        for one in load_claims()
    ]
    numbers = []
    for one in load_claims():
        numbers += [f"### {one.id}", "", f"{one.claim} ({one.source})", ""]
        numbers += [f"> {one.says}", ""] if one.says else []
        for name, found in by_id.items():
            if line := found.get(one.id):
                numbers.append(f"- {name}: **{line['verdict']}**. {line['evidence']}{sure(line)}.")
        numbers += ["", *([f"See {', '.join(links)}.", ""] if (links := _places(one, list(tables))) else [])]
    table = pd.DataFrame(ledger).to_markdown(index=False)
    return _HEAD.format(profiles="\n".join(profiles)) + table + "\n\n## The numbers\n\n" + "\n".join(numbers)


def _places(claim: Claim, profiles: Sequence[str]) -> list[str]:
    """Links to the tables and figures of what a claim rests on, in each profile that has its own, and to the executed
    notebooks that made it; only to what is there."""
    systems = {one.name: one for one in load_systems()}
    shows, made = list[str](), set[str]()
    for one in claim.all:
        named = [systems[name] for name in (one.of, one.minus) if name in systems]
        if one.metric == "KL":
            shows.append(f"nli_divergence_{('all', 'long', 'extreme')[one.cut]}.png")
        elif one.metric in NLI:
            shows.append("nli_distributions.png" if one.method == "atomic" else "nli_divergence_all.png")
        elif one.metric == "length_deviation":
            shows.append("distributions.png")
        elif one.metric == DELTAS:
            shows.append(f"table_{one.of}.md")
        elif one.metric.startswith(AUTHORS):
            shows.append("almol_distributions.png")
        elif one.metric in METRICS:
            for system in named:
                held = [table for table in system.rows if one.metric in load_published().table(table).metrics]
                ablation = "merge_comparison.png" if system.init == "soup" else "ratio_sweep.png"
                shows.append(f"table_{held[0]}.md" if held else ablation)
        made |= {system.notebook for system in named}
        made |= {"07_nli_evaluation"} if one.metric == "KL" or one.metric in NLI else set()
    places = [figures_folder(root() / "runs" / name, load(name).figures_dir) for name in profiles]
    files = [folder / name for name in dict.fromkeys(shows) for folder in places]
    files += [root() / "figures" / "notebooks" / f"{name}.ipynb" for name in (*sorted(made), "08_figures") if claim.all]
    names = [path.relative_to(root()).as_posix() for path in dict.fromkeys(files) if path.exists()]
    return [f"[{name.removeprefix('figures/')}]({name})" for name in names]
