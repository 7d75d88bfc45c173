"""Merging in this process, as the notebooks do, against the ``mergekit-yaml`` command.

On made-up checkpoints of bf16 weights (2 GB each by default). Files count when they are on the disk (fsync).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from os import fsync
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.timing import compare, show
from lmolt_utils.merging.merges import RULES, Merge, merge_models, yaml_path
from lmolt_utils.models.loading import EMBEDDED_FOLDER

ROLES = ("base", "cap2mol", "mol2cap")


def make_checkpoint(folder: Path, seed: int, layers: int) -> int:
    """Write a Llama in files of 250 MB, with the embedded models' tokenizer; returns the weights' size in bytes.

    Every seed gives the same random weights and a small change of its own on top: two seeds are two fine-tunes.
    """
    config = LlamaConfig(
        hidden_size=2048, intermediate_size=5504, num_hidden_layers=layers, num_attention_heads=16, vocab_size=32000,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.to_empty(device="cpu")
    # A block of normal numbers, repeated: to draw every weight would take minutes.
    base, own = (torch.randn(1 << 20, generator=torch.Generator().manual_seed(number)) for number in (0, 1 + seed))
    block = (0.02 * base + 0.0004 * own).bfloat16()
    with torch.no_grad():
        for parameter in model.parameters():
            count = parameter.numel()
            parameter.copy_(block.repeat(-(-count // len(block)))[:count].reshape(parameter.shape))
    model.save_pretrained(folder, max_shard_size=250_000_000)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED_FOLDER / "base" / file, folder / file)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def synced(folder: Path) -> None:
    """Wait until a folder's files are on the disk."""
    for file in folder.iterdir():
        with file.open("rb") as handle:
            fsync(handle)


def merge_here(rule: str, work: Path) -> None:
    """Merge ``work``'s checkpoints in this process."""
    models: dict[str, Any] = {role: str(work / role) for role in ROLES}
    merge_models(Merge(rule, 0.5, dtype="bfloat16", **models), work / "merged")
    synced(work / "merged")


def by_command(rule: str, work: Path) -> None:
    """The same by mergekit's command, its start included, on the YAML that a merge left."""
    command = "lmolt_utils.merging.half_sum_ties" if rule == "half_sum_ties" else "mergekit.scripts.run_yaml"
    paths = [str(yaml_path(work / "merged")), str(work / "command")]
    subprocess.run([sys.executable, "-m", command, *paths, "--no-write-model-card"], check=True, capture_output=True)
    synced(work / "command")


def main() -> None:
    """Print a line per rule."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rule", nargs="+", choices=RULES, default=["slerp", "soup"])
    parser.add_argument("--layers", type=int, default=18, help="18 layers of 2048: 2.08 GB per checkpoint")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="disk to measure on (default: the temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmolt-merging-", dir=given.folder) as name:
        work = Path(name)
        for number, role in enumerate(ROLES):
            size = make_checkpoint(work / role, number, given.layers)
        table = []
        for rule in given.rule:
            merge_here(rule, work)  # not timed: both ways find the files in memory
            ways = {
                "mergekit-yaml": (1, lambda rule=rule: by_command(rule, work)),
                "here": (1, lambda rule=rule: merge_here(rule, work)),
            }
            row, _ = compare(ways, given.repeats, each="merge")
            table.append({"rule": rule, "GB": size / 1e9, **row})
        show(table)


if __name__ == "__main__":
    main()
