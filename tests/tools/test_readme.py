"""README.md says what the committed result files say, in lines that fit a page."""

from pathlib import Path

import pytest

from lmolt_utils.paths import root
from tools.readme import render


def test_readme_numbers_are_those_of_the_files(tmp_path: Path) -> None:
    text = (root() / "README.md").read_text(encoding="utf-8")
    assert render(text, root() / "figures") == text, "python -m tools.readme"
    other = tmp_path / "figures"
    (other / "seeds").mkdir(parents=True)
    for name in ("nli_correlations.csv", "seeds/claims.csv"):
        content = (root() / "figures" / name).read_text(encoding="utf-8")
        (other / name).write_text(content.replace("cpo 0.4", "cpo 0.9").replace(",0.95", ",0.15"), encoding="utf-8")
    changed = render(text, other)
    assert "cpo 0.9" in changed
    assert "| 0.15 |" in changed
    with pytest.raises(ValueError, match="no block summary"):
        render("# Nothing", other)


def test_readme_lines_fit_and_links_lead_somewhere() -> None:
    lines = (root() / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith(("|", "!"))] == []
    for line in lines:
        for target in (part.split(")")[0] for part in line.split("](")[1:]):
            assert target.startswith("http") or (root() / target).exists(), target
