"""Merging: every rule against tensors computed here in numpy, the report, what is refused, memory, the sweep."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from benchmarks.made_up import make_checkpoint
from lmolt_utils.config.params import ParameterError, load
from lmolt_utils.config.systems import PUBLISHED, System, load_systems, with_ratio_grid
from lmolt_utils.errors import CompanionError
from lmolt_utils.figures.merging import group_report, overall, shrunk, tensor_report
from lmolt_utils.files import emptied, fingerprint
from lmolt_utils.merging.checks import MergeError, check_parents, check_space, headers
from lmolt_utils.merging.merges import (
    RULES,
    TASK_VECTOR_RULES,
    TRIMMING_RULES,
    Merge,
    configuration,
    merge_models,
    yaml_path,
)
from lmolt_utils.models.loading import EMBEDDED_FOLDER, ModelError, load_model, load_tokenizer
from lmolt_utils.run.notebook import Run
from lmolt_utils.run.steps import record_path
from lmolt_utils.training.experiment import make_sweep

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


def _merged(family: dict[str, str], folder: Path, merge: Merge, name: str) -> tuple[Array, Array, Array, Array]:
    if not folder.exists():
        merge_models(merge, folder, **family)
    return _weights(folder, name), *(_weights(family[role], name) for role in ("base", "cap2mol", "mol2cap"))


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


def test_slerp_follows_its_formula_and_says_where_it_falls_back(family: dict[str, str], tmp_path: Path) -> None:
    merge = Merge("slerp", 0.3)
    for name in (QUERY, UP):
        got, _, a, b = _merged(family, tmp_path / "m", merge, name)
        _close(got, _spherical(a, b, 0.3))
        assert np.abs(got - (0.7 * a + 0.3 * b)).max() > 0.01 * np.abs(got).max(), "spherical, visibly"
    for name in (NORM, EMBED):
        got, _, a, b = _merged(family, tmp_path / "m", merge, name)
        assert np.cos(_angle(a, b)) > 0.9995
        linear, spherical = 0.7 * a + 0.3 * b, _spherical(a, b, 0.3)
        # Float32 rounding is half a unit in the 24th digit: the two candidates must differ by more to be told apart.
        assert np.abs(got - linear).max() < np.abs(got - spherical).max(), "mergekit's linear branch"
        _close(got, linear, 1e-7)
    report = tensor_report(family["cap2mol"], family["mol2cap"], str(tmp_path / "m"), family["base"], share=0.3)
    branches = report.set_index("tensor")["branch"]
    assert branches[[QUERY, UP]].tolist() == ["spherical"] * 2
    assert branches[[NORM, EMBED]].tolist() == ["linear"] * 2


def test_a_pair_just_outside_the_threshold_is_spherical(family: dict[str, str], tmp_path: Path) -> None:
    """|cosine| 0.9994 against mergekit's 0.9995, 0.9996 on the other side: the branch is decided there."""
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(128, 128, generator=generator, dtype=torch.float64)
    side = torch.randn(128, 128, generator=generator, dtype=torch.float64)
    side -= (side.flatten() @ a.flatten()) / (a.flatten() @ a.flatten()) * a
    side *= a.norm() / side.norm()
    tensors = {}
    for name, cosine in ((QUERY, 0.9994), (QUERY.replace("q_proj", "k_proj"), 0.9996)):
        tensors[name] = (a.float(), (cosine * a + (1 - cosine**2) ** 0.5 * side).float())
    _small(tmp_path / "a", {name: pair[0] for name, pair in tensors.items()})
    _small(tmp_path / "b", {name: pair[1] for name, pair in tensors.items()})
    models = {"base": family["base"], "cap2mol": str(tmp_path / "a"), "mol2cap": str(tmp_path / "b")}
    merge_models(Merge("slerp", 0.5), tmp_path / "m", **models)
    report = tensor_report(models["cap2mol"], models["mol2cap"], str(tmp_path / "m"), None, share=0.5)
    branch = report.set_index("tensor")["branch"]
    for name, expected in zip(tensors, ("spherical", "linear"), strict=True):
        got, x, y = (_weights(f, name) for f in (tmp_path / "m", tmp_path / "a", tmp_path / "b"))
        distance = {
            "linear": np.abs(got - (x + y) / 2).max(),
            "spherical": np.abs(got - _spherical(x, y, 0.5)).max(),
        }
        assert min(distance, key=lambda key: distance[key]) == branch[name] == expected
        assert max(distance.values()) > 20 * min(distance.values()), "the two can be told apart"


def test_nuslerp_is_slerp_of_task_vectors(family: dict[str, str], tmp_path: Path) -> None:
    for name in (QUERY, UP, EMBED):
        got, base, a, b = _merged(family, tmp_path / "m", Merge("nuslerp", 1 / 19), name)
        _close(got, base + _spherical(a - base, b - base, 1 / 19), 1e-5)
    got, base, a, b = _merged(family, tmp_path / "m", Merge("nuslerp", 1 / 19), UP.replace("1", "0"))
    _close(got, base)  # no task vectors there


def test_soup_and_task_arithmetic_follow_their_formulas(family: dict[str, str], tmp_path: Path) -> None:
    for name in (QUERY, NORM):
        soup, base, a, b = _merged(family, tmp_path / "soup", Merge("soup", 1 / 19), name)
        _close(soup, 18 / 19 * a + 1 / 19 * b)
        same, *_ = _merged(family, tmp_path / "arithmetic", Merge("task_arithmetic", 1 / 19), name)
        _close(same, soup)
        twice, *_ = _merged(family, tmp_path / "twice", Merge("task_arithmetic", 0.5, scale=2.0), name)
        _close(twice, base + (a - base) + (b - base))


@pytest.mark.parametrize(("share", "density", "scale"), [(0.5, 0.2, 1.0), (1 / 19, 0.5, 1.0), (0.5, 0.2, 0.7)])
def test_ties_trims_elects_and_averages(
    family: dict[str, str], tmp_path: Path, share: float, density: float, scale: float
) -> None:
    for name in (QUERY, UP):
        got, base, a, b = _merged(family, tmp_path / "m", Merge("ties", share, density, scale), name)
        weights = np.array([1 - share, share])[:, None, None]
        tasks = np.stack([_trimmed(a - base, density), _trimmed(b - base, density)])
        elected = np.where((weights * tasks).sum(0) >= 0, 1.0, -1.0)
        agree = np.sign(tasks) == elected
        mean = (weights * tasks * agree).sum(0) / np.where(agree.any(0), (weights * agree).sum(0), 1)
        _almost_all_close(got, base + scale * mean)


def _trim(tensor: torch.Tensor, density: float, base: torch.Tensor | None = None) -> torch.Tensor:
    from lmolt_utils.merging.trimming import merged_in_pieces

    pieces: list[torch.Tensor] = []

    def keep(vectors: list[torch.Tensor], _: torch.Tensor) -> torch.Tensor:
        pieces.append(vectors[0].clone())
        return vectors[0]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one piece after the other
    merged_in_pieces(torch.zeros_like(tensor) if base is None else base, [tensor], [density], keep)
    torch.set_num_threads(threads)
    return torch.cat(pieces).reshape_as(tensor)


@pytest.mark.parametrize("shape", [(3,), (40, 25), (1000, 300)])
@pytest.mark.parametrize("density", [0.01, 0.2, 0.9999, 1.0, 0.0])
def test_trimming_keeps_what_mergekits_sorting_keeps(shape: tuple[int, ...], density: float) -> None:
    """Bit for bit without equal entries; with them as many, of the same sizes, the first of those at the border."""
    from mergekit.sparsify import magnitude as sorting

    generator = torch.Generator().manual_seed(0)
    entries, base = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    assert torch.equal(_trim(entries, density), sorting(entries, density))
    assert torch.equal(_trim(entries, density, base), sorting(entries - base, density))
    coarse = (entries * 4).round() / 4  # a sixth of them 0
    ours, theirs = _trim(coarse, density), sorting(coarse, density)
    assert torch.equal(ours.abs().flatten().sort().values, theirs.abs().flatten().sort().values)
    border = theirs[theirs != 0].abs().min() if theirs.any() else torch.inf
    equal, stay = coarse.abs() == border, ours.abs() == border
    assert torch.equal(stay.flatten().nonzero()[:, 0], equal.flatten().nonzero()[: stay.sum(), 0]), "the first ones"


def test_pieces_and_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many entries of equal size, so that the border's run through several pieces."""
    from lmolt_utils.merging import ties, trimming

    generator = torch.Generator().manual_seed(0)
    base, *tensors = ((torch.randn(40, 25, generator=generator) * 4).round().bfloat16() / 4 for _ in range(3))
    whole = [ties.ties(base, tensors, [0.3, 0.6], weights) for weights in ([0.5, 0.5], [0.7, 0.3])]
    threads = torch.get_num_threads()
    monkeypatch.setattr(trimming, "PIECE", 64)
    torch.set_num_threads(3)
    try:
        parts = [ties.ties(base, tensors, [0.3, 0.6], weights) for weights in ([0.5, 0.5], [0.7, 0.3])]
        assert torch.get_num_threads() == 3, "as before"
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_trimming_of_odd_task_vectors() -> None:
    assert _trim(torch.full((10,), -2.0), 0.35).tolist() == [-2.0] * 3 + [0.0] * 7
    assert _trim(torch.tensor([1.0, math.nan, 3.0, 2.0]), 0.25).isnan().tolist() == [False, True, False, False]
    assert _trim(torch.tensor([1.0, math.nan, 3.0, math.nan]), 0.75).isnan().tolist() == [False, True, False, True]
    assert _trim(torch.zeros(5), 0.5).tolist() == [0.0] * 5
    few = torch.zeros(300_000)  # fewer entries moved than may stay, and none where the sample looks
    few[1::61] = 1e-3
    assert torch.equal(_trim(few, 0.2), few)
    # The sample sees other task vectors than there are, larger or smaller ones: the border is found all the same.
    for seen, kept in ((5.0, 10_000), (0.5, 4_000)):
        vector = torch.linspace(1, 2, 300_000)
        vector[::61] = seen
        smallest = vector.sort().values[-kept]
        assert torch.equal(_trim(vector, kept / 300_000), torch.where(vector >= smallest, vector, 0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (18 / 19, 1 / 19), (1.0, 0.0)])
@pytest.mark.parametrize("settings", [(0.2, 1.0), (0.01, 0.5), (1.0, 2.0)])
def test_ties_in_pieces_is_mergekits_bit_for_bit(
    dtype: torch.dtype, weights: tuple[float, float], settings: tuple[float, float]
) -> None:
    """Each tensor's task vectors differ in size everywhere, so that both keep the same entries."""
    from mergekit.merge_methods import registry
    from mergekit.merge_methods.base import TensorGroup

    from lmolt_utils.merging.ties import ties_in_pieces

    method = next(m for m in registry.registered_methods() if m.spec.name == "ties")
    generator = torch.Generator().manual_seed(1)
    parents = [torch.randn((700, 411), generator=generator).to(dtype) for _ in range(3)]
    parents[1][:7], parents[2][3:9] = parents[0][:7], parents[0][3:9]  # rows that did not move, in one or both
    density, scale = settings
    given = {
        "weight": dict(zip("xy", weights, strict=True)),
        "density": dict.fromkeys("xy", density),
        "lambda": scale,
        "normalize": True,
        "rescale": False,
        "int8_mask": False,
    }
    group = TensorGroup.from_tensors(parents, base_index=0, ids=["base", "x", "y"])
    wide = TensorGroup.from_tensors([p.float() for p in parents], base_index=0, ids=["base", "x", "y"])
    expected = method.merge_group(wide, **given).to(dtype)
    with ties_in_pieces():
        got = method.merge_group(group, **given)
    same = (got == expected).float().mean()
    assert same == 1 if dtype == torch.float32 else same > 0.999, "bf16 has equal sizes at the border"
    assert got.dtype == dtype


def test_half_sum_ties_is_what_the_paper_prints(family: dict[str, str], tmp_path: Path) -> None:
    for name in (QUERY, UP):
        got, base, a, b = _merged(family, tmp_path / "m", Merge("half_sum_ties", 0.5, 0.4), name)
        first, second = _trimmed(a - base, 0.4), _trimmed(b - base, 0.4)
        larger = np.where(np.abs(first) > np.abs(second), first, second)  # L4M Eq. 1
        conflict = np.sign(first) * np.sign(second) == -1
        assert 0.05 < conflict.mean() < 0.12, "0.4 x 0.4 / 2"
        aligned = [np.where(conflict, larger, vector) for vector in (first, second)]
        _almost_all_close(got, base + 0.5 * (aligned[0] + aligned[1]))
        ties, *_ = _merged(family, tmp_path / "ties", Merge("ties", 0.5, 0.4), name)
        assert np.linalg.norm(got - base) < 0.8 * np.linalg.norm(ties - base), "it moves less far than TIES"
    half, base, *_ = _merged(family, tmp_path / "half", Merge("half_sum_ties", 0.5, 0.4, scale=0.5), QUERY)
    _close(half - base, 0.5 * (_weights(tmp_path / "m", QUERY) - base), 1e-5)


def test_dare_ties_drops_at_random_by_its_seed_alone(family: dict[str, str], tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    merge = Merge("dare_ties", 0.5, 0.2, seed=3)
    got, base, a, _ = _merged(family, tmp_path / "m", merge, QUERY)
    assert torch.equal(torch.random.get_rng_state(), before), "the run's own random numbers are not used up"
    merge_models(merge, tmp_path / "again", **family)
    assert fingerprint(tmp_path / "again") == fingerprint(tmp_path / "m")
    merge_models(Merge("dare_ties", 0.5, 0.2, seed=4), tmp_path / "other", **family)
    assert fingerprint(tmp_path / "other") != fingerprint(tmp_path / "m")
    moved = np.abs(got - base) > 1e-7
    assert moved.mean() == pytest.approx(1 - 0.8**2, abs=0.02), "an entry stays where both drop it"
    # An entry kept of one task vector alone is its half, rescaled so that the vector keeps its sum of magnitudes.
    ratio = ((got - base) / (0.5 * (a - base)))[moved]
    factor = np.median(ratio[np.abs(ratio - 5) < 0.5])
    assert factor == pytest.approx(5, abs=0.3)
    assert np.mean(np.abs(ratio / factor - 1) < 1e-3) > 0.4


def test_filters_and_gradients_set_the_share_by_tensor(family: dict[str, str], tmp_path: Path) -> None:
    merge = Merge("soup", 0.1, filters=(("embed", 0.0), ("self_attn", 0.5), ("mlp", (0.2, 0.8))))
    for name, share in {EMBED: 0.0, QUERY: 0.5, UP: 0.8, NORM: 0.1}.items():
        got, _, a, b = _merged(family, tmp_path / "soup", merge, name)
        _close(got, (1 - share) * a + share * b)
    slerp = Merge("slerp", 0.1, filters=(("self_attn", 0.5), ("mlp", (0.2, 0.8))))
    for name, share in {QUERY: 0.5, UP: 0.8}.items():
        got, _, a, b = _merged(family, tmp_path / "slerp", slerp, name)
        _close(got, _spherical(a, b, share))
    assert merge.name != Merge("soup", 0.1).name != slerp.name


@pytest.mark.parametrize("rule", RULES)
def test_exported_yaml_gives_equal_tensors_by_mergekits_command(
    rule: str, family: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mergekit's own entry point on the file beside the weights, with the options its comment names."""
    from mergekit.io.tasks import LoaderCache
    from mergekit.scripts.run_yaml import main

    folder = tmp_path / "m"
    merge_models(Merge(rule, 1 / 19, dtype="bfloat16", seed=2), folder, **family)
    comment = yaml_path(folder).read_text().splitlines()[0]
    assert ("half_sum_ties" in comment) == (rule == "half_sum_ties")
    options = comment.split("OUTPUT_FOLDER")[1].split()
    main([str(yaml_path(folder)), str(tmp_path / "c"), "--no-write-model-card", *options], standalone_mode=False)
    LoaderCache().loaders.clear()
    got, expected = load_file(tmp_path / "c" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)
    assert {tensor.dtype for tensor in got.values()} == {torch.bfloat16}


def test_the_papers_ties_runs_from_a_command(family: dict[str, str], tmp_path: Path) -> None:
    """In a fresh process, where only that command knows the rule."""
    merge_models(Merge("half_sum_ties", 0.5), tmp_path / "m", **family)
    command = [
        sys.executable,
        "-m",
        "lmolt_utils.merging.half_sum_ties",
        str(yaml_path(tmp_path / "m")),
        str(tmp_path / "c"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([*command, "--no-write-model-card"], check=True, capture_output=True, env=environment)
    got, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("c", "m"))
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_weights_stored_as_written_need_no_float32_copy(family: dict[str, str], tmp_path: Path) -> None:
    """SLERP and soup of bf16 parents: skipping mergekit's cast gives the same numbers as computing in float32."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    from lmolt_utils.merging.ties import ties_in_pieces

    models = {}
    for role, folder in family.items():
        tensors = {n: t.bfloat16() for n, t in load_file(Path(folder) / "model.safetensors").items()}
        _small(tmp_path / role, tensors)
        models[role] = str(tmp_path / role)
    for rule in ("slerp", "soup", "ties"):
        merge = Merge(rule, 0.3, dtype="bfloat16")
        merge_models(merge, tmp_path / rule, **models)
        config = yaml.safe_load(yaml_path(tmp_path / rule).read_text())
        assert config["dtype"] == ("float32" if rule == "ties" else "bfloat16")
        whole = MergeConfiguration.model_validate(configuration(merge, **models))
        with ties_in_pieces():  # of bf16's many equal magnitudes at TIES's border both keep the same ones
            run_merge(whole, str(tmp_path / f"{rule}32"), MergeOptions(quiet=True, write_model_card=False))
        got, expected = (load_file(tmp_path / f"{rule}{n}" / "model.safetensors") for n in ("", "32"))
        assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_a_model_trained_again_is_read_again(family: dict[str, str], tmp_path: Path) -> None:
    """mergekit keeps opened files for the life of a process, such as a notebook's kernel."""
    models = {**family, "mol2cap": str(tmp_path / "own")}
    _small(tmp_path / "own")
    merge_models(Merge("soup", 0.5), tmp_path / "m", **models)
    shutil.rmtree(tmp_path / "own")
    other = _small(tmp_path / "own", {QUERY: torch.ones(128, 128)})
    merge_models(Merge("soup", 0.5), tmp_path / "m", **models)
    expected = (_weights(family["cap2mol"], QUERY) + other[QUERY].double().numpy()) / 2
    _close(_weights(tmp_path / "m", QUERY), expected)


def test_report_agrees_with_numpy(family: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmolt_utils.figures.merging.BLOCK", 1000)  # several blocks per tensor, the last one short
    merge_models(Merge("slerp", 0.3), tmp_path / "m", **family)
    report = tensor_report(family["cap2mol"], family["mol2cap"], str(tmp_path / "m"), family["base"], share=0.3)
    assert len(report) == len(load_file(tmp_path / "m" / "model.safetensors"))
    for name in (QUERY, UP, EMBED, NORM):
        row = report.set_index("tensor").loc[name]
        got, base, a, b = _merged(family, tmp_path / "m", Merge("slerp", 0.3), name)
        s, t = a - base, b - base
        norm = np.linalg.norm
        assert row["elements"] == a.size
        assert row["angle"] == pytest.approx(np.degrees(_angle(a, b)), rel=1e-6)
        assert row["task_angle"] == pytest.approx(np.degrees(_angle(s, t)), rel=1e-6)
        assert row["sign_conflicts"] == pytest.approx(np.mean((s * t < 0)[(s != 0) & (t != 0)]), rel=1e-9)
        assert row["update"] == pytest.approx(norm(got - base) / norm(base), rel=1e-6)
        assert row["task_mol2cap"] == pytest.approx(norm(t) / norm(base), rel=1e-6)
        assert row["to_cap2mol"] == pytest.approx(norm(got - a) / norm(a - b), rel=1e-6)
        gap = np.abs(_spherical(a, b, 0.3) - (0.7 * a + 0.3 * b)).max() / np.abs(a - b).max()
        assert row["not_linear"] == pytest.approx(gap, rel=1e-4)
    still = report.set_index("tensor").loc["lm_head.weight"]
    assert still["elements"] == 1024 * 128
    assert still[["sign_conflicts", "to_cap2mol", "not_linear"]].isna().all(), "nothing to divide by is no zero"
    groups = group_report(report)
    assert list(groups.index) == ["embedding", "head", "norm", "attention", "mlp"]
    assert groups["tensors"].sum() == len(report)
    assert groups.loc["embedding", "linear"] == 1
    assert overall({"m": report}).loc["m", "linear branch"] == f"{len(report) - 2} of {len(report)} tensors"


def test_slerp_of_gentle_fine_tunes_is_linear(family: dict[str, str]) -> None:
    rows = shrunk(family["base"], family["cap2mol"], family["mol2cap"], 1 / 19, [0.01, 0.1, 1.0])
    base, a, b = (
        np.concatenate(
            [t.double().numpy().ravel() for _, t in sorted(load_file(f"{family[r]}/model.safetensors").items())]
        )
        for r in ("base", "cap2mol", "mol2cap")
    )
    for factor, row in zip((0.01, 0.1, 1.0), rows.itertuples(), strict=True):
        x, y = base + factor * (a - base), base + factor * (b - base)
        gap = np.linalg.norm(_spherical(x, y, 1 / 19) - (18 / 19 * x + 1 / 19 * y)) / np.linalg.norm(x - y)
        assert row.not_linear == pytest.approx(gap, rel=1e-3)
        assert row.angle == pytest.approx(np.degrees(_angle(x, y)), rel=1e-4)
        assert row.branch == ("linear" if np.cos(_angle(x, y)) > 0.9995 else "spherical")
    assert rows["branch"].tolist()[0] == "linear"
    assert rows["branch"].tolist()[-1] == "spherical"


def test_default_merges_of_the_embedded_models_are_what_they_were(tmp_path: Path) -> None:
    """SLERP and soup at 1:18 and TIES at a fifth, computed here in float64 from the shipped float16 weights."""
    roles = {r: load_file(EMBEDDED_FOLDER / r / "model.safetensors") for r in EMBEDDED}
    name = "model.layers.1.self_attn.q_proj.weight"
    base, a, b = (roles[r][name].double().numpy() for r in ("base", "cap2mol", "mol2cap"))
    assert not np.array_equal(a, base)
    for rule, expected in (("slerp", _spherical(a, b, 1 / 19)), ("soup", 18 / 19 * a + 1 / 19 * b)):
        merge_models(Merge(rule, 1 / 19), tmp_path / rule, **EMBEDDED)
        _close(_weights(tmp_path / rule, name), expected)
        assert load_file(tmp_path / rule / "model.safetensors")[name].dtype == torch.float32
    assert Merge("slerp", 1 / 19).name == "slerp-0.05263"
    assert Merge("ties", 0.5, 0.2).name == "ties-0.2"
    assert Merge("slerp", 1 / 19).name == Merge("slerp", 1 / 19, density=0.7, seed=9).name, "what cannot matter"


def _break(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], folder: Path) -> str:
    shutil.copytree(EMBEDDED_FOLDER / "mol2cap", folder)
    tensors = change(load_file(folder / "model.safetensors"))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return str(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {EMBED: t[EMBED][:1000]}, r"differ in shape, first model.embed_tokens.weight: \[1024, 128\]"),
        (lambda t: t | {QUERY: t[QUERY].bfloat16()}, "differ in type, first .*q_proj.weight: F16 in .*, BF16 in"),
        (lambda t: {n: v for n, v in t.items() if n != QUERY}, "has 1 tensors that .* lacks, first .*q_proj"),
        (lambda t: t | {"extra.weight": t[NORM].clone()}, "has 1 tensors that .* lacks, first extra.weight"),
    ],
)
def test_parents_that_do_not_fit_are_refused_before_any_work(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lmolt_utils.merging.merges._run", lambda *_: pytest.fail("mergekit was started"))
    models = {**EMBEDDED, "mol2cap": _break(change, tmp_path / "other")}
    for rule in RULES:
        with pytest.raises(MergeError, match=message):
            merge_models(Merge(rule, 0.5), tmp_path / "m", **models)
    assert not (tmp_path / "m").exists()


def test_a_base_of_another_float_type_with_more_tokens_merges_as_if_it_had_theirs(
    family: dict[str, str], tmp_path: Path
) -> None:
    """Meditron-7B is bfloat16 with 32,017 tokens; L+M-24's fine-tunes of it are float32."""
    own = {name: tensor.bfloat16() for name, tensor in load_file(Path(family["base"]) / "model.safetensors").items()}
    for name, more in (("same", 0), ("wide", 17)):
        shutil.copytree(family["base"], tmp_path / name)
        tensors = dict(own) if more else {name: tensor.float() for name, tensor in own.items()}
        if more:
            tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)  # no weight, and no part of a merge
            for table in [part for part in own if len(own[part]) == 1024 and own[part].dim() == 2]:
                tensors[table] = torch.cat([own[table], torch.ones(more, own[table].shape[1], dtype=torch.bfloat16)])
        save_file(tensors, tmp_path / name / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "wide" / "config.json").read_text())
    (tmp_path / "wide" / "config.json").write_text(json.dumps({**config, "vocab_size": 1024 + 17}))
    tokens = json.loads((tmp_path / "wide" / "tokenizer.json").read_text())
    added = {"id": 1024, "content": "<EOD>", "single_word": False, "lstrip": False, "rstrip": False}
    tokens["added_tokens"].append({**added, "normalized": False, "special": True})
    (tmp_path / "wide" / "tokenizer.json").write_text(json.dumps(tokens))
    for rule in (*RULES, "ties in bfloat16"):
        merge = Merge(rule.split()[0], 0.5, dtype="bfloat16" if " in " in rule else "float32")
        for name in ("same", "wide"):
            merge_models(merge, tmp_path / f"{rule} {name}", **{**family, "base": str(tmp_path / name)})
        got, expected = (load_file(tmp_path / f"{rule} {name}" / "model.safetensors") for name in ("wide", "same"))
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[part], expected[part]) for part in got), rule
        model, tokenizer = load_model(str(tmp_path / f"{rule} wide"), "causal"), load_tokenizer(family["cap2mol"])
        assert model.config.vocab_size == 1024
        assert load_tokenizer(str(tmp_path / f"{rule} wide")).get_vocab() == tokenizer.get_vocab()
    report = tensor_report(
        family["cap2mol"], family["mol2cap"], str(tmp_path / "ties wide"), str(tmp_path / "wide"), share=0.5
    )
    assert report["update"].notna().all()
    assert shrunk(str(tmp_path / "wide"), family["cap2mol"], family["mol2cap"], 0.5, [1.0])["task_norm"].notna().all()
    assert "float32" in yaml_path(tmp_path / "ties wide").read_text().splitlines()[1]


def test_different_tokens_are_refused(tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED_FOLDER / "mol2cap", tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    first, second = [token for token, number in vocabulary.items() if number in (500, 501)]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(content))
    models = {**EMBEDDED, "mol2cap": str(tmp_path / "other")}
    with pytest.raises(MergeError, match=r"give 2 tokens different ids .*: 500 and 501"):
        merge_models(Merge("soup", 0.5), tmp_path / "m", **models)
    for path in (tmp_path / "other").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(MergeError, match="no usable tokenizer"):
        merge_models(Merge("soup", 0.5), tmp_path / "m", **models)


def test_missing_bases_pickles_and_damaged_files_are_refused(tmp_path: Path) -> None:
    nowhere = {**EMBEDDED, "base": str(tmp_path / "nowhere")}
    for rule in TASK_VECTOR_RULES:
        with pytest.raises(ModelError, match="nowhere does not exist"):
            merge_models(Merge(rule, 0.5), tmp_path / "m", **nowhere)
    merge_models(Merge("slerp", 0.5), tmp_path / "slerp", **nowhere)  # it needs none
    with pytest.raises(MergeError, match="base and cap2mol are both embedded:cap2mol"):
        merge_models(Merge("ties", 0.5), tmp_path / "m", **{**EMBEDDED, "base": "embedded:cap2mol"})

    pickled = tmp_path / "pickled"
    shutil.copytree(EMBEDDED_FOLDER / "mol2cap", pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(MergeError, match=r"only pickled weights \(pytorch_model.bin\).*refused"):
        headers(str(pickled))
    # mergekit would open the pickle when the safetensors file goes by another name.
    shutil.copy(EMBEDDED_FOLDER / "mol2cap" / "model.safetensors", pickled / "adapter_model.safetensors")
    with pytest.raises(MergeError, match="only pickled weights"):
        merge_models(Merge("soup", 0.5), tmp_path / "m", **{**EMBEDDED, "mol2cap": str(pickled)})

    damaged = tmp_path / "damaged"
    shutil.copytree(EMBEDDED_FOLDER / "mol2cap", damaged)
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(MergeError, match="damaged"):
        headers(str(damaged))
    with pytest.raises(CompanionError, match="no merge rule 'spherical'"):
        configuration(Merge("spherical", 0.5), **EMBEDDED)


def test_hub_models_are_judged_by_their_headers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import NotASafetensorsRepoError
    from huggingface_hub.utils import SafetensorsFileMetadata, SafetensorsRepoMetadata, TensorInfo

    tensor = TensorInfo(dtype="F32", shape=[2, 3], data_offsets=(0, 24))
    file = SafetensorsFileMetadata(metadata={}, tensors={"a.weight": tensor})
    found = SafetensorsRepoMetadata(
        metadata=None, sharded=False, weight_map={"a.weight": "x"}, files_metadata={"x": file}
    )
    monkeypatch.setattr("lmolt_utils.merging.checks.get_safetensors_metadata", lambda _, **__: found)
    assert {name: (h.dtype, h.shape) for name, h in headers("somebody/model").items()} == {"a.weight": ("F32", (2, 3))}

    def pickled(_: str, **__: object) -> None:
        raise NotASafetensorsRepoError("no")

    monkeypatch.setattr("lmolt_utils.merging.checks.get_safetensors_metadata", pickled)
    with pytest.raises(MergeError, match="no safetensors weights on the hub, and pickled ones are refused"):
        check_parents({"cap2mol": "somebody/model", "mol2cap": "embedded:mol2cap"})

    def offline(_: str, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr("lmolt_utils.merging.checks.get_safetensors_metadata", offline)
    with pytest.raises(MergeError, match="the hub does not give it"):
        headers("somebody/model")


def test_a_full_disk_is_seen_before_the_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("lmolt_utils.merging.checks.shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(MergeError, match=r"needs 0.0 GB .* free some space"):
        check_space(tmp_path / "not" / "there", headers("embedded:base"), "float32")


_MEASURE = """
import sys
from pathlib import Path
from benchmarks.merging import merge_here
for work in sys.argv[1:]:
    print(*merge_here("slerp", Path(work), 8_000_000))
"""


def test_memory_stays_near_a_shard_whatever_the_models_size(tmp_path: Path) -> None:
    """Models of 4 and of 16 layers in files of 8 MB (the library's own memory taken off): the peak does not follow."""
    sizes = {}
    for layers in (4, 16):
        shape = {"layers": layers, "hidden": 512, "inner": 1376, "vocabulary": 1024}
        for number, role in enumerate(EMBEDDED):
            folder = tmp_path / str(layers) / role
            sizes[layers] = make_checkpoint(folder, number, **shape, shard_bytes=8_000_000)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", _MEASURE, *(str(tmp_path / str(layers)) for layers in sizes)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    measured = [[float(word) for word in line.split()] for line in found.stdout.splitlines()[-2:]]
    small, large = (peak - before for *_, before, peak in measured)
    assert len(list((tmp_path / "16" / "merged").glob("*.safetensors"))) > 8
    assert sizes[16] > 100e6
    assert sizes[16] - sizes[4] > 70e6
    assert max(small, large) < 64, "a file filling, one being written, and the work on one tensor"


def _run(runs: Path, **values: Any) -> Run:
    return Run("06_ablation", runs / "smoke", load("smoke", values))


def test_ratio_grid_adds_rows_that_the_table_lacks() -> None:
    table = with_ratio_grid(load_systems(), load("smoke"))
    assert table == [row for row in load_systems() if row.init not in PUBLISHED], "their models are not named"
    params = load("smoke", {"ratio_grid": [1 / 19, 0.1, 0.25, 0.75, 0.1]})
    rows = with_ratio_grid(load_systems(), params)
    added = rows[len(table) :]
    assert [row.name for row in added] == ["slerp@0.1+cpo", "slerp@0.75+cpo"], "1:18 and 1:3 are in the table"
    assert [row.label for row in added] == ["SLERP+CPO, 1:9", "SLERP+CPO, 3:1"]
    assert all(row.notebook == "06_ablation" and row.params(params).mol2cap_share == row.mol2cap_share for row in added)
    for wrong in ([0.0], [1.0], ["0.5"], 0.5):
        with pytest.raises(ParameterError, match="ratio_grid"):
            load("smoke", {"ratio_grid": wrong})
    with pytest.raises(ParameterError, match="merge_filters"):
        load("smoke", {"merge_filters": {"mlp": 1.5}})


def test_merge_settings_of_a_row_reach_its_merge() -> None:
    from lmolt_utils.merging.step import merge_of

    params = load("smoke", {"merge_filters": {"mlp": [0.0, 1.0]}})
    row = {"label": "x", "notebook": "06_ablation", "method": "none"}

    def start(init: str, **own: Any) -> Merge | None:
        system = System.model_validate({"name": "a", "init": init, **row, **own})
        return merge_of(system, system.params(params))

    ties = start("ties", settings={"ties_density": 0.5, "merge_scale": 0.3})
    assert ties == Merge("ties", 0.5, 0.5, 0.3, (("mlp", (0.0, 1.0)),))
    assert ties.name.startswith("ties-0.5-scale0.3-filters")
    for rule in RULES:
        usual, shared = start(rule), start(rule, mol2cap_share=0.25)
        assert usual is not None
        assert shared is not None
        assert usual.share == pytest.approx(0.5 if rule in TRIMMING_RULES else 1 / 19)
        assert (shared.rule, shared.share) == (rule, 0.25)
    assert start("cap2mol") is None


def test_deleted_merges_make_nothing_run_again_and_come_back_when_needed(runs: Path) -> None:
    from lmolt_utils.training.experiment import make_system

    run = _run(runs, keep_merges=False, test_rows=4, max_new_tokens=4)
    test = pd.DataFrame({"id": ["1", "2"], "molecule": ["CCO", "CCC"], "caption": ["An alcohol.", "An alkane."]})
    test["properties"] = ["solvent", "fuel"]
    run.path("data").mkdir(parents=True)
    test.to_json(run.path("data", "test.jsonl"), orient="records", lines=True, force_ascii=False)
    row = {"notebook": "06_ablation", "init": "slerp", "method": "none"}
    own = System(name="own", label="own", mol2cap_share=0.4, **row)
    shared = System(name="shared", label="shared", mol2cap_share=0.6, **row)
    table = [own, shared, System(name="twin", label="twin", mol2cap_share=0.6, **row)]
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
    receipt = run.finish()  # the receipt holds the fingerprint of what was there
    assert any(name.endswith("slerp-0.4") for name in receipt["file"])

    # Two seeds of one point share its merge: it goes after the second.
    first = System(name="first", label="first", mol2cap_share=0.7, **row)
    second = System(name="second", label="second", mol2cap_share=0.7, settings={"seed": 1}, **row)
    lines.clear()
    make_sweep(run, [first, second], [*table, first, second], say=lines.append)
    assert emptied(run.path("models", "slerp-0.7"))
    assert [line for line in lines if "weights deleted" in line] == [lines[-1]]
    other = first.model_copy(update={"name": "other", "notebook": "05_merging", "mol2cap_share": 0.8})
    make_sweep(run, [other], [*table, other])
    assert not emptied(run.path("models", "slerp-0.8")), "05_merging makes it too"

    before = fingerprint(deleted)
    run.path("predictions", "own.mol2cap.jsonl").unlink()
    lines.clear()
    make_system(run, own, lines.append)
    assert sum("up to date" not in line for line in lines) == 1, lines
    assert (deleted / "model.safetensors").exists()
    assert fingerprint(deleted) == before, "the merge made again is the merge that was"
