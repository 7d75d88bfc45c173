"""Generation batched by length against one prompt at a time, with the embedded models; outputs should be equal."""

import argparse
import random
from functools import partial
from statistics import median

from benchmarks.timing import show, timed
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
    parser.add_argument("--repeats", type=int, default=3, help="in turns; medians are shown (%(default)s)")
    given = parser.parse_args()
    corpus = generate_corpus(max(200, given.rows), 0).head(given.rows)
    drawn = random.Random(0).sample(range(len(corpus)), min(given.alone, len(corpus)))
    table = []
    for task in TASKS:
        sources = list(corpus["molecule" if task == "mol2cap" else "caption"])
        prompts = [prompt(task, text) for text in sources]
        for name, texts in ((f"negatives-{task}", sources), (task, prompts)):
            model = load_model(f"embedded:{name}", "causal" if texts is prompts else "translator")
            tokenizer = load_tokenizer(f"embedded:{name}")
            ask = partial(generate, model, tokenizer, max_new_tokens=96, title=name)
            ask(texts[:2], batch_size=2)  # the first call is slower
            times = []
            for _ in range(given.repeats):
                alone, slow = timed(lambda: [ask([texts[index]], batch_size=1)[0] for index in drawn])  # noqa: B023
                batched, fast = timed(lambda: ask(texts, batch_size=given.batch))  # noqa: B023
                times.append((1e3 * slow / len(drawn), 1e3 * fast / len(texts)))
            slow, fast = (median(way) for way in zip(*times, strict=True))
            row = {"model": name, "one at a time, ms/row": slow, "batched, ms/row": fast, "ratio": slow / fast}
            table.append(row | {"unequal outputs": sum(batched[i] != one for i, one in zip(drawn, alone, strict=True))})
    show(table)


if __name__ == "__main__":
    main()
