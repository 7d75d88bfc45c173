"""Captions from property sets, in the sentence templates of L+M-24.

L+M-24's captions were written from property lists through GPT-4 templates: 98 % of their sentences are a
subject, then clauses "is a ...", "belongs to the ... class of molecules", "impacts ...", with the properties
in random order. The composer draws from the same grammar; one molecule may be captioned many times
(as in L+M-24's train-extra), each time with another order and other templates.
"""

import random
from collections.abc import Sequence
from itertools import pairwise

#: Diseases and health effects: L+M-24 writes them as "impacts X".
EFFECTS = frozenset(
    [
        "aging",
        "alzheimer's disease",
        "atherosclerosis",
        "barth syndrome",
        "breast cancer",
        "cardiovascular disease",
        "diabetes mellitus type 2",
        "diabetic heart disease",
        "glaucoma",
        "heart failure",
        "hypertension",
        "insulin resistance",
        "liver disease",
        "metabolic syndrome",
        "non-alcoholic fatty liver disease",
        "obesity",
        "organic electroluminescence",
        "pancreatitis",
        "parkinson's disease",
        "psoriasis",
        "respiratory distress syndrome",
        "schizophrenia",
        "seizure",
        "tangier disease",
        "thrombosis",
    ]
)
#: Organoleptic words: "is X", without an article.
QUALITIES = frozenset(
    [
        "cheesy",
        "coconut",
        "creamy",
        "floral",
        "fruity",
        "nutty",
        "roasted",
        "smooth",
        "sulfurous",
        "sweet",
        "vanilla",
        "waxy",
    ]
)


def _joined(items: Sequence[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b, and c``."""
    if len(items) <= 2:
        return f" {last} ".join(items)
    return f"{', '.join(items[:-1])}, {last} {items[-1]}"


def _roles(rng: random.Random, names: list[str]) -> str:
    if len(names) == 1:
        return f"is a {names[0]}"
    forms = [f"is a {', '.join(names)}", "is " + _joined([f"a {name}" for name in names])]
    if len(names) == 2:
        forms += [
            f"is both a {names[0]} and a {names[1]}",
            f"is a {names[0]} and belongs to the {names[1]} class of molecules",
            f"is a {names[0]} and {names[1]}",
        ]
    return rng.choice(forms)


def _effects(rng: random.Random, names: list[str], after_roles: bool) -> str:
    both = "both " if len(names) == 2 else ""
    if not after_roles:
        forms = [f"impacts {both}{_joined(names)}"]
        if len(names) == 1:
            forms.append(f"has an effect on {names[0]}")
        else:
            forms.append(f"has an effect on {names[0]}, and impacts {_joined(names[1:])}")
        return rng.choice(forms)
    forms = [f" that impacts {_joined(names)}", f" that impacts {both}{_joined(names)}"]
    if len(names) == 1:
        forms += [f", and it impacts {names[0]}", f" with an effect on {names[0]}"]
    else:
        forms += [
            f", impacting {both}{_joined(names)}",
            f", with effects on {names[0]} and impacts on {_joined(names[1:])}",
        ]
    return rng.choice(forms)


def _sentence(rng: random.Random, names: list[str], first: bool) -> str:
    roles = [name for name in names if name not in EFFECTS and name not in QUALITIES]
    effects = [name for name in names if name in EFFECTS]
    qualities = [name for name in names if name in QUALITIES]
    subject = "The molecule" if roles or first or qualities else "It"
    if roles:
        text = _roles(rng, roles)
        if effects:
            text += _effects(rng, effects, after_roles=True)
        if qualities:
            text += (", and" if effects else " and") + f" is {_joined(qualities)}"
    elif qualities:
        text = f"is {_joined(qualities)}"
        if effects:
            text += f" and impacts {_joined(effects)}"
    else:
        text = _effects(rng, effects, after_roles=False)
    return f"{subject} {text}."


def compose(properties: Sequence[str], rng: random.Random) -> str:
    """A caption of one to three sentences stating every one of ``properties`` once, in random order.

    Raises ``ValueError`` when there is nothing to state.
    """
    names = list(properties)
    if not names:
        raise ValueError("a caption needs at least one property")
    rng.shuffle(names)
    # L+M-24: 43 % of captions have one sentence, 44 % two, 13 % more; short sets cannot be cut.
    wanted = rng.choices((1, 2, 3), weights=(45, 43, 12))[0]
    count = min(wanted, max(1, len(names) // 2))
    cuts = sorted(rng.sample(range(1, len(names)), count - 1))
    bounds = [0, *cuts, len(names)]
    parts = [names[start:end] for start, end in pairwise(bounds)]
    return " ".join(_sentence(rng, part, first=index == 0) for index, part in enumerate(parts))


def caption_for(smiles: str, properties: Sequence[str], seed: int, variant: int = 0) -> str:
    """The ``variant``-th caption of a molecule; depends on nothing but these arguments."""
    return compose(sorted(properties), random.Random(f"caption:{seed}:{variant}:{smiles}"))
