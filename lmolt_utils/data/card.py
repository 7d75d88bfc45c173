"""The dataset card: how many rows, how skewed, how long, how many duplicates."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lmolt_utils.data.molecules import molecules
from lmolt_utils.data.sample import property_key
from lmolt_utils.files import read_rows, write_rows
from lmolt_utils.run.notebook import Run

ABOUT = ["about", "quantity"]
ALL = "all"
#: What is measured in which unit.
LENGTHS = ("caption, words", "caption, characters", "SMILES, characters")


@dataclass(frozen=True)
class Card:
    """What there is to know about a corpus.

    facts: by what it is ``about`` and ``quantity``, one column per split and ``all``. sets: rows per distinct property
    set, the largest first. lengths: per row its ``split`` and the columns :data:`LENGTHS`.
    """

    facts: pd.DataFrame
    sets: "pd.Series[int]"
    lengths: pd.DataFrame


def property_sets(properties: "pd.Series[str]") -> "pd.Series[int]":
    """Rows per distinct property set (``|``-separated, in any order), the largest first."""
    return properties.map(lambda text: property_key(text, fold_case=False)).dropna().value_counts()


def property_skew(sets: "pd.Series[int]") -> dict[str, float]:
    """How unevenly rows spread over property sets, from rows per set (the largest first).

    L+M-24's 160,560 molecules have 5,062 sets; the largest has 36.5 % of the molecules, the ten largest 69.5 %
    (audit D26). Shares are of the rows that have a property set; NaN if none has.
    """
    total = int(sets.sum())
    return {
        "distinct property sets": len(sets),
        "share of the largest set": sets.iloc[0] / total if total else float("nan"),
        "share of the ten largest sets": sets.head(10).sum() / total if total else float("nan"),
    }


def measured(corpus: pd.DataFrame) -> pd.DataFrame:
    """Length of every row in the units of :data:`LENGTHS`, and its split."""
    words = corpus["caption"].map(lambda text: len(text.split()))
    lengths = zip(LENGTHS, (words, corpus["caption"].str.len(), corpus["molecule"].str.len()), strict=True)
    return pd.DataFrame({"split": corpus["split"], **dict(lengths)})


def card(corpus: pd.DataFrame, facts: pd.DataFrame | None = None) -> Card:
    """The card of ``corpus``; ``facts`` where they are there already."""
    facts = card_facts(corpus) if facts is None else facts
    return Card(facts, property_sets(corpus["properties"]), measured(corpus))


def card_facts(corpus: pd.DataFrame) -> pd.DataFrame:
    """:attr:`Card.facts` of ``corpus`` (columns ``split``, ``molecule``, ``caption``, ``properties``).

    A row is a duplicate if an earlier one has the same canonical SMILES, or the same caption but for spacing.
    """
    known = corpus.assign(
        canonical=[one.canonical for one in molecules(corpus["molecule"])],
        words=[" ".join(text.split()) for text in corpus["caption"]],
    )
    lengths, facts = measured(corpus), {}
    for split in (ALL, *dict.fromkeys(corpus["split"])):
        rows = known if split == ALL else known[known["split"] == split]
        sets = property_sets(rows["properties"])
        names = rows["properties"].str.split("|").explode()
        stated, having = names[names != ""], int(sets.sum())
        facts[split] = {
            ("rows", "rows"): len(rows),
            ("rows", "molecule seen in an earlier row"): int(rows["canonical"].duplicated().sum()),
            ("rows", "caption seen in an earlier row"): int(rows["words"].duplicated().sum()),
            ("properties", "rows without properties"): len(rows) - having,
            ("properties", "distinct properties"): stated.nunique(),
            ("properties", "properties per row that has some"): len(stated) / having if having else float("nan"),
            **{("properties", name): value for name, value in property_skew(sets).items()},
        }
        for quantity, values in lengths.loc[rows.index, list(LENGTHS)].items():
            spread = {"mean": values.mean(), "standard deviation": values.std(), "longest": values.max()}
            facts[split] |= {(str(quantity), name): value for name, value in spread.items()}
    return pd.DataFrame(facts).rename_axis(ABOUT)


def make_card(run: Run, corpus: pd.DataFrame) -> Card:
    """The card of the run's corpus; the facts, which need every molecule parsed, are kept in ``data/card.jsonl``."""
    path = run.path("data", "card.jsonl")

    def make(_: Path) -> None:
        write_rows(path, card_facts(corpus).reset_index())

    run.step("dataset card", make, outputs=[path], params={}, inputs={"corpus": run.path("data", "corpus.jsonl")})
    return card(corpus, read_rows(path, ABOUT).set_index(ABOUT))
