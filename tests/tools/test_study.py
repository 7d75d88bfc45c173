"""What the study keeps decides its claims again; what it is given is read before it is taken."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmolt_utils.config.params import load
from lmolt_utils.config.systems import load_systems
from lmolt_utils.errors import CompanionError
from lmolt_utils.figures.claims import DRAWS, Claim, Condition, Number, judge
from lmolt_utils.run.notebook import Run
from tools.study import __main__ as study
from tools.study.report import Kept, differing, read_numbers, untold, write_numbers


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


def test_a_changed_or_missing_line_is_named() -> None:
    now = pd.DataFrame({"id": ["C1", "C2"], "verdict": ["holds", "holds"], "evidence": ["BLEU-2: CPO 0.6", ""]})
    assert differing(now, now) == []
    committed = now[:1].assign(evidence="BLEU-2: CPO 0.9")
    assert differing(committed, now) == ["C2: not in claims.csv", "C1, evidence: BLEU-2: CPO 0.9 -> BLEU-2: CPO 0.6"]
    assert differing(now, now[:1]) == ["C2: no such claim"]


def test_a_score_that_is_not_the_number_is_named() -> None:
    numbers: dict[tuple[object, ...], Number | None] = {
        ("cpo", "BLEU-2", None, "atomic", 0): Number(0.6340774, 1, None),
        ("cpo", "coverage", None, "atomic", 0): Number(0.5, 1, None),
        ("kto", "BLEU-2", None, "atomic", 0): None,
    }
    scores = pd.DataFrame({"system": ["cpo", "kto"], "metric": ["BLEU-2", "BLEU-2"], "value": [0.634077, 0.1]})
    assert untold(numbers, scores) == []
    assert untold(numbers, scores.assign(value=0.999)) == [
        "BLEU-2 of cpo: 0.999 in scores.csv, 0.634077 in numbers.npz"
    ]


def test_what_is_given_is_read_before_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, other, words = tmp_path / "release.zip", tmp_path / "other.zip", tmp_path / "words.txt"
    for path, name in ((release, "nested_props.json"), (other, "more.json")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, '{"Biomedical": ["nutrient"]}')
    words.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n")
    monkeypatch.setattr(study, "root", lambda: tmp_path)
    kept = tmp_path / "runs" / "lpm24" / "additional_data.zip"

    def take(data: Path | str, scibert: Path | str) -> None:
        monkeypatch.setenv("DATA", str(data))
        monkeypatch.setenv("SCIBERT", str(scibert))
        study.take_files()

    for data, told in (("", "DATA: no file"), (tmp_path / "none.zip", "DATA: no file"), (other, "no zip that holds")):
        with pytest.raises(CompanionError, match=told):
            take(data, words)
        assert not kept.exists()
    with pytest.raises(CompanionError, match="SCIBERT: no file"):
        take(release, "")
    take("", words)  # the release is in place by now
    for wrong in (other, words):
        with pytest.raises(CompanionError, match="no zip that holds"):
            take(wrong, "")
    with pytest.raises(CompanionError, match=r"SCIBERT: .*no BERT vocab"):
        take("", other)
    take(release, "")
    assert kept.read_bytes() == release.read_bytes()
    assert (kept.parent / "vocab.txt").read_bytes() == words.read_bytes()
