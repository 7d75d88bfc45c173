"""Which NLI method sees which error: ``python -m tools.study.errors``.

Each test molecule's caption is the reference; the output is its property set written anew, once as it is and once with
one error injected on purpose. A method sees an error where its score tells the captions with it from those without:
the area under the ROC curve, .5 for a method that is blind, 1 for one that is never wrong. Writes
``figures/study/injected_errors.csv``.
"""

import random
import sys
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from lmolt_utils.config.params import load
from lmolt_utils.data.captioner import knowledge, reader
from lmolt_utils.data.prepare import corpus_source
from lmolt_utils.data.sample import draw
from lmolt_utils.grammar.vocabulary import canonical
from lmolt_utils.metrics.intervals import bootstrap
from lmolt_utils.nli.baselines import methods_for
from lmolt_utils.nli.classifier import Classifier, PairScorer
from lmolt_utils.nli.cross_nli import QUANTITIES, cross_nli
from lmolt_utils.paths import from_root, run_folder
from lmolt_utils.run.notebook import Run
from tools.embedded_models.nli_data import DENIALS
from tools.study import save_table
from tools.study.backbones import corpus, language, stated_sets

SEED, RESAMPLES = 0, 200
COLUMNS = ("error", "method", "quantity", "auc", "low", "high", "clean", "wrong", "n")

Names = list[str]


class Errors:
    """Writes property sets with one error; ``names``: what may be added, as often as the training molecules have it."""

    def __init__(
        self, names: Sequence[str], kind: Callable[[str], str], compose: Callable[[Names, random.Random], str]
    ):
        self.names, self.kind, self.compose = names, kind, compose

    def other(self, stated: Names, rng: random.Random) -> str:
        """A property that ``stated`` lacks."""
        return next(name for name in iter(lambda: rng.choice(self.names), None) if name not in stated)

    def write(self, error: str, stated: Names, rng: random.Random) -> str:
        """A caption of ``stated`` (two properties at least) with ``error``."""
        wrong = rng.choice(stated)
        rest = [name for name in stated if name != wrong]
        if error == "negated":
            denial = rng.choice(DENIALS[self.kind(wrong)]).format(p=wrong)
            return f"{self.compose(rest, rng)} The molecule {denial}."
        said = {
            "none": stated,
            "dropped": rest,
            "added": [*stated, self.other(stated, rng)],
            "swapped": [*rest, self.other(stated, rng)],
        }[error]
        return self.compose(said, rng)


ERRORS = ("dropped", "added", "swapped", "negated")


def seen(clean: np.ndarray, wrong: np.ndarray, quantity: str, seed: int = SEED) -> tuple[float, float, float]:
    """AUC and its 95 % interval over resampled molecules; both arrays hold the same molecules, shape (n,)."""
    sign = -1 if quantity == "coverage" else 1  # an error lowers coverage and raises the other two
    labels = np.repeat([0, 1], len(clean))

    def auc(rows: np.ndarray) -> float:
        return float(roc_auc_score(labels, sign * np.concatenate([clean[rows], wrong[rows]])))

    low, high = bootstrap(auc, len(clean), resamples=RESAMPLES, seed=seed)
    return auc(np.arange(len(clean))), low, high


def main(rows: int = 1000) -> None:
    params, frame = load("study"), corpus()
    known = knowledge(corpus_source(Run("01_data", run_folder("study", {}), params)))
    train = frame[frame["split"] == "train"]
    spoken = language(train)
    common = [name for names in stated_sets(train, spoken) for name in names]
    writer = Errors(common, spoken.kind, lambda names, rng: known.compose("", names, rng.randrange(10**9), 0))
    tested, _ = draw(params.test_set, frame, rows, SEED, corpus_seed=params.corpus_seed, known=known)
    stated = [[canonical(name) for name in text.split("|")] for text in tested["properties"]]
    kept = [number for number, names in enumerate(stated) if len(names) > 1 and set(names) <= set(spoken.names)]
    tested, stated = tested.iloc[kept], [stated[number] for number in kept]
    rng = random.Random(f"injected errors {SEED}")
    frames = {
        error: pd.DataFrame({
            "id": tested["id"].tolist(),
            "reference": tested["caption"].tolist(),
            "prediction": [writer.write(error, names, rng) for names in stated],
        })
        for error in ("none", *ERRORS)
    }  # fmt: skip
    scorer = PairScorer(Classifier(str(from_root(params.nli_model)), batch_tokens=params.nli_batch_tokens))
    methods, why = methods_for(tested["caption"].tolist(), reader(known.tree), scorer, SEED)
    print(f"{len(tested)} molecules with two properties or more; {why}", flush=True)
    scored, pairs = cross_nli(frames, methods, scorer)
    print(pairs, flush=True)
    lines = []
    for error, method, quantity in product(ERRORS, methods, QUANTITIES):
        clean, wrong = (
            one.loc[one["method"] == method.name, quantity].to_numpy(dtype=float)
            for one in (scored["none"], scored[error])
        )
        both = ~(np.isnan(clean) | np.isnan(wrong))
        clean, wrong = clean[both], wrong[both]
        lines.append(
            (error, method.name, quantity, *seen(clean, wrong, quantity), clean.mean(), wrong.mean(), both.sum())
        )
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    save_table("injected_errors", table)
    print(table.pivot_table(index=["quantity", "method"], columns="error", values="auc").round(3).to_string())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
