"""Merging the two per-task models with mergekit: SLERP, TIES and the linear soup.

The papers give one ratio, 1:18 (Mol2Cap:Cap2Mol), so a share of 1/19 for mol2cap. SLERP interpolates full
weights (mergekit's rule); TIES works on task vectors, so it needs the base that both models were tuned from.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from lmolt_utils.files import atomic_folder
from lmolt_utils.models import locate

RULES = ("slerp", "ties", "soup")


@dataclass(frozen=True)
class Merge:
    """How two models become one; ``share`` is mol2cap's (SLERP and soup), ``density`` what TIES keeps."""

    rule: str
    share: float
    density: float

    def relevant(self) -> dict[str, Any]:
        """The values that can change the result: what its record is keyed by."""
        return {"rule": self.rule} | ({"density": self.density} if self.rule == "ties" else {"share": self.share})


def configuration(merge: Merge, *, base: str, cap2mol: str, mol2cap: str) -> dict[str, Any]:
    """The mergekit configuration of a merge; models are local folders, as absolute paths, or hub ids.

    Raises ``ValueError`` for an unknown rule.
    """
    if merge.rule == "slerp":
        return {
            "merge_method": "slerp",
            "base_model": cap2mol,
            "models": [{"model": cap2mol}, {"model": mol2cap}],
            "parameters": {"t": merge.share},
            "dtype": "float32",
        }
    if merge.rule == "ties":  # L4M §3.2.1: top 20 % of each task vector, sign conflicts resolved
        task = {"weight": 1.0, "density": merge.density}
        return {
            "merge_method": "ties",
            "base_model": base,
            "models": [{"model": cap2mol, "parameters": task}, {"model": mol2cap, "parameters": dict(task)}],
            "parameters": {"normalize": True},
            "dtype": "float32",
        }
    if merge.rule == "soup":
        return {
            "merge_method": "linear",
            "models": [
                {"model": cap2mol, "parameters": {"weight": 1 - merge.share}},
                {"model": mol2cap, "parameters": {"weight": merge.share}},
            ],
            "parameters": {"normalize": True},
            "dtype": "float32",
        }
    raise ValueError(f"no merge rule {merge.rule!r}: {', '.join(RULES)}")


def merge_models(merge: Merge, folder: Path, *, base: str, cap2mol: str, mol2cap: str) -> None:
    """Merge with mergekit into ``folder`` (weights, tokenizer, configuration, mergekit's own YAML)."""
    from mergekit.config import MergeConfiguration  # importing mergekit takes seconds: only where it is used
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    models = {"base": locate(base), "cap2mol": locate(cap2mol), "mol2cap": locate(mol2cap)}
    config = MergeConfiguration.model_validate(configuration(merge, **models))
    with atomic_folder(folder) as part:
        run_merge(
            config,
            str(part),
            options=MergeOptions(copy_tokenizer=True, cuda=False, quiet=True, write_model_card=False),
        )
        _strip_paths(part / "mergekit_config.yml", models)


def _strip_paths(config: Path, models: dict[str, str]) -> None:
    """Replace this machine's paths by the models' roles, so that equal merges give equal bytes."""
    if config.is_file():
        text = config.read_text(encoding="utf-8")
        for role, place in sorted(models.items(), key=lambda item: -len(item[1])):
            text = text.replace(place, role)
        config.write_text(text, encoding="utf-8")


def weights(reference: str) -> dict[str, torch.Tensor]:
    """All tensors of a model folder (small ones: everything is held in memory), as float32."""
    tensors = {}
    for file in sorted(Path(locate(reference)).glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118  (no mapping)
                tensors[name] = handle.get_tensor(name).float()
    return tensors


def compare(merged: str, cap2mol: str, mol2cap: str) -> dict[str, float]:
    """Where a merge lies between its parents: relative distances, and the parents' cosine.

    ``to_cap2mol`` and ``to_mol2cap`` are distances to the parents, over the distance between them;
    ``cosine`` is that of all weights. A cosine near 1 means that SLERP is linear interpolation.
    """
    first, second, middle = weights(cap2mol), weights(mol2cap), weights(merged)
    names = sorted(first)

    def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([tensors[name].flatten() for name in names])

    a, b, m = flat(first), flat(second), flat(middle)
    apart = torch.linalg.vector_norm(a - b)
    return {
        "to_cap2mol": float(torch.linalg.vector_norm(m - a) / apart),
        "to_mol2cap": float(torch.linalg.vector_norm(m - b) / apart),
        "cosine": float(torch.nn.functional.cosine_similarity(a, b, dim=0)),
    }


def mergekit_yaml(folder: Path) -> str:
    """The mergekit YAML kept beside a merged model."""
    path = folder / "mergekit_config.yml"
    return path.read_text(encoding="utf-8") if path.is_file() else json.dumps({})
