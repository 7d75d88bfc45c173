"""Adapters on disk: saved with the identity of their base model, and refused on another one."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lmolt_utils.files import fingerprint, read_json, write_json
from lmolt_utils.models.loading import Kind, ModelError, load_model, load_tokenizer, model_identity

BASE, CONFIG, WEIGHTS = "base.json", "adapter_config.json", "adapter_model.safetensors"


def base_identity(initial: str) -> str:
    """What identifies a base model: the hash of its folder, or its hub id."""
    found = model_identity(initial)
    return fingerprint(found) if isinstance(found, Path) else found


def save_adapter(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, initial: str) -> None:
    """The adapter, its tokenizer and the identity of its base; equal trainings leave equal files."""
    model.save_pretrained(folder, save_embedding_layers=False)
    tokenizer.save_pretrained(folder)
    name = Path(initial).name if Path(initial).is_absolute() else initial
    config = read_json(folder / CONFIG)
    config["target_modules"] = sorted(config["target_modules"])  # PEFT writes a set, in any order,
    config["base_model_name_or_path"] = name  # and this machine's path to the model,
    write_json(folder / CONFIG, config)
    (folder / "README.md").unlink(missing_ok=True)  # also in an empty card
    write_json(folder / BASE, {"base": name, "identity": base_identity(initial)})


def check_adapter(adapter: Path, initial: str) -> None:
    """Raise :class:`ModelError` when ``adapter`` has no safetensors weights, or was trained on another model."""
    if not (adapter / WEIGHTS).is_file():
        raise ModelError(f"adapter {adapter} has no {WEIGHTS}, and pickled weights are never opened: train it again")
    if (adapter / BASE).is_file() and (made_for := read_json(adapter / BASE))["identity"] != base_identity(initial):
        raise ModelError(
            f"adapter {adapter} was trained on another model than {initial} (on {made_for['base']}, "
            f"{made_for['identity'][:12]}): name that one, or train the adapter again"
        )


def check_vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase, reference: str) -> None:
    """Raise :class:`ModelError` when the tokenizer has ids that the model has no embedding for."""
    largest, rows = max(tokenizer.get_vocab().values()), model.get_input_embeddings().weight.shape[0]
    if largest >= rows:
        raise ModelError(
            f"{reference}: the tokenizer's ids go up to {largest}, the model has {rows} embeddings: get the model's own"
        )


def load_trained(
    initial: str,
    adapter: Path | None,
    *,
    device: str,
    dtype: str,
    quantize: str,
    kind: Kind = "causal",
    remote_code: bool = False,
) -> tuple[Any, PreTrainedTokenizerBase]:
    """The initial model, with its adapter if there is one, and its tokenizer.

    Raises :class:`ModelError` before any weights are read when the adapter does not belong to ``initial``.
    """
    if adapter is not None:
        check_adapter(adapter, initial)
    tokenizer = load_tokenizer(initial, remote_code=remote_code)
    model = load_model(initial, kind, device=device, dtype=dtype, quantize=quantize, remote_code=remote_code)
    check_vocabulary(model, tokenizer, initial)
    if adapter is not None:
        try:
            model = PeftModel.from_pretrained(model, str(adapter), use_safetensors=True).eval()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"adapter {adapter} does not fit {initial}: {str(error).splitlines()[0]}") from error
        if quantize == "none" and dtype == "float32":  # bfloat16 weights would swallow most of a small update
            with torch.no_grad():
                model = model.merge_and_unload()  # the same function, without two small products per layer
    return model, tokenizer
