"""Composed captions held against real ones: ``python -m tools.study.captions smiles2caption_example.tsv``.

The file is L+M-24's own (``evaluation/`` in the data set's repository): 199 captions with their molecules. Each is
composed again from the property set that the grammar reads in it, five times; what is compared is how long captions
are, how many sentence forms there are, and how alike two captions of one property set are. Also what a table of the
other 198 rows answers: the caption of the nearest one (Morgan radius 2, 2,048 bits, Tanimoto). Writes
``figures/study/captions.csv``.
"""

import re
import sys
from collections import defaultdict
from itertools import permutations
from pathlib import Path
from random import Random
from statistics import fmean, stdev

import pandas as pd

from lmolt_utils.config.params import load
from lmolt_utils.data.captioner import knowledge, reader
from lmolt_utils.data.molecules import molecule, nearest
from lmolt_utils.data.sources import Source
from lmolt_utils.data.text_tables import read_table
from lmolt_utils.files import atomic
from lmolt_utils.grammar.compose import Composer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.metrics.captions import caption_scores, caption_tokenizer, meteor_matcher
from lmolt_utils.paths import from_root, root
from tools.embedded_models.quality import name_pattern

REPEATS = 5
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def main(file: str) -> None:
    params = load("study")
    tree = knowledge(Source(params.corpus)).tree
    vocabulary, read = Vocabulary.from_tree(tree), reader(tree).properties
    table = read_table(Path(file), set())
    molecules, captions = (list(column) for column in zip(*[row[:2] for row in table.rows], strict=True))
    sets = [tuple(sorted(read(caption))) for caption in captions]
    words = caption_tokenizer(from_root(params.caption_tokenizer)), meteor_matcher("auto")
    names = name_pattern(vocabulary.kinds)

    def bleu(references: list[str], outputs: list[str]) -> tuple[float, float]:
        metrics = caption_scores(references, outputs, *words).metrics
        return metrics["BLEU-2"], metrics["BLEU-4"]

    def described(texts: list[str]) -> dict[str, float]:
        groups = defaultdict(list)
        for text, own in zip(texts, sets, strict=True):
            groups[own].append(text)
        pairs = [pair for group in groups.values() for pair in permutations(group, 2)]
        sentences = [sentence for text in texts for sentence in _SENTENCE.split(text)]
        forms = {names.sub("X", sentence.lower()) for sentence in sentences}
        two, four = bleu([one for one, _ in pairs], [other for _, other in pairs])
        return {
            "words per caption": fmean(len(text.split()) for text in texts),
            "sentences per caption": len(sentences) / len(texts),
            "sentence forms": len(forms),
            "BLEU-2 within a property set": two,
            "BLEU-4 within a property set": four,
        }

    composer = Composer(vocabulary)
    composed = [
        described([composer.compose(own, Random(f"{seed}:{row}")) for row, own in enumerate(sets)])
        for seed in range(REPEATS)
    ]
    rows = [
        {"measure": name, "real": value, "composed": fmean(c[name] for c in composed),
         "spread": stdev(c[name] for c in composed)}
        for name, value in described(captions).items()
    ]  # fmt: skip
    prints = [found.fingerprint for text in molecules if (found := molecule(text))]
    if len(prints) != len(molecules):
        raise SystemExit(f"{file}: {len(molecules) - len(prints)} molecules cannot be read")
    others = [[*range(place), *range(place + 1, len(prints))] for place in range(len(prints))]
    answers = [
        captions[rest[nearest(prints[place], [prints[other] for other in rest])[0]]]
        for place, rest in enumerate(others)
    ]
    for order, value in zip((2, 4), bleu(captions, answers), strict=True):
        rows.append({"measure": f"BLEU-{order} of the nearest other row's caption", "real": value})
    with atomic(root() / "figures" / "study" / "captions.csv") as part:
        pd.DataFrame(rows).to_csv(part, index=False)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main(sys.argv[1])
