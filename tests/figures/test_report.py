"""The report: whole in one file, honest about what is missing, safe from what captions say; in a browser it works."""

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lmolt_utils.cli import main
from lmolt_utils.figures.report import FIGURES, TABLES, report_path, write_report
from lmolt_utils.files import write_text
from lmolt_utils.run.notebook import Run
from lmolt_utils.run.notebooks import NOTEBOOKS

HOSTILE = '"><script>alert(1)</script><img src="http://example.org/x" onerror=alert(2)>'
#: What a browser is asked after clicking on a heading twice and typing into a filter.
PROBE = """<script>
const table = document.getElementById("table-1-t"), button = table.tHead.rows[0].cells[2].querySelector("button");
const first = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
button.click(); const up = first(); button.click(); const down = first();
const input = document.querySelector("input[data-for=table-1-t]");
input.value = "cpo"; input.dispatchEvent(new Event("input"));
const left = [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[0].textContent);
const facts = { up, down, left, errors, width: innerWidth, needed: document.documentElement.scrollWidth,
  asked: performance.getEntriesByType("resource").map(one => one.name).filter(name => !name.startsWith("data:")) };
parent.postMessage(JSON.stringify(facts), "*");
</script>"""
#: Headless Chromium has no window below 500 pixels; a frame may be as narrow as a phone.
FRAME = """<!DOCTYPE html><iframe style="width: 360px; height: 800px; border: 0" srcdoc="{}"></iframe>
<script>onmessage = event => document.body.replaceChildren("FACTS" + event.data + "END")</script>"""
LISTEN = """<script>const errors = [];
addEventListener("error", event => errors.push(event.message));
addEventListener("securitypolicyviolation", event => errors.push(event.blockedURI));</script>"""


def page(run: Run) -> BeautifulSoup:
    return BeautifulSoup(report_path(run).read_text(encoding="utf-8"), "html.parser")


@pytest.fixture
def hostile(run: Run) -> Run:
    """A run with one table, one figure and one verdict, each of which would like to be HTML."""
    quoted = HOSTILE.replace('"', '""')
    lines = ["table,row,kind,metric,paper,reproduced,to_paper,n,system,low,high,p,note"]
    lines += [f'T2,"{quoted}",value,BLEU-2,0.4,0.5,0.1,9,a,0.4,0.6,0.2,', "T2,CPO,value,BLEU-2,,0.25,,9,cpo,,,,"]
    lines += ["T2,KTO,value,BLEU-2,0.1,not run,,,,,,,", "T2,DPO,value,BLEU-2,0.1,undefined,,9,dpo,,,,"]
    write_text(run.figures / "table_T2.csv", "\n".join(lines) + "\n")
    write_text(run.figures / "table_T2.md", f"**Table T2.** {HOSTILE}\n\n| a |\n\nA note.\n")
    claim = f'C1,"{quoted}",here,holds,"{quoted}",99%,'
    write_text(run.figures / "claims.csv", f"id,claim,source,verdict,evidence,draws,seeds\n{claim}\n")
    told = PngInfo()
    told.add_text("Description", HOSTILE)
    Image.new("RGB", (2000, 20)).save(run.figures / "overview.png", pnginfo=told)
    (run.figures / "distributions.png").write_bytes(b"no picture")
    return run


def test_nothing_is_loaded_and_nothing_escapes(hostile: Run) -> None:
    write_report(hostile)
    found = page(hostile)
    assert [tag.name for tag in found.find_all(["script", "link", "iframe", "object", "base"])] == ["script"]
    assert not [name for tag in found.find_all(True) for name in tag.attrs if name.startswith("on")]
    (image,) = found.find_all("img")
    assert (str(image["src"])[:22], image["alt"]) == ("data:image/png;base64,", HOSTILE)
    for link in found.find_all("a"):
        assert re.match(r"#|(\.\./)*[-A-Za-z0-9_./]+$", str(link["href"])), link
    assert found.text.count(HOSTILE) >= 5, "shown as it is: row, caption, figure, claim, evidence"


def test_what_is_missing_is_named(hostile: Run) -> None:
    write_text(hostile.path("scores", "cpo.mol2cap.json.record.json"), '{"step": "score cpo')
    missing = write_report(hostile)
    assert "scores/cpo.mol2cap.json.record.json (damaged)" in missing
    assert {f"Table {name} (table_{name}.csv)" for name in TABLES if name != "T2"} <= set(missing)
    assert {f"figure {name} (missing)" for name in FIGURES[2:]} | {"figure distributions (damaged)"} <= set(missing)
    assert "run of notebook 01_data" in missing
    text = page(hostile).text
    assert "This report is not complete." in text
    assert all(part in text for part in missing)
    assert "not run (0.1)" in text
    assert "undefined (0.1)" in text
    assert "0.500 ± 0.100≈ (0.4; +0.100)" in text


OLD = (
    "table,row,kind,metric,paper,reproduced,n,system,low,high,p,note\nT3,CPO,value,MACCS,0.77,0.5,9,cpo,0.4,0.6,0.2,\n"
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Table T3 (table_T3.csv: damaged)"),
        ("\xff\xfe\0", "Table T3 (table_T3.csv: damaged)"),
        ("a,b\n1,2\n", "Table T3 (table_T3.csv: damaged)"),
        (OLD.split("\n")[0] + "\n", "Table T3 (table_T3.csv: no rows)"),
        (OLD.replace(",9,", ",many,").replace("0.2,\n", "small,\n"), "0.500 ± 0.100 (0.77; -0.270)"),
        (OLD.replace("0.5,", "nan,"), "nan ± 0.100≈ (0.77)"),
        (OLD, "0.500 ± 0.100≈ (0.77; -0.270)"),
    ],
)
def test_a_page_is_made_of_tables_in_any_state(hostile: Run, text: str, told: str) -> None:
    """Damaged, without rows, with words for numbers, or written by code that knew no column ``to_paper``."""
    (hostile.figures / "table_T3.csv").write_bytes(text.encode("latin-1", "replace"))
    (hostile.figures / "table_T2.md").write_bytes(b"\xff\xfe")
    (hostile.figures / "claims.csv").write_text("", encoding="utf-8")
    (hostile.figures / "overview.png").write_bytes((hostile.figures / "overview.png").read_bytes()[:50])
    missing = write_report(hostile)
    assert "figure overview (damaged)" in missing
    assert any("claims.csv is no table of verdicts" in one for one in missing)
    assert told in page(hostile).text


def test_an_edited_table_is_named(hostile: Run) -> None:
    for notebook in NOTEBOOKS:
        Run(notebook, hostile.folder, hostile.params, written=[hostile.figures / "table_T2.csv"]).finish()
    edited = "figures/table_T2.csv (missing or changed)"
    assert edited not in write_report(hostile, finished=True)
    write_text(hostile.figures / "table_T2.csv", (hostile.figures / "table_T2.csv").read_text().replace("0.25", "0.75"))
    assert edited in write_report(hostile, finished=True)


def test_an_empty_run_has_a_page_too(run: Run) -> None:
    assert "verdicts of this run (claims.csv)" in write_report(run)
    assert "No step has a record here." in page(run).text


def test_a_profile_that_never_ran_has_none(capsys: pytest.CaptureFixture[str], runs: Path) -> None:
    assert main(["report", "--profile", "gpu"]) == 2
    assert "profile gpu has no scores yet: make reproduce PROFILE=gpu" in capsys.readouterr().err


@pytest.mark.slow
def test_it_works_in_a_browser_as_wide_as_a_phone(hostile: Run, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on the PATH (Debian: apt-get install chromium)")
    write_report(hostile)
    text = report_path(hostile).read_text(encoding="utf-8")
    probed = text.replace("<style>", LISTEN + "<style>", 1).replace("</body>", PROBE + "</body>")
    write_text(tmp_path / "page.html", FRAME.format(escape(probed)))
    options = ["headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", f"user-data-dir={tmp_path / 'user'}"]
    options += ["virtual-time-budget=5000", "dump-dom"]
    command = [browser, *(f"--{option}" for option in options), (tmp_path / "page.html").as_uri()]
    told = subprocess.run(command, capture_output=True, text=True, timeout=170, check=True).stdout
    facts = json.loads(re.findall("FACTS(.*)END", BeautifulSoup(told, "html.parser").text)[0])
    assert facts["errors"] == facts["asked"] == []
    assert facts["width"] == 360
    assert facts["needed"] <= 360
    assert facts["up"] == ["CPO", HOSTILE, "KTO", "DPO"], "numbers in order, then words"
    assert facts["down"] == [HOSTILE, "CPO", "DPO", "KTO"]
    assert facts["left"] == ["CPO"]
