"""`lmolt plan` and `lmolt check`: by hand, with files that are here and are not, and a hub that does not answer."""

import math
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

from lmolt_utils.cli import main
from lmolt_utils.config.params import ParameterError, load
from lmolt_utils.errors import CompanionError, TryAgainError
from lmolt_utils.paths import root
from lmolt_utils.run import hub, plan
from lmolt_utils.run.execute import take_gpu
from lmolt_utils.run.notebook import start
from lmolt_utils.run.steps import step

WRITER = "negatives_mol2cap_model"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Path) -> Iterator[Path]:
    """An empty hub cache, and a hub of which nothing is known yet."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub.answers.cache_clear()
    yield tmp_path / "hub"
    hub.answers.cache_clear()


def test_the_papers_plan_by_hand_without_network_and_torch(runs: Path) -> None:
    script = "import socket, sys; socket.getaddrinfo = None; from lmolt_utils.cli import main\n"
    script += "code = main(['plan', '--profile', 'paper']); sys.exit(9 if 'torch' in sys.modules else code)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "needs a CUDA device and there is none here" in done.stderr
    assert "meta-llama/Meta-Llama-3-8B-Instruct: its owner must agree first" in done.stderr
    lines = done.stdout.splitlines()
    assert "   25.1  mol2cap_model = language-plus-molecules/Meditron7b-smiles2caption-LPM24: to download" in lines
    assert "  < 0.1  test_corpus = language-plus-molecules/LPM-24_train-extra: to download" in lines
    # CPO: 25,372 pairs of 329 tokens, three times; 6,000 answers in batches of 32, 150 tokens each
    cpo = (25_372 * 3 * 329 / 2341 + 6000 / 32 * 150 * 0.07) / 3600
    (line,) = [line.split() for line in lines if line.startswith("04_alignment      cpo ")]
    assert line == ["04_alignment", "cpo", "0.6", "17.8", f"{cpo:.1f}", "0", "of", "3", "steps"]
    assert any(line.startswith("still to come: 100 GiB of downloads, 162 GiB of models") for line in lines)


def test_a_faster_gpu_takes_less_and_what_is_done_nothing(runs: Path) -> None:
    params = load("paper")
    wanted = list(plan.needed(params))

    def cpo(rate: float) -> plan.Row:
        return next(row for row in plan.rows(params, wanted, rate) if row.name == "cpo")

    slow, fast = cpo(1000.0), cpo(2000.0)
    assert slow.hours
    assert fast.hours
    assert slow.hours - fast.hours == pytest.approx(25_372 * 3 * 329 / 2000 / 3600)
    for name, file in (("train cpo", "models/cpo"), ("predict cpo mol2cap", "predictions/cpo.mol2cap.jsonl")):
        output = runs / "paper" / file
        step(name, lambda _, output=output: output.write_text("x"), outputs=[output], params={})
    assert cpo(1000.0).done == "2 of 3 steps"
    output = runs / "paper" / "predictions" / "cpo.cap2mol.jsonl"
    step("predict cpo cap2mol", lambda _: output.write_text("x"), outputs=[output], params={})
    assert (cpo(1000.0).hours, cpo(1000.0).disk, cpo(1000.0).done) == (0.0, 0.0, "in 0.0 min")


def test_what_is_here_counts_by_its_files(cache: Path, tmp_path: Path) -> None:
    folder, cached = tmp_path / "own", cache / "models--org--name" / "snapshots" / ("a" * 40)
    for place in (folder, cached):
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(bytes(2**20))
    params = load("paper", {"nli_model": str(folder), "base_model": "org/name", "negatives": "shuffled"})
    found = {one.parameter: one for one in plan.needed(params)}
    assert (found["nli_model"].place, found["nli_model"].gib) == ("local", 2**-10)
    assert (found["base_model"].place, found["base_model"].gib) == ("hub's cache", 2**-10)
    assert found["cap2mol_model"].missing
    assert "negatives_mol2cap_model" not in found
    assert {one.parameter for one in plan.needed(params, "05_merging")} == {
        "base_model", "cap2mol_model", "mol2cap_model"
    }  # fmt: skip
    for kept_as, file in (("datasets--org--data", "train.csv"), ("models--org--words", "vocab.txt")):
        place = cache / kept_as / "snapshots" / ("b" * 40)
        place.mkdir(parents=True)
        (place / file).write_text("x")
    others = load("paper", {"corpus": "org/data", "caption_tokenizer": "org/words"})
    found = {one.parameter: one.place for one in plan.needed(others)}
    assert (found["corpus"], found["caption_tokenizer"]) == ("hub's cache", "hub's cache")
    (cached / "model.safetensors").unlink()  # a download that was cut short
    assert {one.parameter: one for one in plan.needed(params)}["base_model"].place == "to download"
    gone = load("smoke", {"nli_model": str(tmp_path / "gone")})
    with pytest.raises(CompanionError, match=r"nli_model = .*gone: no such file or folder"):
        plan.stop_if(plan.problems(gone))


@pytest.mark.parametrize(
    ("sizes", "told"),
    [([], "needs a CUDA device and there is none"), ([11.0, 8.0], "about 21 GiB of GPU memory.* largest has 11")],
)
def test_a_machine_that_cannot_is_told_at_once(sizes: list[float], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "gpus", lambda: sizes)
    with pytest.raises(CompanionError, match=told):
        plan.stop_if(plan.problems(load("paper"), network=False))
    monkeypatch.setattr(plan, "gpus", lambda: [80.0])
    assert "GPU" not in " ".join(map(str, plan.problems(load("paper"), network=False)))
    begin = time.monotonic()
    assert plan.problems(load("cpu"), "04_alignment") == []
    assert time.monotonic() - begin < 0.5


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, runs: Path) -> None:
    usage = shutil.disk_usage(runs)
    monkeypatch.setattr("lmolt_utils.run.plan.shutil.disk_usage", lambda _: usage._replace(free=100 * 2**30))
    assert any(
        "about 262 GiB of disk are needed and 100 are free" in str(error) for error in plan.problems(load("paper"))
    )


def test_a_hub_id_that_cannot_be_had_names_its_parameter_and_is_worth_trying_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = r"lacks nli_model = org/name\. Where .*hf download ID --local-dir FOLDER"
    with pytest.raises(TryAgainError, match=told):
        start("07_nli_evaluation", {"profile": "smoke", "systems": [], "overrides": {"nli_model": "org/name"}})
    shutil.copytree(root() / "params", tmp_path / "params")
    profile = tmp_path / "params" / "smoke.yaml"
    text = profile.read_text().replace("nli_model: embedded:nli", "nli_model: org/name")
    for name, own in (("negatives", "shuffled"), ("switches", "{negatives: as_printed}"), (WRITER, "org/writer")):
        text = re.sub(f"(?m)^{name}: .*", f"{name}: {own}", text)  # the switch asks for a negative generator after all
    profile.write_text(text)
    monkeypatch.setenv("LMOLT_ROOT", str(tmp_path))
    for command, status in {"plan": 0, "check": 75, "reproduce": 75}.items():
        assert main([command, "--profile", "smoke"]) == status
        told = "".join(capsys.readouterr())
        assert "nli_model = org/name" in told
        assert f"{WRITER} = org/writer" in told, command
    assert main(["check", "--profile", "cpu"]) == 0


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_whether_the_hub_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Really asked: a server that answers anything, one that is silent, and none."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_PATIENCE", 1.0)

    def asked(port: int) -> bool:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        hub.answers.cache_clear()
        return hub.answers()

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert asked(server.server_port)
        server.shutdown()
    assert not asked(server.server_port)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        assert not asked(silent.getsockname()[1])
        assert time.monotonic() - begin < 5
        with pytest.raises(TryAgainError, match=r"org/name@main: .*hf download org/name --local-dir FOLDER"):
            hub.must_have("org/name@main")


@pytest.mark.parametrize("rate", [0.0, -100.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ParameterError, match="is no rate: give tokens per second"):
        plan.plan("cpu", rate)


def test_each_execution_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lmolt_utils.run.execute.tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    first, second = take_gpu(["4", "7"]), take_gpu(["4", "7"])
    assert first
    assert second
    assert (first.name[-6:], second.name[-6:]) == ("4.lock", "7.lock")
    assert take_gpu(["4", "7"]) is None
    first.close()
    assert take_gpu(["4", "7"])
