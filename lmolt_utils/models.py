"""Loading models: from a folder, the hub, or the package's own embedded ones, all by ``from_pretrained``."""

from pathlib import Path
from typing import Any, Literal

import torch
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

Kind = Literal["causal", "translator", "classifier"]
_CLASSES: dict[Kind, Any] = {
    "causal": AutoModelForCausalLM,
    "translator": AutoModelForSeq2SeqLM,
    "classifier": AutoModelForSequenceClassification,
}
EMBEDDED = "embedded:"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / "models"


#: What to do with a model that comes as ``pytorch_model.bin`` only, as ``laituan245/molt5-*`` do on the hub.
UNPICKLE = (
    "pickled weights are never opened: with a network the hub's own converted revision is found by itself; without, "
    "download that one elsewhere (hf download ID --revision refs/pr/N) and give the folder's path"
)


#: What vocabularies call a token to pad with; Llama 3 names none, but keeps reserved ones.
_PADS = ("<pad>", "<PAD>", "[PAD]", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>")


class ModelError(CompanionError):
    """A model that cannot be found or has no usable weights."""


def locate(reference: str) -> str:
    """The folder or hub id that ``reference`` means: ``embedded:NAME`` is a model shipped with the package.

    Raises :class:`ModelError` for an unknown embedded model, and for a folder without configuration or without
    safetensors weights (pickled weights are never opened).
    """
    if reference.startswith(EMBEDDED):
        folder = EMBEDDED_FOLDER / reference.removeprefix(EMBEDDED)
        if not folder.is_dir():
            known = ", ".join(f"{EMBEDDED}{path.name}" for path in sorted(EMBEDDED_FOLDER.glob("*/")))
            raise ModelError(
                f"no embedded model {reference!r} (there are: {known or 'none; run make embedded-models'})"
            )
    else:
        folder = Path(reference)
        if not folder.exists():
            if folder.is_absolute() or reference.startswith("."):
                raise ModelError(f"model folder {reference} does not exist")
            return reference  # a hub id
    for needed, pattern in (("config.json", "config.json"), ("safetensors weights", "*.safetensors")):
        if not any(folder.glob(pattern)):
            if needed != "config.json" and any(folder.glob("*.bin")):
                raise ModelError(f"model folder {folder} has no {needed}; {UNPICKLE}")
            raise ModelError(f"model folder {folder} has no {needed}: download or train it again")
    return str(folder.resolve())


def fingerprintable(reference: str) -> Path | str:
    """What identifies a model in a record: its folder (to be hashed, also when it was emptied), or its hub id."""
    if emptied(Path(reference)):
        return Path(reference)
    found = locate(reference)
    return Path(found) if Path(found).is_dir() else found


def load_tokenizer(reference: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a pad token that is not EOS where the vocabulary has one.

    Padding with EOS would hide EOS from a loss that masks padding by id, and the model would never learn
    to stop.
    """
    tokenizer = AutoTokenizer.from_pretrained(locate(reference))
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        for candidate in (*_PADS, tokenizer.unk_token):
            if candidate and candidate != tokenizer.eos_token and candidate in tokenizer.get_vocab():
                tokenizer.pad_token = candidate
                break
        else:
            raise ModelError(f"{reference}: the tokenizer has no pad token apart from EOS; add one to its folder")
    return tokenizer


def load_model(
    reference: str,
    kind: Kind,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    quantize: str = "none",
) -> Any:
    """The model in evaluation mode on ``device``; ``quantize='nf4'`` is QLoRA's 4-bit form (L4M Fig. 13).

    Raises :class:`ModelError` when the weights are damaged or do not fit the configuration.
    """
    found = locate(reference)
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "use_safetensors": True}
    if device == "cpu" and kind == "causal":
        # At short lengths the fused kernel's backward pass costs a CPU a third of a training step.
        options["attn_implementation"] = "eager"
    if quantize == "nf4":
        options["device_map"] = {"": device}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    try:
        model = _CLASSES[kind].from_pretrained(found, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if "use_safetensors=True" in str(error):  # Transformers advises to unpickle
            raise ModelError(f"{reference} has no safetensors weights; {UNPICKLE}") from error
        raise ModelError(f"{reference} cannot be loaded as a {kind} model: {str(error).splitlines()[0]}") from error
    except Exception as error:  # safetensors raises its own class, which derives from Exception only
        if type(error).__name__ != "SafetensorError":
            raise
        raise ModelError(f"{reference}: the weights are damaged ({error}); get the model again") from error
    if quantize == "nf4":
        _same_on_every_processor(model)
    return (model if quantize == "nf4" else model.to(device)).eval()


def _same_on_every_processor(model: Any) -> None:
    """Switch off what bitsandbytes does on a processor with AVX512-BF16 alone.

    It repacks a layer's weights at its first forward pass in evaluation mode. That fails where the layer's width is no
    multiple of 32 (a classifier's head), and a repacked layer passes no gradient: DPO and KTO, which ask the reference
    before they train, would train next to nothing.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def labels(reference: str) -> dict[int, str]:
    """The classifier's labels in lower case, by index."""
    config = AutoConfig.from_pretrained(locate(reference))
    return {int(index): str(name).lower() for index, name in config.id2label.items()}
