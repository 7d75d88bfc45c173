"""What must hold before two models are merged, decided from the headers of their files: seconds, also at 7B.

Without these checks mergekit would open pickled weights, widen or cut nothing but stop after minutes, or mix two
vocabularies row by row.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import get_safetensors_metadata, snapshot_download
from huggingface_hub.errors import NotASafetensorsRepoError
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer

from lmolt_utils.files import read_json
from lmolt_utils.models.loading import HUB_TROUBLES, ModelError, locate, pretrained, split_hub_id

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
#: Llamas of 2023 carry their rotary frequencies in their files: no weights, and computed again by every loader.
_BUFFER = "rotary_emb.inv_freq"
#: safetensors' and torch's names of the float types.
FLOATS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
#: What a merge needs of a hub model: no pickled weights, no code.
NEEDED_FILES = ["*.safetensors", "*.json", "tokenizer.model", "*.jinja", "merges.txt", "vocab.txt"]


class MergeError(ModelError):
    """Two models that cannot be merged; the message names the tensor or token, both sides and the remedy."""


@dataclass(frozen=True)
class Header:
    """Type (safetensors' name: F32, BF16, F16 ...) and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def shards(folder: Path) -> dict[str, Path]:
    """Which file of a model folder holds each tensor, from the index or the single file's header.

    Raises :class:`MergeError` when the weights are pickled only (opening them runs code that came with them), go by
    other names than transformers', or miss a shard that the index names.
    """
    if (folder / INDEX).is_file():
        listed = read_json(folder / INDEX)["weight_map"].items()
        places = {name: folder / file for name, file in listed if not name.endswith(_BUFFER)}
        for file in sorted(set(places.values())):
            if not file.is_file():
                raise MergeError(f"{file} is missing, though {INDEX} names it: download the model again")
        return places
    if (folder / SINGLE).is_file():
        with _opened(folder / SINGLE) as handle:
            names = [name for name in handle.keys() if not name.endswith(_BUFFER)]  # noqa: SIM118 (no mapping)
            return dict.fromkeys(names, folder / SINGLE)
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickled:
        raise MergeError(
            f"{folder} has only pickled weights ({pickled[0]}), which can run code when opened: they are refused; "
            "get the safetensors version, or convert it where you trust it (save_pretrained writes safetensors)"
        )
    raise MergeError(f"{folder} has neither {SINGLE} nor {INDEX}: download or train the model again")


def _opened(file: Path) -> Any:
    try:
        return safe_open(str(file), framework="pt")
    except (SafetensorError, OSError) as error:
        raise MergeError(f"{file} is damaged ({error}): get the model again") from error


def headers(reference: str) -> dict[str, Header]:
    """Type and shape of every tensor of a model (folder, ``embedded:`` name or hub id) without reading a weight.

    A hub model's headers are fetched alone, not its weights. Raises :class:`MergeError` or
    :class:`~lmolt_utils.models.loading.ModelError` naming the model and the remedy.
    """
    folder = Path(reference)
    if not folder.is_dir():
        found = locate(reference)
        if not Path(found).is_dir():
            return _hub_headers(found)
        folder = Path(found)
    tensors: dict[str, Header] = {}
    places = shards(folder)
    for file in sorted(set(places.values())):
        with _opened(file) as handle:
            for name in sorted(set(handle.keys()) & set(places)):
                part = handle.get_slice(name)
                tensors[name] = Header(part.get_dtype(), tuple(part.get_shape()))
    missing = sorted(set(places) - set(tensors))
    if missing:
        raise MergeError(f"{folder}: {INDEX} names {missing[0]}, but no file holds it: download the model again")
    return tensors


def _hub_headers(reference: str) -> dict[str, Header]:
    try:
        name, revision = split_hub_id(reference)
        metadata = get_safetensors_metadata(name, revision=revision)
    except NotASafetensorsRepoError:
        raise MergeError(
            f"{reference} has no safetensors weights on the hub, and pickled ones are refused: choose a revision or "
            "a copy with safetensors"
        ) from None
    except HUB_TROUBLES as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MergeError(
            f"{reference} is no folder here and the hub does not give it ({problem}): check the name, the network, "
            "and whether the model asks for a login"
        ) from None
    return {
        name: Header(str(tensor.dtype), tuple(tensor.shape))
        for file in metadata.files_metadata.values()
        for name, tensor in file.tensors.items()
        if not name.endswith(_BUFFER)
    }


def local_folder(reference: str) -> str:
    """The model's folder on this machine; a hub model's safetensors and JSON files are downloaded (once)."""
    found = locate(reference)
    if Path(found).is_dir():
        return found
    name, revision = split_hub_id(found)
    return str(snapshot_download(name, revision=revision, allow_patterns=NEEDED_FILES))


def vocabulary(reference: str) -> dict[str, int]:
    """Token to id, added tokens included; raises :class:`MergeError` when the model has no tokenizer."""
    try:
        return dict(AutoTokenizer.from_pretrained(**pretrained(reference)).get_vocab())
    except (OSError, ValueError) as error:
        raise MergeError(
            f"{reference} has no usable tokenizer ({str(error).splitlines()[0]}): copy the files of the tokenizer "
            "it was trained with into its folder"
        ) from None


def check_parents(models: Mapping[str, str]) -> None:
    """Refuse to merge what does not fit. ``models``: role (cap2mol, mol2cap, base) to folder or hub id.

    All must have the same tensors, in the same shapes and types, and the same tokens under the same ids. The base
    alone may have another float type (its task vectors are computed in float32) and more rows in its vocabulary, as
    long as they come after those of the two. Two roles of one model are refused: the merge would be that model.
    Raises :class:`MergeError`.
    """
    roles = list(models)
    first, *others = roles
    for place, role in enumerate(roles):
        for earlier in roles[:place]:
            if locate(models[role]) == locate(models[earlier]):
                raise MergeError(f"{role} and {earlier} are both {models[role]}: a merge needs two different models")
    found = {role: headers(models[role]) for role in roles}
    for role in others:
        other = _as_base(found[first], found[role]) if role == "base" else found[role]
        _same_tensors(f"{first} ({models[first]})", found[first], f"{role} ({models[role]})", other)
    tokens = {role: vocabulary(models[role]) for role in roles}
    last = max(tokens[first].values(), default=0)
    for role in others:
        other_tokens = tokens[role]
        if role == "base":
            other_tokens = {token: number for token, number in other_tokens.items() if number <= last}
        _same_tokens(f"{first} ({models[first]})", tokens[first], f"{role} ({models[role]})", other_tokens)


def vocabularies_differ(one: Mapping[str, Header], other: Mapping[str, Header]) -> bool:
    """Whether two models that fit have unequal numbers of rows in their vocabulary."""
    return any(one[name].shape != other[name].shape for name in one)


def _as_base(tuned: Mapping[str, Header], base: Mapping[str, Header]) -> dict[str, Header]:
    """The headers of ``base`` with what may differ from those of ``tuned`` made equal."""
    kept = {}
    for name, header in base.items():
        own = tuned.get(name)
        if own is not None and {own.dtype, header.dtype} <= set(FLOATS):
            more_rows = header.shape[1:] == own.shape[1:] and header.shape[:1] > own.shape[:1] and _of_tokens(name)
            header = Header(own.dtype, own.shape if more_rows else header.shape)
        kept[name] = header
    return kept


def _of_tokens(name: str) -> bool:
    """Whether a tensor has a row per token."""
    return "embed" in name or "lm_head" in name


def _same_tensors(one: str, first: dict[str, Header], two: str, second: dict[str, Header]) -> None:
    for here, there, mine, theirs in ((one, two, first, second), (two, one, second, first)):
        extra = sorted(set(mine) - set(theirs))
        if extra:
            raise MergeError(
                f"{here} has {len(extra)} tensors that {there} lacks, first {extra[0]}: only fine-tunes of one "
                "architecture can be merged (an adapter must be merged into its base first)"
            )
    shapes = [name for name in first if first[name].shape != second[name].shape]
    if shapes:
        name = shapes[0]
        words = "resize one vocabulary to the other" if _of_tokens(name) else "choose two of a size"
        raise MergeError(
            f"{len(shapes)} tensors differ in shape, first {name}: {list(first[name].shape)} in {one}, "
            f"{list(second[name].shape)} in {two}; {words}"
        )
    types = [name for name in first if first[name].dtype != second[name].dtype]
    if types:
        name = types[0]
        raise MergeError(
            f"{len(types)} tensors differ in type, first {name}: {first[name].dtype} in {one}, {second[name].dtype} "
            f"in {two}; save one of them in the other's type (a silent cast would hide which digits are real)"
        )


def _same_tokens(one: str, first: dict[str, int], two: str, second: dict[str, int]) -> None:
    different = sorted(token for token in {*first, *second} if first.get(token) != second.get(token))
    if different:
        shown = ", ".join(f"{token!r}: {first.get(token)} and {second.get(token)}" for token in different[:3])
        raise MergeError(
            f"the tokenizers of {one} and {two} give {len(different)} tokens different ids ({shown}): their embedding "
            "rows mean different things; merge models that kept their base's tokenizer"
        )


def check_space(folder: Path, tensors: Mapping[str, Header], dtype: str) -> None:
    """Refuse to start when the disk that will hold ``folder`` has less room than the merged weights need."""
    width = {"float32": 4, "bfloat16": 2, "float16": 2}[dtype]
    needed = width * sum(_elements(header.shape) for header in tensors.values())
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise MergeError(
            f"{folder} needs {needed / 1e9:.1f} GB and {place} has {free / 1e9:.1f} GB left: free some space, or set "
            "LMOLT_RUNS to another disk"
        )


def stored_type(*models: Mapping[str, Header]) -> str | None:
    """torch's name of the type that all tensors have, or ``None`` when they differ or it is no usual one."""
    types = {header.dtype for tensors in models for header in tensors.values()}
    return FLOATS.get(types.pop()) if len(types) == 1 else None


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
