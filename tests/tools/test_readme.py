"""README.md and pages in docs/ say what the committed result files say, in lines that fit a page."""

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from lmolt_utils.cli import _parser
from lmolt_utils.config.published import load_official, load_published
from lmolt_utils.paths import root
from tools.readme import PAGES, render
from tools.study.prose import told

#: Decimals in the study's prose that are no results: chance, bounds of claims, differences of two trainings.
CHOSEN = (".5", ".05", ".15", ".4")


@pytest.mark.parametrize("page", PAGES)
def test_the_numbers_are_those_of_the_files(page: str) -> None:
    text = (root() / page).read_text(encoding="utf-8")
    assert render(page, text, root() / "figures") == text, "python -m tools.readme"


def test_other_files_give_other_numbers(tmp_path: Path) -> None:
    text = (root() / "README.md").read_text(encoding="utf-8")
    (tmp_path / "seeds").mkdir()
    figures = root() / "figures"
    pd.read_csv(figures / "nli_correlations.csv").assign(spearman=0.15).to_csv(tmp_path / "nli_correlations.csv")
    verdicts = pd.read_csv(figures / "seeds" / "claims.csv").replace("within noise", "holds")
    verdicts.to_csv(tmp_path / "seeds" / "claims.csv")
    (tmp_path / "study").mkdir()
    pd.read_csv(figures / "study" / "scores.csv").assign(value=0.222).to_csv(tmp_path / "study" / "scores.csv")
    changed = render("README.md", text, tmp_path)
    assert "0 are within noise" in changed
    assert "| 0.15 |" in changed
    assert "| CPO, 1.7M parameters | 0.222 |" in changed
    with pytest.raises(ValueError, match="no block study"):
        render("README.md", "# Nothing", tmp_path)


def test_expected_values_lie_within_their_tolerance() -> None:
    rows = [
        line.strip("| ").split(" | ") for line in PAGES["docs/artifact.md"]["cells"](root() / "figures").splitlines()
    ]
    for command, expected, allowed, seeds, _ in rows[2:]:
        assert not seeds or abs(float(expected) - float(seeds)) <= float(allowed.strip("± ")), command
        assert (root() / command.split()[2]).is_file()


def test_readme_lines_fit_and_links_lead_somewhere() -> None:
    lines = (root() / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith(("|", "!"))] == []
    for line in lines:
        for target in (part.split(")")[0] for part in line.split("](")[1:]):
            assert target.startswith("http") or (root() / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists(page: str) -> None:
    """Those in backquotes and in blocks: the parser takes `lmolt`, make has the target, Python the module."""
    text = (root() / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).splitlines() + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    targets = set(re.findall(r"^([a-z-]+):", (root() / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    found = 0
    for command in (part.strip() for line in lines for part in line.split("&&")):
        words = shlex.split(command, comments=True) if command.startswith(("lmolt ", "make ", "python -m ")) else []
        found += bool(words)
        if words[:1] == ["make"]:
            assert set(words[1:2]) <= targets, command
        elif words[:1] == ["python"] and words[2] != "benchmarks.NAME":
            assert find_spec(words[2]) is not None, command
        elif words[:1] == ["lmolt"] and words[1:] != ["why"]:  # whose arguments stand in the sentence
            _parser().parse_args(words[1:])
    assert found


def test_the_cell_for_colab_writes_into_folders_that_a_clone_has_or_it_makes() -> None:
    (cell,) = re.findall(r"```\n(!git clone.*?)```", (root() / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    made = set(re.findall(r"^!mkdir -p (\S+)$", cell, re.MULTILINE))
    runs = re.findall(r"^!papermill \S+ (\S+) (\S+)", cell, re.MULTILINE)
    assert [Path(source).stem for source, _ in runs] == ["01_data", "02_negatives", "04_alignment"]
    assert {str(Path(output).parent) for _, output in runs} <= made, "papermill makes no folder"
    assert all((root() / source).is_file() for source, _ in runs)


def test_every_question_is_answered_by_a_cell_with_an_output() -> None:
    lines = (root() / "README.md").read_text(encoding="utf-8").splitlines()
    questions = [line.strip("| ").split(" | ") for line in lines if "? | [" in line]
    assert len(questions) == 13
    for question, notebook, words in questions:
        copy = root() / notebook.split("](")[1].rstrip(")")
        cells = json.loads(copy.read_text(encoding="utf-8"))["cells"]
        heading = re.compile(rf"^(#+ |\*\*){re.escape(words)}", re.MULTILINE)
        places = [place for place, cell in enumerate(cells) if heading.search("".join(cell["source"]))]
        assert places, question
        section = cells[places[0] + 1 :]
        end = next((place for place, cell in enumerate(section) if "".join(cell["source"]).startswith("#")), None)
        assert any(cell.get("outputs") for cell in section[:end]), question


def test_measured_numbers_in_the_studys_prose_are_those_of_its_files() -> None:
    """Each sentence with a measured number is there as the files give it; any other decimal is a printed one."""
    prose = ""
    for name in ("study", "study-details"):
        text = (root() / "docs" / f"{name}.md").read_text(encoding="utf-8")
        prose += " ".join(re.sub(r"<!-- \w+ -->.*?<!-- end -->", "", text, flags=re.DOTALL).split())
    rest = prose
    for sentence in told(root() / "figures"):
        assert sentence in prose
        rest = rest.replace(sentence, "")
    printed = {value for table in load_published().tables for row in table.rows.values() for value in row if value}
    printed |= {value for tasks in load_official().values() for scores in tasks.values() for value in scores.values()}
    known = {f"{value:.2f}".removeprefix("0") for value in printed if abs(value) < 1} | set(CHOSEN)
    (row,) = (
        pd.read_csv(root() / "figures" / "study" / "captions.csv").query("measure.str.contains('BLEU-2 within')").values
    )
    shown = f"BLEU-2 {row[2]:.2f} between them, real ones {row[1]:.2f}".replace(" 0.", " .")
    assert shown in " ".join((root() / "README.md").read_text(encoding="utf-8").split())
    assert [number for number in re.findall(r"(?<![\w.])\.\d+", rest) if number not in known] == []
