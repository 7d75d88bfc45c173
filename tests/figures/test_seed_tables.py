"""The table of the spread over training seeds, from score files."""

from pathlib import Path

import pandas as pd

from lmolt_utils.config.params import load
from lmolt_utils.config.systems import System, load_systems, replicas
from lmolt_utils.figures.seed_tables import write_seed_table
from lmolt_utils.files import write_json
from lmolt_utils.metrics.captions import CAPTION_METRICS
from lmolt_utils.run.notebook import Run


def scored(runs: Path, seeds: list[int]) -> tuple[Run, list[System]]:
    """CPO has three seeds on captions, the last without METEOR, and one on molecules; KTO has none."""
    run = Run("08_figures", runs / "smoke", load("smoke", {"seeds": seeds}))
    for seed, value in ((0, 0.5), (1, 0.6), (2, 0.7)):
        metrics = dict.fromkeys(CAPTION_METRICS, value) | ({"METEOR": None} if seed == 2 else {})
        name = f"cpo@seed{seed}" if seed else "cpo"
        write_json(run.path("scores", f"{name}.mol2cap.json"), {"n": 200, "metrics": metrics})
    shown = ("BLEU", "Levenshtein", "MACCS", "RDK", "Morgan", "FCD", "Validity")
    write_json(run.path("scores", "cpo.cap2mol.json"), {"n": 200, "metrics": dict.fromkeys(shown, 0.25)})
    rows = [system for system in load_systems() if system.name in ("meditron", "cpo", "kto")]
    return run, replicas(rows, run.params)


def test_the_seed_table_says_how_many_seeds_and_which_spread(runs: Path) -> None:
    run, systems = scored(runs, [0, 1, 2])
    shown = str(write_seed_table(run, systems).data).splitlines()
    captions, molecules = (line for line in shown if line.startswith("| CPO "))
    assert "0.600 ± 0.100 |" in captions  # sample standard deviation of 0.5, 0.6, 0.7
    assert "0.550 ± 0.071 (2)" in captions, "METEOR has two values"
    assert "±" not in molecules
    assert molecules.count("(1)") == 7
    assert [line.count("not run") for line in shown if line.startswith("| KTO ")] == [6, 7]
    assert not [line for line in shown if line.startswith("| Meditron ") or "seed1" in line]
    assert "half a 95 % interval over test rows at seed 0" in shown[0]
    assert "training seeds 0, 1, 2" in shown[0]
    assert [path.name for path in run.written] == ["seed_spread.csv", "seed_spread.md"]
    written = pd.read_csv(run.written[0]).set_index(["system", "metric"])
    assert tuple(written.loc[("cpo", "ROUGE-1"), ["mean", "spread", "seeds", "wanted"]]) == ("0.6", 0.1, 3, 3)
    assert written.loc[("kto", "BLEU-2"), "mean"] == "not run"


def test_one_seed_leaves_the_spread_unknown(runs: Path) -> None:
    run, systems = scored(runs, [0])
    shown = str(write_seed_table(run, systems).data)
    assert "One seed (0): the spread is not known" in shown
    assert "±" not in shown
    assert len(run.written[0].read_text().splitlines()) == 1
