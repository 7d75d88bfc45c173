"""Models and tokenizers from a folder, the hub, or the package's own embedded ones, all by ``from_pretrained``.

A hub model is named ``org/name`` or ``org/name@revision``; a relative folder counts from the repository's root. Code
that comes with a model runs only if a parameter names the model.
"""

import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedTokenizerBase,
)

from lmolt_utils.errors import CompanionError
from lmolt_utils.files import emptied
from lmolt_utils.paths import from_root
from lmolt_utils.run.hub import answers, must_have

Kind = Literal["causal", "translator", "classifier"]
_CLASSES: dict[Kind, Any] = {
    "causal": AutoModelForCausalLM,
    "translator": AutoModelForSeq2SeqLM,
    "classifier": AutoModelForSequenceClassification,
}
EMBEDDED = "embedded:"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
EMBEDDED_FOLDER = Path(__file__).parent.parent / "embedded" / "models"

#: What to do with a model that comes as ``pytorch_model.bin`` only, as ``laituan245/molt5-*`` do on the hub.
_UNPICKLE = "pickled weights are never opened; get the hub's converted ones (hf download ID --revision refs/pr/N)"
#: What vocabularies call a token to pad with; Llama 3 names none, but keeps reserved ones.
_PADS = ("<pad>", "<PAD>", "[PAD]", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>")
#: What keeps the hub from answering: no network, no such model. All errors of its client have HfHubHTTPError's bases.
HUB_TROUBLES: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, OSError, HFValidationError)


class ModelError(CompanionError):
    """A model that cannot be found or has no usable weights."""


def locate(reference: str) -> str:
    """The folder or hub id (``org/name@revision``) that ``reference`` means; ``embedded:NAME`` is a shipped model."""
    if reference.startswith(EMBEDDED):
        folder = EMBEDDED_FOLDER / reference.removeprefix(EMBEDDED)
        if not folder.is_dir():
            known = ", ".join(f"{EMBEDDED}{path.name}" for path in sorted(EMBEDDED_FOLDER.glob("*/")))
            raise ModelError(f"no embedded model {reference!r} (there are: {known})")
    else:
        folder = Path(from_root(reference))
        if not (folder.is_absolute() and folder.exists()):
            if folder.exists() or folder.is_absolute() or not _HUB_ID.fullmatch(reference):
                raise ModelError(f"model folder {reference} does not exist (relative ones: from the repository's root)")
            return reference
    if not (folder / "config.json").exists():
        raise ModelError(f"model folder {folder} has no config.json: download or train it again")
    if not any(folder.glob("*.safetensors")):
        remedy = f"; {_UNPICKLE}" if any(folder.glob("*.bin")) else ": download or train it again"
        raise ModelError(f"model folder {folder} has no safetensors weights{remedy}")
    return str(folder.resolve())


def model_identity(reference: str) -> Path | str:
    """What identifies a model in a record: its folder (to be hashed), or hub id and commit where one is known."""
    found = reference if emptied(Path(reference)) else locate(reference)
    if Path(found).is_dir():
        return Path(found)
    name, revision = split_hub_id(found)
    commit = _commit(name, revision)
    return f"{name}@{commit}" if commit else found


def split_hub_id(found: str) -> tuple[str, str | None]:
    name, _, revision = found.partition("@")
    return name, revision or None


@cache
def _commit(name: str, revision: str | None) -> str | None:
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    with suppress(*HUB_TROUBLES):
        if answers():
            return HfApi().model_info(name, revision=revision, timeout=10).sha
    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(cached).parent.name if isinstance(cached, str) else None


def pretrained(reference: str, *, remote_code: bool = False) -> dict[str, Any]:
    """The arguments of ``from_pretrained``: which model, which revision, and whether its own code may run.

    :class:`~lmolt_utils.errors.TryAgainError` for a hub model that is not in the cache while the hub is away.
    """
    found = locate(reference)
    here = Path(found).is_dir()
    name, revision = (found, None) if here else split_hub_id(found)
    options = {"pretrained_model_name_or_path": name, "revision": revision or "main", "trust_remote_code": remote_code}
    return options | {"local_files_only": not here and must_have(found)}


def load_tokenizer(reference: str, *, remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a pad token that is not EOS, which a loss that masks padding would never learn."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(**pretrained(reference, remote_code=remote_code))
    except (OSError, ValueError) as error:
        raise ModelError(f"{reference} has no usable tokenizer: {str(error).splitlines()[0]}") from error
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        names = [name for name in (*_PADS, tokenizer.unk_token) if name and name != tokenizer.eos_token]
        known = [name for name in names if name in tokenizer.get_vocab()]
        if not known:
            raise ModelError(f"{reference}: the tokenizer has no pad token apart from EOS; add one to its folder")
        tokenizer.pad_token = known[0]
    return tokenizer


def load_model(
    reference: str,
    kind: Kind,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    quantize: str = "none",
    remote_code: bool = False,
) -> Any:
    """The model in evaluation mode on ``device``; ``quantize='nf4'`` is QLoRA's 4-bit form (L4M Fig. 13)."""
    options = pretrained(reference, remote_code=remote_code)
    options |= {"dtype": getattr(torch, dtype), "use_safetensors": True}
    if device == "cpu" and kind == "causal":
        # At short lengths the fused kernel's backward pass costs a CPU a third of a training step.
        options["attn_implementation"] = "eager"
    if quantize == "nf4":
        options["device_map"] = {"": torch.cuda.current_device() if device == "cuda" else device}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    try:
        model = _CLASSES[kind].from_pretrained(**options)
    except SafetensorError as error:
        raise ModelError(f"{reference}: the weights are damaged ({error}); get the model again") from error
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if "use_safetensors=True" in str(error):  # Transformers advises to unpickle
            raise ModelError(f"{reference} has no safetensors weights; {_UNPICKLE}") from error
        raise ModelError(f"{reference} cannot be loaded as a {kind} model: {str(error).splitlines()[0]}") from error
    if quantize == "nf4":
        same_on_every_processor(model)
    return (model if quantize == "nf4" else model.to(device)).eval()


def same_on_every_processor(model: Any) -> None:
    """Switch off what bitsandbytes does on processors with AVX512-BF16 only: repacking weights at the first forward.

    That fails where a layer's width is no multiple of 32 (a classifier's head), and a repacked layer passes no gradient
    (DPO and KTO, which compute reference log-probabilities first, would train next to nothing).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def labels(reference: str) -> dict[int, str]:
    """The classifier's labels in lower case, by index."""
    try:
        config = AutoConfig.from_pretrained(**pretrained(reference))
    except (OSError, ValueError) as error:
        raise ModelError(f"{reference} has no usable configuration: {str(error).splitlines()[0]}") from error
    return {int(index): str(name).lower() for index, name in config.id2label.items()}
