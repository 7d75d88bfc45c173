"""Merging the two per-task models with mergekit.

The papers give one ratio, 1:18 (Mol2Cap:Cap2Mol), so a share of 1/19 for mol2cap (audit D38). SLERP and the soup mix
weights; NuSLERP, TIES, task arithmetic and DARE-TIES mix task vectors, so they need the base that both models were
tuned from (audit D40). L4M writes SLERP of task vectors, which is NuSLERP; mergekit's SLERP, which the papers cite,
takes whole weights (audit D39).

mergekit streams: it opens one shard of each model at a time, and holds what it writes until a shard is full. Its TIES
is computed piece by piece here (:mod:`lmolt_utils.merging.ties`).
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

from lmolt_utils.errors import CompanionError
from lmolt_utils.files import atomic_folder, write_text
from lmolt_utils.merging.checks import (
    check_parents,
    check_space,
    headers,
    local_folder,
    shards,
    stored_type,
    vocabularies_differ,
)
from lmolt_utils.models.loading import model_identity

#: mergekit's name of each rule.
METHODS = {
    "slerp": "slerp",
    "nuslerp": "nuslerp",
    "soup": "linear",
    "task_arithmetic": "task_arithmetic",
    "ties": "ties",
    "dare_ties": "dare_ties",
    "half_sum_ties": "half_sum_ties",
}
RULES = tuple(METHODS)
#: Rules on task vectors: they need the base model.
TASK_VECTOR_RULES = ("nuslerp", "task_arithmetic", "ties", "dare_ties", "half_sum_ties")
#: Rules that keep a share of each task vector.
TRIMMING_RULES = ("ties", "dare_ties", "half_sum_ties")
#: Rules with a factor on the merged task vector.
SCALED_RULES = ("task_arithmetic", "ties", "dare_ties", "half_sum_ties")
#: Largest file written, in bytes: it is held in memory until it is full, and while it is written beside the next.
SHARD_BYTES = 500_000_000

#: One value for all layers, or several: spread evenly over the layers, interpolated between (mergekit's gradient).
Share = float | tuple[float, ...]


@dataclass(frozen=True)
class Merge:
    """How two models become one.

    ``share`` is mol2cap's, cap2mol has the rest. ``density`` is what the TIES rules keep of each task vector, ``scale``
    the factor λ on the merged task vector. ``filters`` give other shares to tensors whose name contains a text (the
    first that fits counts), such as ``(("embed_tokens", 0.0), ("self_attn", (0.0, 0.5)))``; a gradient's first value
    holds for embeddings, final norm and head. ``dtype`` is what is written; mergekit computes in float32.
    ``seed`` decides what DARE drops.
    """

    rule: str
    share: float
    density: float = 0.2
    scale: float = 1.0
    filters: tuple[tuple[str, Share], ...] = ()
    dtype: str = "float32"
    seed: int = 0

    def relevant(self) -> dict[str, Any]:
        """The values that can change the result: what its record is keyed by."""
        kept: dict[str, Any] = {"rule": self.rule, "share": self.share, "dtype": self.dtype}
        if self.rule in TRIMMING_RULES:
            kept["density"] = self.density
        if self.rule in SCALED_RULES:
            kept["scale"] = self.scale
        if self.rule == "dare_ties":
            kept["seed"] = self.seed
        if self.filters:
            kept["filters"] = [[part, list(v) if isinstance(v, tuple) else v] for part, v in self.filters]
        return kept

    @property
    def name(self) -> str:
        """A file name of its own: ``slerp-0.05263``, ``ties-0.2``; what is not usual is spelled out after it."""
        if self.rule in TRIMMING_RULES:
            words = [f"{self.rule}-{self.density:.4g}"]
            words += [f"share{self.share:.4g}"] if self.share != 0.5 else []
        else:
            words = [f"{self.rule}-{self.share:.4g}"]
        kept = self.relevant()
        words += [f"scale{self.scale:.4g}"] if kept.get("scale", 1.0) != 1.0 else []
        words += [f"seed{self.seed}"] if kept.get("seed", 0) else []
        words += [self.dtype] if self.dtype != "float32" else []
        if self.filters:
            words.append("filters" + hashlib.sha256(json.dumps(kept["filters"]).encode()).hexdigest()[:8])
        return "-".join(words)


def _setting(merge: Merge, of: Callable[[float], float]) -> Any:
    """``of(share)`` as a mergekit parameter: one number, or a list of conditions with the number last."""

    def value(share: Share) -> Any:
        return [of(part) for part in share] if isinstance(share, tuple) else of(share)

    if not merge.filters:
        return of(merge.share)
    return [{"filter": part, "value": value(share)} for part, share in merge.filters] + [{"value": of(merge.share)}]


def configuration(
    merge: Merge, *, base: str, cap2mol: str, mol2cap: str, stored: str | None = None, own_tokens: bool = False
) -> dict[str, Any]:
    """The mergekit configuration of a merge; models are local folders, as absolute paths, or hub ids.

    ``stored``: the type of the models' weights, where known and the same; ``own_tokens``: the base has more rows than
    the two, which are left out. SLERP, the soup and the papers' TIES compute in float32
    block by block by themselves, so weights of the type to be written need no float32 copy first; the others do.
    Weights of the two models are their shares, which add up to 1: task arithmetic with ``scale`` 1 is the soup, and
    with a share of 1/2 the half in front of L4M's sum is what ``half_sum_ties`` multiplies by. Plain TIES divides
    by the weights again. Raises :class:`~lmolt_utils.errors.CompanionError` for an unknown rule.
    """
    if merge.rule not in METHODS:
        raise CompanionError(f"no merge rule {merge.rule!r}: {', '.join(RULES)}")
    as_stored = merge.rule in ("slerp", "soup", "half_sum_ties") and stored == merge.dtype
    common: dict[str, Any] = {"merge_method": METHODS[merge.rule], "dtype": merge.dtype if as_stored else "float32"}
    if own_tokens:
        common["tokenizer"] = {"source": cap2mol}
    if merge.dtype != common["dtype"]:
        common["out_dtype"] = merge.dtype
    if merge.rule == "slerp":
        models: list[dict[str, Any]] = [{"model": cap2mol}, {"model": mol2cap}]
        return common | {"base_model": cap2mol, "models": models, "parameters": {"t": _setting(merge, lambda s: s)}}
    # mergekit's λ multiplies the sum; a rule defined here takes it with the weights.
    factor = merge.scale if merge.rule == "half_sum_ties" else 1.0
    own: dict[str, Any] = {"density": merge.density} if merge.rule in TRIMMING_RULES else {}
    models = [
        {"model": cap2mol, "parameters": {"weight": _setting(merge, lambda s: factor * (1 - s)), **own}},
        {"model": mol2cap, "parameters": {"weight": _setting(merge, lambda s: factor * s), **own}},
    ]
    parameters: dict[str, Any] = {}
    if merge.rule in ("soup", "ties"):
        parameters["normalize"] = True
    if merge.rule in SCALED_RULES and merge.rule != "half_sum_ties":
        parameters["lambda"] = merge.scale
    config: dict[str, Any] = common | {"models": models}
    if parameters:
        config["parameters"] = parameters
    if merge.rule in TASK_VECTOR_RULES:
        config["base_model"] = base
    return config


def needed_models(merge: Merge, *, base: str, cap2mol: str, mol2cap: str) -> dict[str, str]:
    """The models that a merge reads, by role: the base only where the rule has task vectors."""
    parents = {"cap2mol": cap2mol, "mol2cap": mol2cap}
    return {**parents, "base": base} if merge.rule in TASK_VECTOR_RULES else parents


def yaml_path(folder: Path) -> Path:
    """Where the mergekit YAML of a merge lies: beside its folder, so that it outlives the weights."""
    return folder.with_name(f"{folder.name}.mergekit.yml")


def mergekit_yaml(merge: Merge, *, base: str, cap2mol: str, mol2cap: str) -> str:
    """The mergekit YAML of a merge, with the command that runs it in a comment.

    Folders are absolute paths: mergekit reads a relative one from wherever it is started.
    """
    given = {"base": base, "cap2mol": cap2mol, "mol2cap": mol2cap}
    models: dict[str, Any] = given | {
        role: str(model_identity(name)) for role, name in needed_models(merge, **given).items()
    }
    facts = _facts(merge, base=base, cap2mol=cap2mol, mol2cap=mol2cap)
    command = "python -m lmolt_utils.merging.half_sum_ties" if merge.rule == "half_sum_ties" else "mergekit-yaml"
    seed = f" --random-seed {merge.seed}" if merge.rule == "dare_ties" else ""
    body = yaml.safe_dump(configuration(merge, **models, **facts), sort_keys=False)
    mixed = "" if facts["stored"] else "# The models' weights are of several types: all are read as float32.\n"
    return f"# {command} THIS_FILE OUTPUT_FOLDER{seed}\n{mixed}{body}"


def _facts(merge: Merge, **models: str) -> dict[str, Any]:
    """What :func:`configuration` wants to know of the models' files."""
    tensors = {role: headers(name) for role, name in needed_models(merge, **models).items()}
    more = "base" in tensors and vocabularies_differ(tensors["cap2mol"], tensors["base"])
    return {"stored": stored_type(*tensors.values()), "own_tokens": more}


def merge_models(
    merge: Merge, folder: Path, *, base: str, cap2mol: str, mol2cap: str, shard_bytes: int = SHARD_BYTES
) -> None:
    """Merge with mergekit into ``folder`` (weights, tokenizer, configuration); its YAML is written beside it.

    Before anything is read, headers and tokenizers of the models are compared. Raises
    :class:`~lmolt_utils.merging.checks.MergeError` or :class:`~lmolt_utils.models.loading.ModelError` when they do not
    fit.
    """
    models = {"base": base, "cap2mol": cap2mol, "mol2cap": mol2cap}
    needed = needed_models(merge, **models)
    check_parents(needed)
    tensors = headers(cap2mol)
    check_space(folder, tensors, merge.dtype)
    text = mergekit_yaml(merge, **models)
    places: dict[str, Any] = {**models, **{role: local_folder(name) for role, name in needed.items()}}
    facts = _facts(merge, **models)
    config = configuration(merge, **places, **facts)
    if merge.rule == "ties" and facts["stored"] == merge.dtype:
        config["dtype"] = merge.dtype  # the command needs float32 copies; here TIES computes in float32 by itself
    with atomic_folder(folder) as part:
        _read_ahead({file for role in needed for file in shards(Path(places[role])).values()})
        _run(config, part, merge.seed, shard_bytes)
        for file in part.iterdir():
            os.chmod(file, 0o644)  # mergekit leaves weights that only their owner can read
    write_text(yaml_path(folder), text)


def _read_ahead(files: set[Path]) -> None:
    """Have the system fetch weights from the disk while others are merged, where all of them fit its memory."""
    if not hasattr(os, "posix_fadvise"):  # macOS
        return
    if sum(file.stat().st_size for file in files) > psutil.virtual_memory().available / 2:
        return

    def fetch() -> None:
        for file in sorted(files, key=lambda file: file.name):  # all models' first files first
            with suppress(OSError), file.open("rb") as handle:  # a small merge may be over, its parents gone
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    threading.Thread(target=fetch, daemon=True).start()


def _run(config: dict[str, Any], folder: Path, seed: int, shard_bytes: int) -> None:
    """Run mergekit in this process: importing it takes seconds, so its command per merge would not do."""
    from mergekit.config import MergeConfiguration
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    from lmolt_utils.merging.ties import ties_in_pieces

    if config["merge_method"] == METHODS["half_sum_ties"]:
        from lmolt_utils.merging.half_sum_ties import register

        register()
    options = MergeOptions(
        copy_tokenizer=True,
        cuda=False,
        quiet=True,
        write_model_card=False,
        out_shard_size=shard_bytes,
        async_write=True,
    )
    try:
        with ties_in_pieces(), torch.random.fork_rng(devices=[]):  # DARE's draws leave the run's random state alone
            torch.manual_seed(seed)
            run_merge(MergeConfiguration.model_validate(config), str(folder), options=options)
    finally:
        # mergekit keeps opened files for the life of the process: a model trained again would be read as it was.
        LoaderCache().loaders.clear()
