"""Merging: every rule against tensors computed here in numpy, the report, what is refused, the sweep."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmolt_utils.config.params import load
from lmolt_utils.config.systems import PUBLISHED, TRIMMING, System, load_systems, with_ratio_grid
from lmolt_utils.files import emptied, fingerprint, write_rows
from lmolt_utils.merging.checks import MergeError, check_parents, check_space, headers
from lmolt_utils.merging.half_sum_ties import trimmed
from lmolt_utils.merging.merges import METHODS, TASK_VECTOR_RULES, Merge, merge_models, merge_of, yaml_path
from lmolt_utils.merging.report import group_report, overall, tensor_report
from lmolt_utils.models.loading import EMBEDDED_FOLDER, ModelError, load_model, load_tokenizer
from lmolt_utils.run.notebook import Run
from lmolt_utils.run.steps import record_path
from lmolt_utils.training.experiment import make_sweep, make_system

EMBEDDED = {"base": "embedded:base", "cap2mol": "embedded:cap2mol", "mol2cap": "embedded:mol2cap"}
QUERY = "model.layers.0.self_attn.q_proj.weight"
UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.norm.weight"
EMBED = "model.embed_tokens.weight"
Array = np.ndarray[Any, np.dtype[np.float64]]


def _small(folder: Path, tensors: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """A copy of the embedded base in float32, with ``tensors`` in place of its own."""
    shutil.copytree(EMBEDDED_FOLDER / "base", folder)
    own = {name: tensor.float().contiguous() for name, tensor in load_file(folder / "model.safetensors").items()}
    own |= tensors or {}
    save_file(own, folder / "model.safetensors", {"format": "pt"})
    return own


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A base and two fine-tunes: far away in ``QUERY`` and ``UP``, near in ``NORM`` and ``EMBED``, equal elsewhere."""
    folder = tmp_path_factory.mktemp("family")
    generator = torch.Generator().manual_seed(0)
    base = _small(folder / "base")
    for role in ("cap2mol", "mol2cap"):
        moved = {}
        for name, size in {QUERY: 1.0, UP: 1.0, NORM: 0.001, EMBED: 0.005}.items():
            spread = float(base[name].norm()) / base[name].numel() ** 0.5
            moved[name] = base[name] + size * spread * torch.randn(base[name].shape, generator=generator)
        _small(folder / role, moved)
    return {role: str(folder / role) for role in ("base", "cap2mol", "mol2cap")}


def _weights(folder: str | Path, name: str) -> Array:
    return load_file(Path(folder) / "model.safetensors")[name].double().numpy()


def _merged(merge: Merge, folder: Path, name: str) -> tuple[Array, Array, Array, Array]:
    """One tensor of the merge, the base, cap2mol and mol2cap."""
    if not folder.exists():
        merge_models(merge, folder)
    return _weights(folder, name), *(_weights(model, name) for model in (merge.base, merge.cap2mol, merge.mol2cap))


def _angle(a: Array, b: Array) -> float:
    return float(np.arccos(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)))


def _spherical(a: Array, b: Array, t: float) -> Array:
    angle = _angle(a, b)
    return np.sin((1 - t) * angle) / np.sin(angle) * a + np.sin(t * angle) / np.sin(angle) * b


def _trimmed(vector: Array, density: float) -> Array:
    """The ``density`` largest entries, rounded down to a whole number of them."""
    kept = int(density * vector.size)
    smallest = np.sort(np.abs(vector), axis=None)[-kept]
    return np.where(np.abs(vector) >= smallest, vector, 0)


def _close(got: Array, expected: Array, tolerance: float = 2e-6) -> None:
    np.testing.assert_allclose(got, expected, atol=tolerance * float(np.abs(expected).max()), rtol=0)


def _almost_all_close(got: Array, expected: Array) -> None:
    """Equal magnitudes at the cut of a trimming may fall either way: not more than one entry in ten thousand."""
    assert np.mean(np.abs(got - expected) > 1e-5 * np.abs(expected).max()) <= 1e-4


@pytest.fixture(scope="module")
def slerped(family: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Merge, Path]:
    merge, folder = Merge("slerp", 0.3, **family), tmp_path_factory.mktemp("slerped") / "m"
    merge_models(merge, folder)
    return merge, folder


def test_slerp_follows_its_formula_and_says_where_it_falls_back(slerped: tuple[Merge, Path]) -> None:
    for name in (QUERY, UP):
        got, _, a, b = _merged(*slerped, name)
        _close(got, _spherical(a, b, 0.3))
        assert np.abs(got - (0.7 * a + 0.3 * b)).max() > 0.01 * np.abs(got).max(), "spherical, visibly"
    for name in (NORM, EMBED):
        got, _, a, b = _merged(*slerped, name)
        assert np.cos(_angle(a, b)) > 0.9995
        linear, spherical = 0.7 * a + 0.3 * b, _spherical(a, b, 0.3)
        # Float32 rounding is half a unit in the 24th digit: the two candidates must differ by more to be told apart.
        assert np.abs(got - linear).max() < np.abs(got - spherical).max(), "mergekit's linear branch"
        _close(got, linear, 1e-7)
    branches = tensor_report(slerped[0], str(slerped[1])).set_index("tensor")["branch"]
    assert branches[[QUERY, UP, NORM, EMBED]].tolist() == ["spherical"] * 2 + ["linear"] * 2


def test_nuslerp_is_slerp_of_task_vectors(family: dict[str, str], tmp_path: Path) -> None:
    merge = Merge("nuslerp", 1 / 19, **family)
    for name in (QUERY, UP, EMBED):
        got, base, a, b = _merged(merge, tmp_path / "m", name)
        _close(got, base + _spherical(a - base, b - base, 1 / 19), 1e-5)
    got, base, a, b = _merged(merge, tmp_path / "m", UP.replace("1", "0"))
    _close(got, base)  # no task vectors there


@pytest.mark.parametrize(("share", "density"), [(0.5, 0.2), (1 / 19, 0.5)])
def test_ties_trims_elects_and_averages(family: dict[str, str], tmp_path: Path, share: float, density: float) -> None:
    for name in (QUERY, UP):
        got, base, a, b = _merged(Merge("ties", share, density, **family), tmp_path / "m", name)
        weights = np.array([1 - share, share])[:, None, None]
        tasks = np.stack([_trimmed(a - base, density), _trimmed(b - base, density)])
        elected = np.where((weights * tasks).sum(0) >= 0, 1.0, -1.0)
        agree = np.sign(tasks) == elected
        mean = (weights * tasks * agree).sum(0) / np.where(agree.any(0), (weights * agree).sum(0), 1)
        _almost_all_close(got, base + mean)


def test_of_equal_entries_at_the_border_the_first_stay() -> None:
    vector = torch.tensor([[1.0, -2.0, 2.0], [-2.0, 3.0, 2.0]])
    assert trimmed(vector, 0.5).tolist() == [[0.0, -2.0, 2.0], [0.0, 3.0, 0.0]]
    assert trimmed(vector, 0.01).tolist() == [[0.0, 0.0, 0.0], [0.0, 3.0, 0.0]], "one at least"
    assert torch.equal(trimmed(vector, 1.0), vector)
    many = torch.tensor([-2.0, 1.0, 2.0]).repeat(1000)
    assert trimmed(many, 0.5).nonzero().flatten().tolist() == [n for n in range(2250) if n % 3 != 1]


def test_half_sum_ties_is_what_the_paper_prints(family: dict[str, str], tmp_path: Path) -> None:
    for name in (QUERY, UP):
        got, base, a, b = _merged(Merge("half_sum_ties", 0.5, 0.4, **family), tmp_path / "m", name)
        first, second = _trimmed(a - base, 0.4), _trimmed(b - base, 0.4)
        larger = np.where(np.abs(first) > np.abs(second), first, second)  # L4M Eq. 1
        conflict = np.sign(first) * np.sign(second) == -1
        assert 0.05 < conflict.mean() < 0.12, "0.4 x 0.4 / 2"
        aligned = [np.where(conflict, larger, vector) for vector in (first, second)]
        _almost_all_close(got, base + 0.5 * (aligned[0] + aligned[1]))
        ties, *_ = _merged(Merge("ties", 0.5, 0.4, **family), tmp_path / "ties", name)
        assert np.linalg.norm(got - base) < 0.8 * np.linalg.norm(ties - base), "it moves less far than TIES"


@pytest.mark.parametrize("rule", ["soup", "half_sum_ties"])
def test_the_exported_yaml_gives_equal_tensors_by_its_command(
    rule: str, family: dict[str, str], tmp_path: Path
) -> None:
    """The command in its first line: mergekit's own, or for the paper's TIES ours, in a process without the rule."""
    merge_models(Merge(rule, 1 / 19, dtype="bfloat16", **family), tmp_path / "m")
    yaml = yaml_path(tmp_path / "m")
    line = yaml.read_text().splitlines()[0].removeprefix("# ")
    line = line.replace("THIS_FILE", str(yaml)).replace("OUTPUT_FOLDER", str(tmp_path / "c"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([*line.split(), "--no-write-model-card"], check=True, capture_output=True, env=environment)
    got, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("c", "m"))
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)
    assert {tensor.dtype for tensor in got.values()} == {torch.bfloat16}


def test_a_model_trained_again_is_read_again(family: dict[str, str], tmp_path: Path) -> None:
    """mergekit keeps opened files for the life of a process, such as a notebook's kernel."""
    merge = Merge("soup", 0.5, **{**family, "mol2cap": str(tmp_path / "own")})
    _small(tmp_path / "own")
    merge_models(merge, tmp_path / "m")
    shutil.rmtree(tmp_path / "own")
    _small(tmp_path / "own", {QUERY: torch.ones(128, 128)})
    merge_models(merge, tmp_path / "m")
    _close(_weights(tmp_path / "m", QUERY), (_weights(family["cap2mol"], QUERY) + 1) / 2)


def test_report_agrees_with_numpy(slerped: tuple[Merge, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmolt_utils.merging.report.BLOCK", 1000)  # several blocks per tensor, the last one short
    report = tensor_report(slerped[0], str(slerped[1]))
    assert len(report) == len(load_file(slerped[1] / "model.safetensors"))
    for name in (QUERY, UP, EMBED, NORM):
        row = report.set_index("tensor").loc[name]
        got, base, a, b = _merged(*slerped, name)
        s, t = a - base, b - base
        norm = np.linalg.norm
        expected = {
            "elements": a.size,
            "angle": np.degrees(_angle(a, b)),
            "task_angle": np.degrees(_angle(s, t)),
            "sign_conflicts": np.mean((s * t < 0)[(s != 0) & (t != 0)]),
            "update": norm(got - base) / norm(base),
            "task_mol2cap": norm(t) / norm(base),
            "to_cap2mol": norm(got - a) / norm(a - b),
        }
        assert row[list(expected)].to_dict() == pytest.approx(expected, rel=1e-6)
    still = report.set_index("tensor").loc["lm_head.weight"]
    assert still["elements"] == 1024 * 128
    assert still[["sign_conflicts", "to_cap2mol"]].isna().all(), "nothing to divide by is no zero"
    groups = group_report(report)
    assert list(groups.index) == ["embedding", "head", "norm", "attention", "mlp"]
    assert groups["tensors"].sum() == len(report)
    assert groups.loc["embedding", "linear"] == 1
    whole = overall({"m": report}).loc["m"]
    assert whole["linear branch"] == f"{len(report) - 2} of {len(report)} tensors"
    known = report.dropna(subset="to_cap2mol")
    mean = (known["to_cap2mol"] * known["elements"]).sum() / known["elements"].sum()
    assert whole["to_cap2mol"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {EMBED: t[EMBED][:1000]}, r"differ in shape, first model.embed_tokens.weight: \(1024, 128\) in"),
        (lambda t: t | {QUERY: t[QUERY].bfloat16()}, "differ in dtype, first .*q_proj.weight: F16 in .*, BF16 in"),
        (lambda t: {n: v for n, v in t.items() if n != QUERY}, "1 tensors .*, first .*q_proj.weight in cap2mol"),
        (lambda t: t | {"extra.weight": t[NORM].clone()}, "1 tensors .*, first extra.weight in mol2cap"),
    ],
)
def test_parents_that_do_not_fit_are_refused_before_any_work(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lmolt_utils.merging.merges._run", lambda *_: pytest.fail("mergekit was started"))
    shutil.copytree(EMBEDDED_FOLDER / "mol2cap", tmp_path / "other")
    tensors = change(load_file(EMBEDDED_FOLDER / "mol2cap" / "model.safetensors"))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "other/model.safetensors")
    models = {**EMBEDDED, "mol2cap": str(tmp_path / "other")}
    for rule in ("slerp", "ties"):
        with pytest.raises(MergeError, match=message):
            merge_models(Merge(rule, 0.5, **models), tmp_path / "m")


def test_a_base_of_another_float_type_with_more_tokens_merges_as_if_it_had_theirs(
    family: dict[str, str], tmp_path: Path
) -> None:
    """Meditron-7B is bfloat16 with 32,017 tokens; L+M-24's fine-tunes of it are float32."""
    own = {name: tensor.bfloat16() for name, tensor in load_file(Path(family["base"]) / "model.safetensors").items()}
    wide = own | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}  # no weight, and no part of a merge
    for table in (EMBED, "lm_head.weight"):
        wide[table] = torch.cat([own[table], torch.ones(17, own[table].shape[1], dtype=torch.bfloat16)])
    same = {name: tensor.float() for name, tensor in own.items()}
    for name, tensors in (("same", same), ("wide", wide)):
        shutil.copytree(family["base"], tmp_path / name)
        save_file(tensors, tmp_path / name / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "wide" / "config.json").read_text())
    (tmp_path / "wide" / "config.json").write_text(json.dumps({**config, "vocab_size": 1024 + 17}))
    tokens = json.loads((tmp_path / "wide" / "tokenizer.json").read_text())
    added = {"id": 1024, "content": "<EOD>", "single_word": False, "lstrip": False, "rstrip": False}
    tokens["added_tokens"].append({**added, "normalized": False, "special": True})
    (tmp_path / "wide" / "tokenizer.json").write_text(json.dumps(tokens))
    for name in ("same", "wide"):
        merge = Merge("ties", 0.5, **{**family, "base": str(tmp_path / name)})
        merge_models(merge, tmp_path / "ties" / name)
    got, expected = (load_file(tmp_path / "ties" / name / "model.safetensors") for name in ("wide", "same"))
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[part], expected[part]) for part in got)
    assert load_model(str(tmp_path / "ties" / "wide"), "causal").config.vocab_size == 1024
    vocabulary = load_tokenizer(str(tmp_path / "ties" / "wide")).get_vocab()
    assert vocabulary == load_tokenizer(family["cap2mol"]).get_vocab()
    assert tensor_report(merge, str(tmp_path / "ties" / "wide"))["update"].notna().all()


def test_different_tokens_are_refused(tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED_FOLDER / "mol2cap", tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    first, second = [token for token, number in vocabulary.items() if number in (500, 501)]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(content))
    merge = Merge("soup", 0.5, **{**EMBEDDED, "mol2cap": str(tmp_path / "other")})
    with pytest.raises(MergeError, match=r"give 2 tokens different ids .*: 500 and 501"):
        merge_models(merge, tmp_path / "m")
    file.unlink()
    with pytest.raises(MergeError, match="no usable tokenizer"):
        merge_models(merge, tmp_path / "m")


def test_missing_bases_pickles_and_damaged_files_are_refused(tmp_path: Path) -> None:
    nowhere = {**EMBEDDED, "base": str(tmp_path / "nowhere")}
    for rule in TASK_VECTOR_RULES:
        with pytest.raises(ModelError, match="nowhere does not exist"):
            merge_models(Merge(rule, 0.5, **nowhere), tmp_path / "m")
    merge_models(Merge("slerp", 0.5, **nowhere), tmp_path / "slerp")  # it needs none
    with pytest.raises(MergeError, match="base and cap2mol are both embedded:cap2mol"):
        merge_models(Merge("ties", 0.5, **{**EMBEDDED, "base": "embedded:cap2mol"}), tmp_path / "m")

    broken = tmp_path / "broken"
    shutil.copytree(EMBEDDED_FOLDER / "mol2cap", broken)
    file = broken / "model.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[:-100], whole[:20]):
        file.write_bytes(damaged)
        with pytest.raises(MergeError, match="damaged"):
            headers(str(broken))
    file.rename(broken / "pytorch_model.bin")
    # mergekit would open the pickle when the safetensors file goes by another name.
    (broken / "adapter_model.safetensors").write_bytes(whole)
    with pytest.raises(ModelError, match="pickled"):
        merge_models(Merge("soup", 0.5, **{**EMBEDDED, "mol2cap": str(broken)}), tmp_path / "m")
    index = {"metadata": {}, "weight_map": {QUERY: "model-1.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(MergeError, match=r"damaged \(.*model-1\.safetensors"):
        headers(str(broken))


def test_hub_models_are_judged_by_their_headers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import NotASafetensorsRepoError
    from huggingface_hub.utils import SafetensorsFileMetadata, SafetensorsRepoMetadata, TensorInfo

    tensor = TensorInfo(dtype="F32", shape=[2, 3], data_offsets=(0, 24))
    files = {"x": SafetensorsFileMetadata(metadata={}, tensors={"a.weight": tensor})}
    found = SafetensorsRepoMetadata(None, sharded=False, weight_map={"a.weight": "x"}, files_metadata=files)
    get = "lmolt_utils.merging.checks.get_safetensors_metadata"
    monkeypatch.setattr(get, lambda _, **__: found)
    assert {name: (h.dtype, h.shape) for name, h in headers("somebody/model").items()} == {"a.weight": ("F32", (2, 3))}
    for error, message in (
        (NotASafetensorsRepoError("no"), "no safetensors weights on the hub"),
        (OSError("offline"), r"the hub does not give it \(offline\)"),
    ):
        monkeypatch.setattr(get, Mock(side_effect=error))
        with pytest.raises(MergeError, match=message):
            check_parents({"cap2mol": "somebody/model", "mol2cap": "embedded:mol2cap"})


def test_a_full_disk_is_seen_before_the_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("lmolt_utils.merging.checks.shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(MergeError, match=r"needs 2.6 MB .* has 0.0 MB left: free some space"):
        check_space(tmp_path / "not" / "there", headers("embedded:base"), "float32")


def test_ratio_grid_adds_rows_that_the_table_lacks() -> None:
    table = with_ratio_grid(load_systems(), load("smoke"))
    assert table == [row for row in load_systems() if row.init not in PUBLISHED], "their models are not named"
    added = with_ratio_grid(load_systems(), load("smoke", {"ratio_grid": [1 / 19, 0.1, 0.25, 0.75, 0.1]}))[len(table) :]
    assert [row.name for row in added] == ["slerp@0.1+cpo", "slerp@0.75+cpo"], "1:18 and 1:3 are in the table"
    assert [row.label for row in added] == ["SLERP+CPO, 1:9", "SLERP+CPO, 3:1"]
    assert {(row.notebook, row.init, row.method) for row in added} == {("06_ablation", "slerp", "cpo")}


def test_merge_settings_of_a_row_reach_its_merge() -> None:
    def start(init: str, dtype: str = "float32", **own: Any) -> Merge | None:
        system = System(name="a", label="x", notebook="06_ablation", init=init, method="none", **own)
        return merge_of(system, system.params(load("smoke", {"merge_dtype": dtype})))

    ties = start("ties", "bfloat16", settings={"ties_density": 0.5})
    assert ties == Merge("ties", 0.5, 0.5, "bfloat16", **EMBEDDED)
    assert ties.name == "ties-0.5-bfloat16"
    assert Merge("slerp", 1 / 19, density=0.7, **EMBEDDED).name == "slerp-0.05263", "without what cannot matter"
    assert Merge("ties", 0.3, 0.2, **EMBEDDED).name == "ties-0.2-share0.3"
    for rule in METHODS:
        usual = Merge(rule, 0.5 if rule in TRIMMING else 1 / 19, **EMBEDDED)
        assert start(rule) == usual
        assert start(rule, mol2cap_share=0.25) == replace(usual, share=0.25)
    assert start("cap2mol") is None


def test_deleted_merges_make_nothing_run_again_and_come_back_when_needed(runs: Path) -> None:
    def system(name: str, share: float, **own: Any) -> System:
        row = {"notebook": "06_ablation", "init": "slerp", "method": "none", **own}
        return System(name=name, label=name, mol2cap_share=share, **row)

    run = Run("06_ablation", runs / "smoke", load("smoke", {"keep_merges": False, "max_new_tokens": 4}))
    test = {"id": ["1"], "molecule": ["CCO"], "caption": ["An alcohol."], "properties": ["solvent"]}
    write_rows(run.path("data", "test.jsonl"), pd.DataFrame(test))
    own, shared = system("own", 0.4), system("shared", 0.6)
    table = [own, shared, system("twin", 0.6)]
    make_sweep(run, [own, shared], table)
    deleted, kept = run.path("models", "slerp-0.4"), run.path("models", "slerp-0.6")
    assert emptied(deleted)
    assert not list(deleted.glob("*.safetensors"))
    assert (kept / "model.safetensors").exists(), "another row may be using it at this moment"
    assert yaml_path(deleted).exists()
    assert record_path(deleted).exists()

    lines: list[str] = []
    make_sweep(run, [own, shared], table, say=lines.append)
    assert lines
    assert all("up to date" in line for line in lines), lines

    # Two rows of one point share its merge: it goes after the second.
    first, second = system("first", 0.7), system("second", 0.7)
    lines.clear()
    make_sweep(run, [first, second], [*table, first, second], say=lines.append)
    assert emptied(run.path("models", "slerp-0.7"))
    assert [line for line in lines if "weights deleted" in line] == [lines[-1]]
    other = system("other", 0.8, notebook="05_merging")
    make_sweep(run, [other], [*table, other])
    assert not emptied(run.path("models", "slerp-0.8")), "05_merging makes it too"

    before = fingerprint(deleted)
    run.path("predictions", "own.mol2cap.jsonl").unlink()
    lines.clear()
    make_system(run, own, lines.append)
    assert sum("up to date" not in line for line in lines) == 1, lines
    assert (deleted / "model.safetensors").exists()
    assert fingerprint(deleted) == before, "the merge made again is the merge that was"
