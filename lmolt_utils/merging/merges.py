"""Merging the two per-task models with mergekit, once for all systems that start from the same merge.

SLERP and the soup mix whole weights; NuSLERP and the TIES rules mix task vectors, the differences from the base. L4M
writes SLERP of task vectors, which is NuSLERP, and cites mergekit's SLERP, which takes whole weights (audit D39).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import yaml

from lmolt_utils.config.params import Params
from lmolt_utils.config.systems import TRIMMING, System
from lmolt_utils.files import atomic_folder, emptied, write_text
from lmolt_utils.merging.checks import check_parents, check_space, headers, local_folder
from lmolt_utils.models.loading import model_identity
from lmolt_utils.run.notebook import Run

#: mergekit's name of each rule.
METHODS = {"slerp": "slerp", "nuslerp": "nuslerp", "soup": "linear", "ties": "ties", "half_sum_ties": "half_sum_ties"}
#: Rules on task vectors: they need the base model.
TASK_VECTOR_RULES = ("nuslerp", "ties", "half_sum_ties")
#: Largest file written, in bytes: mergekit holds it in memory until it is full.
_SHARD_BYTES = 500_000_000


@dataclass(frozen=True)
class Merge:
    """Which models (folders, ``embedded:`` names or hub ids) become one, and how.

    ``share`` is mol2cap's; ``density`` is the share of each task vector that the TIES rules keep; ``dtype`` is the type
    written (mergekit computes in float32).
    """

    rule: str
    share: float
    density: float = 0.2
    dtype: str = "float32"
    _: KW_ONLY
    base: str
    cap2mol: str
    mol2cap: str
    #: Where mergekit computes: trimming a 7B task vector takes it an hour or two on a CPU.
    device: str = "cpu"

    @property
    def models(self) -> dict[str, str]:
        """The models that are read, by role: the base only where the rule has task vectors."""
        models = {"cap2mol": self.cap2mol, "mol2cap": self.mol2cap}
        return {**models, "base": self.base} if self.rule in TASK_VECTOR_RULES else models

    @property
    def name(self) -> str:
        """Its file name: ``slerp-0.05263`` (share) or ``ties-0.2`` (density), then what is not usual."""
        trims = self.rule in TRIMMING
        words = [self.rule, f"{self.density if trims else self.share:.4g}"]
        words += [f"share{self.share:.4g}"] if trims and self.share != 0.5 else []
        words += [self.dtype] if self.dtype != "float32" else []
        return "-".join(words)

    def relevant(self) -> dict[str, Any]:
        """The settings that can change the result: its provenance record is keyed by them."""
        density = {"density": self.density} if self.rule in TRIMMING else {}
        device = {"device": self.device} if self.device != "cpu" else {}  # another device rounds otherwise
        return {"rule": self.rule, "share": self.share, "dtype": self.dtype, **density, **device}


def merge_of(system: System, params: Params) -> Merge | None:
    """The merge that ``system`` starts from under ``params`` (its own settings applied), or ``None``."""
    if not system.merged:
        return None
    models = {role: getattr(params, f"{role}_model") for role in ("base", "cap2mol", "mol2cap")}
    share, density = params.mol2cap_share, params.ties_density
    return Merge(system.init, share, density, params.merge_dtype, **models, device=params.device)


def make_merge(run: Run, merge: Merge, say: Callable[[str], None] = print) -> Path:
    """The folder of ``merge`` among the run's models; it is made unless it is there."""
    folder = run.path("models", merge.name)
    run.step(
        f"merge {folder.name}",
        lambda _: merge_models(merge, folder),
        outputs=[folder, yaml_path(folder)],
        params=merge.relevant(),
        inputs={role: model_identity(name) for role, name in merge.models.items()},
        say=say,
    )
    return folder


def with_weights(merge: Merge | None, initial: str) -> str:
    """``initial``, merged again if it is a merge whose weights were deleted after their last use."""
    if merge is not None and emptied(Path(initial)):
        merge_models(merge, Path(initial))
    return initial


def merge_models(merge: Merge, folder: Path) -> None:
    """Merge with mergekit into ``folder`` (weights, tokenizer, configuration); the YAML is written beside it."""
    check_parents(merge.models)
    check_space(folder, headers(merge.cap2mol), merge.dtype)
    text = mergekit_yaml(merge)
    places = {role: local_folder(name) for role, name in merge.models.items()}
    with atomic_folder(folder) as part:
        _run(configuration(merge, places), part, merge.device)
        for file in part.iterdir():
            os.chmod(file, 0o644)  # mergekit's weights are for their owner alone
    write_text(yaml_path(folder), text)


def configuration(merge: Merge, models: Mapping[str, str]) -> dict[str, Any]:
    """mergekit's configuration; ``models``: where each of ``merge.models`` lies, as an absolute path or hub id.

    With a share of 1/2 the weights of ``half_sum_ties`` are the half that L4M writes before the sum.
    """
    cap2mol, mol2cap = models["cap2mol"], models["mol2cap"]
    config: dict[str, Any] = {"merge_method": METHODS[merge.rule], "dtype": "float32"}
    if "base" in models:
        tuned, base = headers(cap2mol), headers(models["base"])
        if any(tuned[name].shape != base[name].shape for name in tuned):
            config["tokenizer"] = {"source": cap2mol}  # the base's further rows are left out
    if merge.dtype != "float32":
        config["out_dtype"] = merge.dtype
    if merge.rule == "slerp":
        parents = [{"model": cap2mol}, {"model": mol2cap}]
        return config | {"base_model": cap2mol, "models": parents, "parameters": {"t": merge.share}}
    density = {"density": merge.density} if merge.rule in TRIMMING else {}
    config["models"] = [
        {"model": cap2mol, "parameters": {"weight": 1 - merge.share, **density}},
        {"model": mol2cap, "parameters": {"weight": merge.share, **density}},
    ]
    if merge.rule in ("soup", "ties"):
        config["parameters"] = {"normalize": True}
    if merge.rule in TASK_VECTOR_RULES:
        config["base_model"] = models["base"]
    return config


def yaml_path(folder: Path) -> Path:
    """Where the mergekit YAML of a merge lies: it outlives the weights."""
    return folder.with_name(f"{folder.name}.mergekit.yml")


def mergekit_yaml(merge: Merge) -> str:
    """The mergekit YAML of a merge, with the command that runs it in a comment; hub ids have a revision."""
    models = {role: str(model_identity(name)) for role, name in merge.models.items()}
    command = "python -m lmolt_utils.merging.half_sum_ties" if merge.rule == "half_sum_ties" else "mergekit-yaml"
    return f"# {command} THIS_FILE OUTPUT_FOLDER\n{yaml.safe_dump(configuration(merge, models), sort_keys=False)}"


def _run(config: dict[str, Any], folder: Path, device: str) -> None:
    """Run mergekit in this process: importing it takes seconds."""
    from mergekit.config import MergeConfiguration
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    from lmolt_utils.merging.half_sum_ties import register

    register()
    options = MergeOptions(
        copy_tokenizer=True, cuda=device == "cuda", quiet=True, write_model_card=False, out_shard_size=_SHARD_BYTES
    )
    try:
        run_merge(MergeConfiguration.model_validate(config), str(folder), options=options)
    finally:
        LoaderCache().loaders.clear()  # else a model trained again would be read as it was
