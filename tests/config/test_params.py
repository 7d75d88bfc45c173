"""Parameters: every mistake stops the run, naming the key and the nearest right one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmolt_utils.config.params import load, profiles
from lmolt_utils.config.reading import ParameterError
from lmolt_utils.config.systems import load_systems, replicas
from lmolt_utils.data.prepare import corpus_source
from lmolt_utils.paths import root
from lmolt_utils.run.notebook import Run


@pytest.mark.parametrize("profile", profiles())
def test_every_profile_is_complete_and_corrected(profile: str) -> None:
    values = load(profile)
    assert (values.profile, values.semantics, values.switches) == (profile, "corrected", {})
    for row in load_systems():
        if not row.settings and row.init not in ("ties", "half_sum_ties") and row.mol2cap_share is None:
            assert row.params(values) == values


def test_the_seeds_profile_is_the_default_one_with_three_seeds() -> None:
    """Else its spread would be that of another experiment; its tables go beside the default ones, not over them."""
    own, default = load("seeds").model_dump(), load("cpu").model_dump()
    assert {name for name in own if own[name] != default[name]} == {"profile", "seeds", "figures_dir"}
    assert (own["seeds"], default["seeds"]) == ([0, 1, 2], [0])
    copies = [system.name for system in replicas(load_systems(), load("seeds")) if system.replica]
    assert len(copies) == 22, "eleven trained systems of the tables, two more seeds each"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"betta": 0.1}, "unknown parameter 'betta'; did you mean 'beta'?"),
        ({"epochs": 0}, "'epochs' = 0"),
        ({"lora_rank": "2.5"}, "'lora_rank' = '2.5'"),
        ({"device": "gpu"}, "'device' = 'gpu'"),
        ({"seed": True}, "'seed' = True"),
        ({"learning_rate": "fast"}, "'learning_rate' = 'fast'"),
        ({"learning_rate": "nan"}, "learning_rate"),
        ({"seeds": [0, -1]}, "seeds"),
        ({"seeds": [0, 0]}, "seeds.*a seed comes twice"),
        ({"decomposer": "llm", "decomposer_model": None}, "needs a model"),
        ({"effective_batch": 64, "micro_batch": 24}, "64 is no multiple of micro_batch 24"),
        ({"scheduler": "constant"}, "constant has no warm-up: set warmup_share: 0"),
        ({"switches": {"sft_eoss": "as_released"}}, "unknown switch 'sft_eoss'; did you mean 'sft_eos'"),
        ({"switches": {"sft_eos": "released"}}, "'released' is none of as_printed, as_released, corrected"),
        ({"switches": {"postprocess": "as_printed"}}, "has no 'as_printed' form"),
    ],
)
def test_wrong_values_are_named(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        load("cpu", overrides)


def test_numbers_are_taken_as_papermill_passes_them_on() -> None:
    """``-p learning_rate 1e-3`` arrives as text; ``-p epochs 3`` as a whole number."""
    params = load("cpu", {"learning_rate": "1e-3", "epochs": 3, "lora_rank": "8", "corpus": "1"})
    assert (params.learning_rate, params.lora_rank, params.corpus) == (1e-3, 8, "1")
    assert isinstance(params.epochs, float)


def test_a_wrong_profile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, message in {"cpuu": "did you mean 'cpu'", "systems": "no profile 'systems'"}.items():
        with pytest.raises(ParameterError, match=message):
            load(name)
    text = (root() / "params" / "cpu.yaml").read_text("utf-8")
    monkeypatch.setenv("LMOLT_ROOT", str(tmp_path))
    (tmp_path / "params").mkdir()
    files = {
        "copy": (text, "write 'profile: copy' there"),
        "short": (re.sub(r"(?m)^beta:.*\n", "", text).replace("profile: cpu", "profile: short"), "'beta' has no value"),
        "empty": ("", "is empty"),
        "open": ("a: [", "not readable YAML"),
        "twice": ("beta: 0.1\nseed: 0\nbeta: 0.5\n", "'beta' is there twice"),
    }
    for name, (content, message) in files.items():
        (tmp_path / "params" / f"{name}.yaml").write_text(content, "utf-8")
        with pytest.raises(ParameterError, match=message):
            load(name)


def test_head_may_stop_reading_the_list() -> None:
    command = f"{sys.executable} -m lmolt_utils.cli params | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("profile")
    assert done.stderr == ""


def test_a_run_says_whose_models_its_numbers_are_of() -> None:
    """Whatever the corpus: it is the models that make a number the papers' or not."""

    def scale(profile: str, **values: str) -> str:
        return Run("08_figures", Path("run"), load(profile, values)).scale

    assert scale("smoke") == scale("smoke", corpus="additional_data.zip") == "embedded"
    assert scale("paper") == "the paper's models"
    assert scale("paper", base_model="epfl-llm/meditron-7b@abc123") == "the paper's models"
    assert scale("paper", base_model="mine").startswith("not the paper's models but mine, language-plus-molecules/")


def test_a_hub_corpus_may_name_its_revision(tmp_path: Path) -> None:
    local = tmp_path / "a@b.csv"
    local.touch()
    named = {"org/set@v1": ("org/set", "v1"), "org/set": ("org/set", None), str(local): (str(local), None)}
    for corpus, expected in named.items():
        found = corpus_source(Run("01_data", tmp_path, load("smoke", {"corpus": corpus})))
        assert (found.name, found.revision) == expected
