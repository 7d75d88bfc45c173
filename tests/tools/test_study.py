"""What the study keeps decides its claims again."""

from pathlib import Path

import numpy as np
import pytest

from lmolt_utils.config.params import load
from lmolt_utils.config.systems import load_systems
from lmolt_utils.figures.claims import DRAWS, Claim, Condition, Number, judge
from lmolt_utils.run.notebook import Run
from tools.study.report import Kept, read_numbers, write_numbers


def test_kept_numbers_give_the_same_verdict(tmp_path: Path) -> None:
    """A third of the draws of one number is beyond the bound; the other has no draws, and a third one was not run."""
    draws = np.where(np.arange(DRAWS) < DRAWS / 3, 0.4, 0.6)
    numbers: dict[tuple[object, ...], Number | None] = {
        ("cpo", "BLEU-2", None, "atomic", 0): Number(0.55, 3, draws, 0.01),
        ("cpo", "FCD", "cap2mol", "atomic", 0): Number(7.0, 1, None),
        ("kto", "BLEU-2", None, "atomic", 0): None,
    }
    write_numbers(tmp_path / "numbers.npz", numbers)
    kept = Kept(Run("08_figures", tmp_path, load("smoke")), load_systems(), kept=read_numbers(tmp_path / "numbers.npz"))

    def line(**condition: object) -> dict[str, str]:
        return judge(Claim(id="X", claim="x", source="x", all=[Condition.model_validate(condition)]), kept)

    first = line(of="cpo", metric="BLEU-2", above=0.5)
    assert (first["verdict"], first["seeds"]) == ("within noise", "CPO 3")
    assert float(first["draws"].rstrip("%")) == pytest.approx(67, abs=1)
    assert line(of="cpo", metric="FCD", task="cap2mol", below=8)["verdict"] == "holds"
    assert line(of="kto", metric="BLEU-2", below=0.05)["verdict"] == "not run"
