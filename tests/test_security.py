"""Attacks by what others made: names, archives, models, templates, records. Nothing runs, nothing leaves its place."""

import json
import pickle
import shutil
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lmolt_utils.config.params import load
from lmolt_utils.config.reading import ParameterError
from lmolt_utils.config.systems import load_systems
from lmolt_utils.data import text_tables
from lmolt_utils.data.rows import load as load_corpus
from lmolt_utils.data.sources import Source
from lmolt_utils.errors import CompanionError, DataError
from lmolt_utils.files import BadFileError, fingerprint, write_json
from lmolt_utils.metrics.intervals import read_statistics
from lmolt_utils.models.loading import EMBEDDED_FOLDER, load_tokenizer
from lmolt_utils.nli.llm import LlmAnswerError, released_prompt
from lmolt_utils.run.notebook import notebook_record, read_notebook_record, start
from lmolt_utils.run.resume import Checkpoints
from lmolt_utils.run.steps import record_path, records, step
from lmolt_utils.training.adapters import load_trained
from lmolt_utils.training.losses import Sft
from tests.training.test_training import MACHINE, START, recipe, trained


class Payload:
    """What runs when its pickle is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# ---- names ----


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "..", ".hidden", "a\n", "A", "a b", "$(id)"])
def test_a_system_name_is_a_file_name(name: str, tmp_path: Path) -> None:
    rows = json.dumps([{"name": name, "label": "x", "notebook": "03_sft", "init": "cap2mol", "method": "sft"}])
    (tmp_path / "systems.yaml").write_text(rows, encoding="utf-8")
    with pytest.raises(ParameterError, match="name"):
        load_systems(tmp_path / "systems.yaml")
    with pytest.raises(ParameterError, match="no profile"):
        load(name)


def test_a_record_that_names_files_elsewhere_is_damaged(runs: Path, tmp_path: Path) -> None:
    """A changed run takes files over by such names, and would first delete what is there; a crate would copy them."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (runs / "smoke" / "data").mkdir(parents=True)
    step("data", lambda _: (runs / "smoke" / "data" / "a").write_text("a"), outputs=[runs / "smoke/data/a"], params={})
    begun = start("01_data", {"profile": "smoke", "systems": [], "overrides": {}})
    begun.finish()
    record = read_notebook_record(runs / "smoke", "01_data")
    assert record is not None
    for name in ("../victim", "data/../../victim", str(victim)):
        write_json(notebook_record(runs / "smoke", "01_data"), record | {"files": {name: fingerprint(victim)}})
        assert read_notebook_record(runs / "smoke", "01_data") is None
        start("02_negatives", {"profile": "smoke", "systems": [], "overrides": {"beta": 0.5}})
        assert victim.read_text() == "mine"
    first = runs / "smoke" / "data" / "a"
    mine = json.loads(record_path(first).read_text())
    write_json(record_path(first), mine | {"outputs": {"../../victim": fingerprint(victim)}})
    assert records(runs / "smoke") == {}


# ---- archives ----


@pytest.mark.parametrize("name", ["../../molecule_properties.txt", "/tmp/evil/molecule_properties.txt"])
def test_what_a_zip_calls_its_files_is_no_place(name: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / "additional_data.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "CCO\t['sweet']\nCCN\t['dye']\n" * 20)
    before = everything(tmp_path)
    if name.startswith("."):  # hidden, as macOS's and git's files are
        with pytest.raises(DataError, match="holds no file like"):
            load_corpus(Source(str(path)))
    else:
        assert set(load_corpus(Source(str(path))).frame["molecule"]) == {"CCO", "CCN"}, "it is read in memory"
    assert everything(tmp_path) == before
    assert not Path("/tmp/evil").exists()


def peak(work: Any) -> int:
    """The most bytes of Python's that ``work`` holds at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_bombs_are_read_up_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed a thousandfold and more; the limit is lowered from 1 GiB (MAX_BYTES), the bombs are real."""
    monkeypatch.setattr(text_tables, "MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("molecule_properties.txt", b"CCO\t['sweet']\n" * (1 << 23))
    cells = pa.array(["C" * 4000] * 300_000)
    pq.write_table(pa.table({"smiles": cells, "caption": cells}), tmp_path / "a.parquet")
    for name in ("a.zip", "a.parquet"):
        assert (tmp_path / name).stat().st_size < 1 << 20

        def read(name: str = name) -> None:
            with pytest.raises(DataError, match="more than 1 MB unpacked"):
                load_corpus(Source(str(tmp_path / name)))

        assert peak(read) < 8 << 20
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
    )
    monkeypatch.setenv("LMOLT_ROOT", str(tmp_path))
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "bomb.yaml").write_text(bomb, encoding="utf-8")
    with pytest.raises(ParameterError, match=r"an alias \(\*name\) is not read"):
        load("bomb")


# ---- models ----


def test_pickles_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter's, a statistics file's, and a checkpoint's, whose seal its maker may forge."""
    mark = tmp_path / "ran"
    np.savez(tmp_path / "a.npz", **{"bleu.matches": np.array([Payload(mark)], dtype=object)})
    with pytest.raises(BadFileError, match="damaged"):
        read_statistics(tmp_path / "a.npz")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(CompanionError, match="pickled weights are never opened"):
        load_trained(START, tmp_path / "adapter", **MACHINE)
    settings = recipe("sft", effective_batch=2)
    step_of = Sft.training_step

    def ended(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return step_of(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Sft, "training_step", ended)
        with pytest.raises(KeyboardInterrupt):
            trained(settings, tmp_path, save_steps=2)
    checkpoint = tmp_path / "w" / "checkpoint-2"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (checkpoint / name).write_bytes(pickle.dumps(Payload(mark)))
        kept = Checkpoints(tmp_path / "w")
        seal = json.loads((tmp_path / "w" / "checkpoint-2.json").read_text())
        write_json(tmp_path / "w" / "checkpoint-2.json", seal | {"fingerprint": fingerprint(checkpoint)})
        assert kept.last() is not None, "it is taken for whole"
    with pytest.raises(pickle.UnpicklingError):
        trained(settings, tmp_path, save_steps=2)
    assert not mark.exists()
    pickle.loads((checkpoint / "optimizer.pt").read_bytes())
    assert mark.exists(), "it would have run"


def test_a_chat_template_cannot_leave_its_sandbox(tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED_FOLDER / "base", tmp_path / "chat")
    mark = tmp_path / "ran"
    for attack in (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch " + str(mark) + "') }}",
        "{{ messages.append(1) }}",
    ):
        (tmp_path / "chat" / "chat_template.jinja").write_text(attack)
        with pytest.raises(LlmAnswerError, match="its chat template fails"):
            released_prompt("It is sweet.", load_tokenizer(str(tmp_path / "chat")))
    assert not mark.exists()
    (tmp_path / "chat" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert "It is sweet." in released_prompt("It is sweet.", load_tokenizer(str(tmp_path / "chat")))
