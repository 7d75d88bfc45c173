"""Generation batched by length against one prompt at a time, with the embedded models.

Outputs must be equal, or the benchmark says how many are not.
"""

import argparse
import random
from functools import partial
from typing import Literal

from benchmarks.timing import compare, show
from lmolt_utils.config.prompts import TASKS, prompt
from lmolt_utils.embedded.corpus import generate as generate_corpus
from lmolt_utils.models.generation import generate
from lmolt_utils.models.loading import load_model, load_tokenizer


def main() -> None:
    """Print a line per model: milliseconds per row both ways, their ratio, and how many outputs differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=300, help="rows generated in batches (%(default)s)")
    parser.add_argument("--alone", type=int, default=40, help="rows of them generated one at a time (%(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="prompts generated together (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="medians are shown (%(default)s)")
    given = parser.parse_args()
    corpus = generate_corpus(max(200, given.rows), 0).head(given.rows)
    kinds: dict[str, Literal["translator", "causal"]] = {"negatives-": "translator", "": "causal"}
    table = []
    for start, kind in kinds.items():
        for task in TASKS:
            name = f"{start}{task}"
            model, tokenizer = load_model(f"embedded:{name}", kind), load_tokenizer(f"embedded:{name}")
            source = corpus["molecule" if task == "mol2cap" else "caption"]
            texts = [prompt(task, text) for text in source] if kind == "causal" else list(source)
            drawn = random.Random(0).sample(range(len(texts)), min(given.alone, len(texts)))
            ask = partial(generate, model, tokenizer, max_new_tokens=96, title=name)
            ask(texts[:2], batch_size=2)  # the first call is slower
            row, outputs = compare(
                {
                    "one at a time": (len(drawn), lambda: [ask([texts[i]], batch_size=1)[0] for i in drawn]),  # noqa: B023
                    "batched": (len(texts), lambda: ask(texts, batch_size=given.batch)),  # noqa: B023
                },
                given.repeats,
            )
            together = [outputs["batched"][index] for index in drawn]
            unequal = sum(one != other for one, other in zip(outputs["one at a time"], together, strict=True))
            table.append({"model": name, **row, "unequal outputs": unequal})
    show(table)


if __name__ == "__main__":
    main()
