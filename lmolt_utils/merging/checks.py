"""What must hold before two models are merged, decided from the headers of their files: seconds, also at 7B.

mergekit itself opens pickled weights, stops after minutes at tensors that do not fit, and mixes two vocabularies row by
row.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from huggingface_hub import get_local_safetensors_metadata, get_safetensors_metadata, snapshot_download
from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError
from huggingface_hub.utils import SafetensorsRepoMetadata
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer

from lmolt_utils.models.loading import HUB_TROUBLES, ModelError, locate, pretrained, split_hub_id
from lmolt_utils.run.hub import must_have

#: Llamas of 2023 carry their rotary frequencies in their files: no weights, and computed again by every loader.
_BUFFER = "rotary_emb.inv_freq"
#: safetensors' names of the float types that a base may have beside its fine-tunes' own.
_FLOATS = {"F32", "BF16", "F16"}
#: What a merge needs of a hub model: no pickled weights, no code.
_NEEDED_FILES = ["*.safetensors", "*.json", "tokenizer.model", "*.jinja", "merges.txt", "vocab.txt"]


class MergeError(ModelError):
    """Two models that cannot be merged: which tensor or token of which, and the remedy."""


@dataclass(frozen=True)
class Header:
    """Type (safetensors' name: F32, BF16, F16 ...) and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def headers(reference: str) -> dict[str, Header]:
    """Type and shape of every tensor of a model (folder, ``embedded:`` name or hub id), without reading a weight.

    Raises :class:`MergeError` or :class:`~lmolt_utils.models.loading.ModelError` naming the model and the remedy.
    """
    found = locate(reference)
    metadata = _in_folder(Path(found)) if Path(found).is_dir() else _on_hub(found)
    tensors = {name: tensor for file in metadata.files_metadata.values() for name, tensor in file.tensors.items()}
    names = [name for name in metadata.weight_map if not name.endswith(_BUFFER)]
    return {name: Header(str(tensors[name].dtype), tuple(tensors[name].shape)) for name in names}


def shards(folder: Path) -> dict[str, Path]:
    """Which file of a model's folder holds each tensor."""
    places = _in_folder(folder).weight_map
    return {name: folder / file for name, file in places.items() if not name.endswith(_BUFFER)}


def _in_folder(folder: Path) -> SafetensorsRepoMetadata:
    try:
        metadata = get_local_safetensors_metadata(folder)
        for file in metadata.files_metadata:
            with safe_open(str(folder / file), framework="pt"):
                pass  # compares the file's length with its header
    except NotASafetensorsRepoError:
        raise MergeError(f"{folder} has no safetensors weights, and pickled ones are never opened") from None
    except (SafetensorsParsingError, SafetensorError, OSError) as error:
        raise MergeError(f"the weights in {folder} are damaged ({error}): get the model again") from error
    return metadata


def _on_hub(reference: str) -> SafetensorsRepoMetadata:
    try:
        name, revision = split_hub_id(reference)
        return get_safetensors_metadata(name, revision=revision)
    except NotASafetensorsRepoError:
        raise MergeError(f"{reference} has no safetensors weights on the hub: choose a revision that has") from None
    except HUB_TROUBLES as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MergeError(f"{reference} is no folder here, and the hub does not give it ({problem})") from None


def local_folder(reference: str) -> str:
    """The model's folder on this machine; a hub model's safetensors and JSON files are downloaded (once)."""
    found = locate(reference)
    if Path(found).is_dir():
        return found
    name, revision = split_hub_id(found)
    away = must_have(found)
    return str(snapshot_download(name, revision=revision, allow_patterns=_NEEDED_FILES, local_files_only=away))


def _vocabulary(reference: str) -> dict[str, int]:
    try:
        return dict(AutoTokenizer.from_pretrained(**pretrained(reference)).get_vocab())
    except (OSError, ValueError) as error:
        problem = str(error).splitlines()[0]
        raise MergeError(f"{reference} has no usable tokenizer ({problem}): copy its files into the folder") from None


def check_parents(models: Mapping[str, str]) -> None:
    """Refuse to merge what does not fit. ``models``: role (cap2mol, mol2cap, perhaps base) to folder or hub id.

    All must be different models with equal names, shapes and types of tensors, and equal ids of tokens. The base alone
    may have another float type (merges are computed in float32) and further tokens after those of the two.
    """
    first, *others = models
    for earlier, role in combinations(models, 2):
        if locate(models[role]) == locate(models[earlier]):
            raise MergeError(f"{role} and {earlier} are both {models[role]}: a merge needs two different models")
    found = {role: headers(name) for role, name in models.items()}
    for role in others:
        theirs = _as_base(found[first], found[role]) if role == "base" else found[role]
        _same_tensors(f"{first} ({models[first]})", found[first], f"{role} ({models[role]})", theirs)
    tokens = {role: _vocabulary(name) for role, name in models.items()}
    last = max(tokens[first].values(), default=0)
    for role in others:
        known = {token: number for token, number in tokens[role].items() if role != "base" or number <= last}
        _same_tokens(f"{first} ({models[first]})", tokens[first], f"{role} ({models[role]})", known)


def _as_base(tuned: Mapping[str, Header], base: Mapping[str, Header]) -> dict[str, Header]:
    """The headers of ``base``, those that may differ from ``tuned`` replaced by those of ``tuned``."""
    kept = dict(base)
    for name in base.keys() & tuned.keys():
        own, header = tuned[name], base[name]
        if {own.dtype, header.dtype} <= _FLOATS:
            row_per_token = "embed" in name or "lm_head" in name
            more_rows = row_per_token and header.shape[1:] == own.shape[1:] and header.shape[:1] > own.shape[:1]
            kept[name] = Header(own.dtype, own.shape if more_rows else header.shape)
    return kept


def _same_tensors(one: str, first: Mapping[str, Header], two: str, second: Mapping[str, Header]) -> None:
    if different := sorted(first.keys() ^ second.keys()):
        here, there = (one, two) if different[0] in first else (two, one)
        raise MergeError(
            f"{len(different)} tensors are in one model only, first {different[0]} in {here}, not in {there}: only "
            "fine-tunes of one architecture can be merged"
        )
    remedies = {"shape": "choose two of a size and vocabulary", "dtype": "save one of them in the other's type"}
    for what, remedy in remedies.items():
        if different := [name for name in first if getattr(first[name], what) != getattr(second[name], what)]:
            mine, theirs = (getattr(model[different[0]], what) for model in (first, second))
            raise MergeError(
                f"{len(different)} tensors differ in {what}, first {different[0]}: {mine} in {one}, {theirs} in {two}; "
                f"{remedy}"
            )


def _same_tokens(one: str, first: dict[str, int], two: str, second: dict[str, int]) -> None:
    if different := sorted(token for token in {*first, *second} if first.get(token) != second.get(token)):
        shown = ", ".join(f"{token!r}: {first.get(token)} and {second.get(token)}" for token in different[:3])
        raise MergeError(
            f"the tokenizers of {one} and {two} give {len(different)} tokens different ids ({shown}): merge models "
            "that kept their base's tokenizer"
        )


def check_space(folder: Path, tensors: Mapping[str, Header], dtype: str) -> None:
    """Refuse to start when the disk that will hold ``folder`` has less room than the merged weights need."""
    needed = {"float32": 4, "bfloat16": 2}[dtype] * sum(math.prod(header.shape) for header in tensors.values())
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise MergeError(
            f"{folder} needs {needed / 1e6:,.1f} MB and {place} has {free / 1e6:,.1f} MB left: free some space, or set "
            "LMOLT_RUNS to another disk"
        )
