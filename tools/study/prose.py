"""The measured numbers in the prose of the study's two pages, from its committed files: a test compares."""

from pathlib import Path

import pandas as pd

from tools.study.page import all_runs


def _short(value: float) -> str:
    """A score as prose has it: .63."""
    return f"{value:.2f}".removeprefix("0")


def told(figures: Path) -> list[str]:
    """Every sentence, or part of one, of the two pages that has a measured number outside the tables."""
    both, study = all_runs(figures), figures / "study"

    def scores(variant: str) -> pd.Series:
        rows = both[both["variant"] == variant].drop_duplicates(["system", "metric"])
        return rows.set_index(["system", "metric"])["value"].map(_short)

    main, anew, asked = scores(""), scores("corrected"), scores("prompts")
    released, spaced, uncut = (scores(f"released{name}") for name in ("", "-white-space", "-uncleaned"))
    both["training"] = both["system"].str.partition("@seed")[2].str.cat(both["variant"].eq("").map(str))
    both["system"] = both["system"].str.split("@seed").str[0]
    again = both[both["variant"].isin(("", "corrected", "seeds"))]

    def fcd(variant: str, system: str) -> float:
        rows = both[(both["variant"] == variant) & (both["system"] == system) & (both["metric"] == "FCD")]
        return float(rows["value"].iloc[0])

    def between(system: str, metric: str) -> str:
        values = again.loc[(again["system"] == system) & (again["metric"] == metric), "value"]
        return f"{_short(values.min())} to {_short(values.max())}"

    def lead(better: str, worse: str) -> str:
        scores = again[again["metric"] == "BLEU-2"].pivot_table(index="training", columns="system", values="value")
        ahead = (scores[better] - scores[worse]).dropna()
        return f"{_short(ahead.min())} to {_short(ahead.max())}".replace("-0.00", ".00").replace("-0.", "−.")

    rows = pd.concat(
        [pd.read_csv(study / "baselines.csv").query("sample_share == 0.1"), pd.read_csv(study / "rare.csv")]
    )
    share = rows.set_index(["test_set", "rows", "system", "metric"])["value"]

    def known(view: tuple[str, str], metric: str) -> tuple[str, str]:
        return _short(share[(*view, "cpo", metric)]), _short(share[(*view, "nearest-neighbour", metric)])

    everywhere, seldom = ("extra_valid", "all"), ("extra_valid", "rare sets")
    f1, exact, rare_f1 = (
        known(everywhere, "property F1"),
        known(everywhere, "exact property set"),
        known(seldom, "property F1"),
    )
    sets = {name: _short(share[(*everywhere, name, "exact property set")]) for name in ("sft", "sft.no-eos")}
    real = pd.read_csv(study / "captions.csv").set_index("measure")
    nearest = next(name for name in real.index if name.startswith("BLEU-2 of the nearest"))
    wrong = pd.read_csv(study / "injected_errors.csv").set_index(["error", "method", "quantity"])["auc"]
    invented = wrong["added", "full text", "hallucination"]
    learned = pd.read_csv(study / "curve.csv").set_index(["system", "metric"])["value"].map(_short)
    tenth, once, full = (
        (learned[name, "BLEU-2"], learned[name, "property F1"]) for name in ("mol2cap@0.1x10", "mol2cap@1x1", "mol2cap")
    )
    rates = pd.read_csv(study / "rates.csv")
    tried = rates.set_index(["system", "metric", "learning_rate"])["value"].map(_short)
    ahead = {name: [str(tried[name, "BLEU-2", rate]) for rate in (8e-3, 4e-3)] for name in ("sft", "cpo")}
    hours = [pd.read_csv(study / f"{name}.csv")["seconds"].sum() / 3600 for name in ("training", "variants_training")]
    memory = (
        max(pd.read_csv(study / f"{name}.csv")["peak_mb"].max() for name in ("training", "variants_training")) / 1000
    )
    return [
        f"CPO's captions have a property F1 of {f1[0]} and the exact set in {exact[0]} of the rows, where the nearest "
        f"neighbour has {f1[1]} and {exact[1]}; on rare sets its F1 is {rare_f1[0]} to the neighbour's {rare_f1[1]}",
        f"three times the steps bring BLEU-2 {full[0]} and property F1 {full[1]}, where one epoch of all has "
        f"{once[0]} and {once[1]}",
        f"a tenth of the molecules captions better ({tenth[0]}, {tenth[1]}), with the exact property set in "
        f"{learned['mol2cap@0.1x10', 'exact property set']} of the rows to "
        f"{learned['mol2cap@1x1', 'exact property set']}",
        f"the caption of the nearest other row has a BLEU-2 of {_short(real.loc[nearest, 'real'])}",
        f"{100 * share[(*everywhere, 'constant', 'exact property set')]:.0f} % of the test molecules have the same "
        "property set",
        f"whole property sets right ({exact[0]} of the rows to SFT's {sets['sft']})",
        f"whole property sets are right ({sets['sft.no-eos']} of the rows to {sets['sft']})",
        f"the better score with full texts ({_short(invented)})",
        f"CPO without it hardly does (BLEU-2 {main['cpo-no-nll', 'BLEU-2']})",
        f"which without that term hardly does (BLEU-2 {main['cpo-no-nll', 'BLEU-2']}; first models)",
        "(BLEU-2 {}, {}, {} and {} at 1:18, 1:3, 1:1 and 19:1, one training each)".format(
            *(main[f"slerp{part}+cpo", "BLEU-2"] for part in ("", "@0.25", "@0.5", "@0.95"))
        ),
        f"KTO's captions have a BLEU-2 of {main['kto', 'BLEU-2']}",
        f"(validity {main['kto', 'Validity']} of {main['init', 'Validity']}, "
        f"MACCS {main['kto', 'MACCS']} of {main['init', 'MACCS']})",
        f"(BLEU-2 {main['ties+cpo', 'BLEU-2']} to CPO's {main['cpo', 'BLEU-2']})",
        f"a BLEU-2 of {main['ties', 'BLEU-2']} and a validity of {main['ties', 'Validity']}",
        f"BLEU-2 came out at {between('sft', 'BLEU-2')} for SFT, {between('cpo', 'BLEU-2')} for CPO and "
        f"{between('slerp+cpo', 'BLEU-2')} for SLERP+CPO, validity at {between('sft', 'Validity')}, "
        f"{between('cpo', 'Validity')} and {between('slerp+cpo', 'Validity')}, DPO's at {between('dpo', 'Validity')}",
        f"CPO is ahead of SFT by {lead('cpo', 'sft')} in BLEU-2, SLERP+CPO of CPO by {lead('slerp+cpo', 'cpo')}",
        f"{uncut['sft', 'Validity']} of its molecules are valid, with a BLEU of {uncut['sft', 'BLEU']}",
        f"Released CPO has a BLEU-2 of {released['cpo', 'BLEU-2']}",
        f"BLEU-2 falls from {released['cpo', 'BLEU-2']} to {spaced['cpo', 'BLEU-2']}, MACCS from "
        f"{released['cpo', 'MACCS']} to {spaced['cpo', 'MACCS']}",
        f"BLEU-2 falls from {anew['sft', 'BLEU-2']} to {anew['sft.no-eos', 'BLEU-2']}, METEOR from "
        f"{anew['sft', 'METEOR']} to {anew['sft.no-eos', 'METEOR']}, BLEU of molecules from {anew['sft', 'BLEU']} to "
        f"{anew['sft.no-eos', 'BLEU']}",
        f"Meditron's BLEU-2 goes from {asked['meditron', 'BLEU-2']} to {asked['meditron.test-prompt', 'BLEU-2']} and "
        f"its MACCS from {asked['meditron', 'MACCS']} to {asked['meditron.test-prompt', 'MACCS']}, CPO's from "
        f"{asked['cpo', 'BLEU-2']} to {asked['cpo.test-prompt', 'BLEU-2']} and from {asked['cpo', 'MACCS']} to "
        f"{asked['cpo.test-prompt', 'MACCS']}",
        f"On {rates['n'].max()} that no test set holds",
        f"(BLEU-2 {' to '.join(ahead['sft'])} for SFT, {' to '.join(ahead['cpo'])} for CPO;",
        f"{hours[0]:.1f} hours of one core, those of the models trained anew {hours[1]:.1f}",
        f"at most {memory:.1f} GB of memory",
        f"the DPO of the lower rate (FCD {fcd('lower-rate', 'dpo'):.1f} to CPO's {fcd('', 'cpo'):.1f})",
    ]
