"""A made-up Llama checkpoint in shards, of any size, with random bf16 weights: to measure on, not to talk to."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from lmolt_utils.files import write_json
from lmolt_utils.models.loading import EMBEDDED_FOLDER


def tensor_shapes(layers: int, hidden: int, inner: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama's weights, in the order they are computed."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        start = f"model.layers.{layer}"
        shapes |= {f"{start}.self_attn.{part}_proj.weight": (hidden, hidden) for part in "qkvo"}
        shapes |= {f"{start}.mlp.{part}_proj.weight": (inner, hidden) for part in ("gate", "up")}
        shapes[f"{start}.mlp.down_proj.weight"] = (hidden, inner)
        shapes |= {f"{start}.{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def make_checkpoint(
    folder: Path, seed: int, *, layers: int, hidden: int, inner: int, vocabulary: int, shard_bytes: int
) -> int:
    """Write a checkpoint; returns its size in bytes. Weights are a block of normal numbers, repeated.

    Every seed gives base weights (the same for all) and a small change of its own on top, so that two seeds are two
    fine-tunes of one model. The tokenizer is that of the embedded models.
    """
    folder.mkdir(parents=True)
    block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)) * 0.02
    block = (block + 0.0004 * torch.randn(block.shape, generator=torch.Generator().manual_seed(seed))).bfloat16()
    files: list[dict[str, tuple[int, ...]]] = [{}]
    sizes = [0]
    for name, shape in tensor_shapes(layers, hidden, inner, vocabulary).items():
        size = 2 * torch.Size(shape).numel()
        if files[-1] and sizes[-1] + size > shard_bytes:
            files.append({})
            sizes.append(0)
        files[-1][name] = shape
        sizes[-1] += size
    places: dict[str, str] = {}
    for number, shapes in enumerate(files, start=1):
        file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        save_file({name: _filled(block, shape) for name, shape in shapes.items()}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(shapes, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": sum(sizes)}, "weight_map": places})
    write_json(folder / "config.json", _config(layers, hidden, inner, vocabulary))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED_FOLDER / "base" / file, folder / file)
    return sum(sizes)


def _filled(block: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return block.repeat(-(-count // len(block)))[:count].reshape(shape)


def _config(layers: int, hidden: int, inner: int, vocabulary: int) -> dict[str, object]:
    heads = max(1, hidden // 128)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
    }
