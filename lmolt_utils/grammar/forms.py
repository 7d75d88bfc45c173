"""The grammar of L+M-24's captions as data: what :mod:`compose` writes with and :mod:`decompose` reads with.

A sentence is a subject and clauses; a clause is a head (``is``, ``belongs to``, ``impacts`` ...) and a list of
property names; connectives join the clauses. The forms are the frequent sentences of L+M-24 (Edwards et al., 2024),
weighted by their counts there; heads and connectives cover 98 % of the sentences of the shared task's captions. The
rest is free text of PubChem, quoted as it stands: odour, taste, decomposition, polymerisation.
"""

import re
from dataclasses import dataclass

#: What a sentence can be about; ``this molecule`` starts fewer than one in a thousand.
SUBJECTS = ("the molecule", "this molecule", "it")

#: Heads by the verb that an atomic fact keeps of them.
HEADS: dict[str, tuple[str, ...]] = {
    "is": (
        *("is", "being", "is characterized as", "characterized as", "with the characteristic of being"),
        "is involved in",  # how the language model of Less for More puts roles that are no agents (Fig. 11, Table 6)
    ),
    "belongs to": ("belongs to", "belonging to", "is a member of", "a member of", "member of"),
    "impacts": (
        *("impacts", "impact", "impacting", "impacts on", "impact on"),
        *("has an impact on", "have an impact on", "with an impact on", "with impacts on"),
        *("has an effect on and impacts multiple systems, including",),
    ),
    "affects": ("affects", "affect", "affecting"),
    "influences": ("influences", "influence", "influencing"),
    "has an effect on": (
        *("has an effect on", "have an effect on", "having an effect on", "has effects on", "effects on"),
        *("with an effect on", "with effects on"),
    ),
}
#: What may stand before a head, one of each group, in this order.
CONNECTIVES: tuple[tuple[str, ...], ...] = (
    ("and", "while", "as well as", "but"),
    ("which", "that", "it", "by"),
    ("also",),
    ("is", "are"),
    ("known to",),
)
#: Between the names of a list. Names hold commas too (``1,3-1,6-alpha``), but no space after them, with few exceptions.
LIST_SEPARATOR = re.compile(r"(, (?:and |or |as well as )?| (?:and|as well as) )")

#: The properties of L+M-24 whose value is a quoted text, and made-up texts of their usual wording for each.
FREE_TEXT: dict[str, tuple[str, ...]] = {
    "odor_evaluation": ("Odorless", "Characteristic odor", "Faint, sweet odor", "Pungent and irritating odor"),
    "taste_evaluation": ("Bitter taste", "Tasteless", "Slightly sweet taste", "Sour, salty taste"),
    "decomposition_evaluation": (
        "When heated to decomposition it emits toxic fumes of nitrogen oxides.",
        "When heated to decomposition it emits acrid smoke and irritating fumes.",
        "When heated to decomposition it emits toxic fumes of hydrogen chloride.",
    ),
    "polymerization_evaluation": ("Heat and light can start a violent polymerization.", "Will polymerize when hot."),
}


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, which is quick
class Form:
    """One way to state ``least`` to ``most`` names; ``plain`` forms are those of the embedded corpus.

    Slots: ``{0}`` and ``{1}`` the first two names, ``{last}`` the last; ``{all.commas}`` (A, B, C), ``{all.articles}``
    (a A, a B, and a C), ``{all.ands}`` (A, B, and C), ``{all.both}`` (both A and B; else as ``ands``); ``rest`` for
    ``all``: without the first, ``front``: without the last.
    """

    text: str
    least: int = 1
    most: int = 99
    weight: int = 1
    plain: bool = False

    @property
    def of_class(self) -> bool:
        """Whether the form says that the last name is a class of molecules."""
        return " class" in self.text


#: What the molecule is: roles and classes. Weights: counts of a retrieval submission, whose captions are real ones.
ROLES = (
    Form("is a {0}", 1, 1, 3000, plain=True),
    Form("is {0}", 1, 1, 620),
    Form("is a member of the {0} class", 1, 1, 110),
    Form("belongs to the {0} class of molecules", 1, 1, 720),
    Form("is a {all.commas}", 2, weight=9000, plain=True),
    Form("is {all.articles}", 2, weight=8500, plain=True),
    Form("is both a {0} and a {1}", 2, 2, 420, plain=True),
    Form("is a {0} and belongs to the {1} class of molecules", 2, 2, 900, plain=True),
    Form("is a {0} and {1}", 2, 2, 2200, plain=True),
    Form("is a {0} member of the {1} class", 2, 2, 130),
    Form("is a {0} belonging to the {1} class", 2, 2, 40),
    Form("is a {0} and is {1}", 2, 2, 275),
    Form("belongs to both the {0} and {1} classes of molecules", 2, 2, 90),
    Form("is a {all.ands}", 3, weight=600),
    Form("is a {front.ands}, belonging to the {last} class of molecules", 3, 3, 350),
    Form("is a {front.commas} that belongs to the {last} class of molecules", 3, weight=130),
    Form("is a {0} that is both {rest.ands}", 3, 3, 20),
)
EFFECTS_ALONE = (
    Form("impacts {all.both}", weight=1000, plain=True),
    Form("has an effect on {0}", 1, 1, 36, plain=True),
    Form("has an effect on {0}, and impacts {rest.ands}", 2, weight=430, plain=True),
    Form("has an effect on {0}, impacting {rest.both}", 2, weight=50),
    Form("influences {0}, as well as affecting {rest.ands}", 2, weight=130),
)
EFFECTS_AFTER_ROLES = (
    Form(" that impacts {all.ands}", weight=16000, plain=True),
    Form(" that impacts {all.both}", weight=1700, plain=True),
    Form(", and it impacts {0}", 1, 1, 3200, plain=True),
    Form(" with an effect on {0}", 1, 1, 90, plain=True),
    Form(", impacting {all.both}", 2, weight=2500, plain=True),
    Form(", with effects on {0} and impacts on {rest.ands}", 2, weight=160, plain=True),
    Form(", which impacts {all.both}", weight=340),
    Form(" that has an effect on {0} and impacts {rest.both}", 2, weight=370),
    Form(" that affects {0} by impacting {rest.both}", 2, weight=380),
    Form(", known to affect {0} and impact {rest.ands}", 2, weight=26),
)
QUALITIES_ALONE = (Form("is {all.ands}", plain=True),)
EFFECTS_AFTER_QUALITIES = (
    Form(" and impacts {all.ands}", weight=70, plain=True),
    Form(" and it impacts {all.both}", weight=80),
)
QUALITIES_AFTER_ROLES = (
    Form(" and is {all.ands}", weight=275, plain=True),
    Form(", with the characteristic of being {all.ands}", weight=150),
)
QUALITIES_AFTER_EFFECTS = (
    Form(", and is {all.ands}", weight=500, plain=True),
    Form(", and is characterized as {all.ands}", weight=340),
    Form(", while being {all.ands}", weight=23),
)


@dataclass(frozen=True)
class Style:
    """Which sentences are used; ``whole``: L+M-24's own division, and its sentence for these kinds where it has one."""

    whole: bool = False
    plain: bool = False  # only the plain forms, all equally likely
    without: frozenset[Form] = frozenset()  # forms that are never used


#: ``plain``, the embedded corpus's: fewer forms, so that tiny models learn them from little data.
STYLES = {"lpm24": Style(whole=True), "plain": Style(plain=True)}
#: Weights of one, two or three sentences per caption where the style does not divide as L+M-24 does.
SENTENCES_PER_CAPTION = (45, 43, 12)
