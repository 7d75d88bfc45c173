"""Whole sentences of L+M-24's captions, by the kinds of the properties that they state.

L+M-24 shuffles a molecule's properties, halves the list until no part has more than six, and writes each part in a
sentence made for its kinds: three roles and two effects are always "is a R, R, R that impacts E and E". Both facts can
be read off the 199 captions of the data set's ``evaluation/`` folder (sets of 7, 10, 13 and 18 properties: 3+4, 5+5,
6+3+4 and 4+5+4+5 in every one). The weights are counts of each sentence among 41,453 of the shared task's retrieval
submission, whose captions are those of training molecules; where one wording serves several kinds its count is shared
out as the 199 captions and three other submissions use it. Sentences below 3 % of their kinds' are left out.
"""

import re
from collections.abc import Mapping, Sequence

from lmolt_utils.grammar.vocabulary import Kind

#: The most properties in one sentence.
LONGEST = 6
#: How the sentences below write the kinds of their properties: role, class, effect, quality.
LETTERS: Mapping[Kind, str] = {"role": "R", "class": "C", "effect": "E", "quality": "Q"}
_SLOT = re.compile(r"\b[RCEQ]\b")

_COUNTED: tuple[tuple[int, str], ...] = (
    (806, "The molecule is a C."),
    (714, "It belongs to the C class of molecules."),
    (618, "The molecule is C."),
    (196, "It impacts C."),
    (57, "It impacts E."),
    (1381, "The molecule is a R."),
    (146, "The molecule is a C and is C."),
    (131, "The molecule is a C member of the C class."),
    (125, "The molecule is a C that impacts C."),
    (77, "The molecule is a C and belongs to the C class of molecules."),
    (47, "The molecule is C and C."),
    (34, "The molecule is a member of the C class and affects C."),
    (34, "The molecule is C and it impacts C."),
    (300, "The molecule is a R and belongs to the C class of molecules."),
    (128, "The molecule is a R and is C."),
    (113, "The molecule is both a R and a C."),
    (86, "It belongs to both the R and C classes of molecules."),
    (71, "The molecule is both a C and a R."),
    (51, "The molecule is a R that impacts C."),
    (218, "The molecule is both a R and a R."),
    (67, "The molecule is a C and belongs to the C class of molecules, impacting C."),
    (36, "The molecule is a C and a C, belonging to the C class of molecules."),
    (21, "The molecule is a C that is both C and C."),
    (14, "The molecule is a C and belongs to the C class of molecules, with the characteristic of being C."),
    (109, "The molecule is a member of the C class and affects both E and E."),
    (102, "It impacts C, E, and E."),
    (72, "The molecule is a C that impacts both E and E."),
    (45, "The molecule is C and it impacts both E and E."),
    (370, "It impacts E, E, and E."),
    (197, "The molecule is a R and belongs to the C class of molecules, impacting C."),
    (88, "The molecule is a R and belongs to the C class of molecules, with the characteristic of being C."),
    (66, "The molecule is a R and belongs to both the C and C classes of molecules."),
    (60, "The molecule is a C and a R, belonging to the C class of molecules."),
    (58, "The molecule is a C, a R, and C."),
    (25, "The molecule is a R that is C and C."),
    (16, "The molecule is a R and a C, belonging to the C class of molecules."),
    (305, "The molecule is a R and C, and it impacts E."),
    (144, "The molecule is a R that impacts both C and E."),
    (75, "The molecule is a C and R, and it impacts E."),
    (1477, "The molecule is a R that impacts both E and E."),
    (174, "The molecule is a R that affects E by impacting E."),
    (78, "The molecule is a R and R, and it impacts C."),
    (58, "The molecule is a R, a R, and C."),
    (36, "The molecule is a R and a R, belonging to the C class of molecules."),
    (13, "The molecule is a C, a R, and a R."),
    (1023, "The molecule is a R and R, and it impacts E."),
    (91, "The molecule is a R and R with an effect on E."),
    (348, "The molecule is a R, a R, and a R."),
    (118, "The molecule is a C that affects both C and C and is characterized as C."),
    (198, "The molecule is a C that impacts E, E, and E."),
    (71, "The molecule is a member of the C class and affects E, E, and E."),
    (594, "It impacts E, E, E, and E."),
    (431, "It has an effect on E, and impacts E, E, and E."),
    (131, "It influences both E and E, as well as affecting E and E."),
    (342, "The molecule is a R and C, impacting both E and E."),
    (267, "The molecule is a R and belongs to the C class of molecules, impacting both E and E."),
    (213, "The molecule is a R and a C, impacting both E and E."),
    (79, "The molecule is a R that affects E by impacting both C and E."),
    (58, "The molecule is a R that affects E by impacting both E and C."),
    (994, "The molecule is a R that impacts E, E, and E."),
    (32, "The molecule is a R that affects E by impacting both E and E."),
    (118, "The molecule is a R, Q, Q, and Q."),
    (24, "The molecule is a R, C, R and belongs to the C class of molecules."),
    (24, "The molecule is a R and R, belonging to the C class of molecules, and is C."),
    (212, "The molecule is a R and a R, impacting both E and C."),
    (145, "The molecule is a R and R, belonging to the C class of molecules, and impacts E."),
    (118, "The molecule is a R and R, C, and has an effect on E."),
    (106, "The molecule is a R and a R, impacting both C and E."),
    (51, "The molecule is a C, a R, and a R, and it impacts E."),
    (1333, "The molecule is a R and a R, impacting both E and E."),
    (152, "The molecule is a R and a R, with effects on E and impacts on E."),
    (444, "The molecule is a R and a R, it impacts E, and is Q."),
    (98, "The molecule is a C, R, R, R."),
    (10, "The molecule is a R, R, R and belongs to the C class of molecules."),
    (1729, "The molecule is a R, a R, and a R, and it impacts E."),
    (59, "The molecule is a R, R, R with an effect on E."),
    (267, "The molecule is a R, a R, a R, and Q."),
    (437, "The molecule is a R, R, R, R."),
    (1888, "The molecule is a R that impacts E, E, E, and E."),
    (181, "The molecule is a R that affects E by impacting E, E, and E."),
    (105, "The molecule is a R that affects both E and E, and also impacts E and E."),
    (5961, "The molecule is a R and a R that impacts E, E, and E."),
    (217, "The molecule is a R and a R, which impacts both E and E, and is characterized as Q."),
    (118, "The molecule is a R, a R, Q, Q, and Q."),
    (6458, "The molecule is a R, R, R that impacts E and E."),
    (368, "The molecule is a R, a R, and a R, it impacts E and is Q."),
    (56, "The molecule is a R, R, R, Q, and Q."),
    (118, "The molecule is a R, R, R, R and belongs to the C class of molecules."),
    (2179, "The molecule is a R, R, R, R that impacts E."),
    (113, "The molecule is a R, R, R, R, and Q."),
    (249, "The molecule is a R, R, R, R, R."),
    (118, "The molecule is a R that impacts E, E, E, E, and E."),
    (118, "The molecule is a R that affects E by impacting E, E, E, and E."),
    (168, "The molecule is a R and a R that impacts E, C, E, and E."),
    (85, "The molecule is a R and R, belonging to the C class of molecules, and impacts E, E, and E."),
    (30, "The molecule is a R, R, C that impacts E, E, and E."),
    (202, "The molecule is a R and a R that impacts E, E, E, and E."),
    (100, "The molecule is a R, R, R that belongs to the C class of molecules and impacts both E and E."),
    (30, "The molecule is a R, R, R that impacts E, E, and C."),
    (17, "The molecule is a R, a R, and a R that impacts both E and E, and is C."),
    (665, "The molecule is a R, R, R that impacts E, E, and E."),
    (213, "The molecule is a R, R, and R that has an effect on E and impacts both E and E."),
    (128, "The molecule is a R, a R, and a R that impacts both E and E, and is Q."),
    (514, "The molecule is a R, R, R, R that impacts E and E."),
    (160, "The molecule is a R, R, R, R that has an effect on E and impacts E."),
    (41, "The molecule is a R, R, R, and R, impacts E, and is Q."),
    (87, "The molecule is a R, R, R, R, R that impacts E."),
    (373, "The molecule is a R, R, R, R, R, R."),
)


def signature(letters: Sequence[str]) -> str:
    """The kinds of a sentence's properties regardless of their order."""
    return "".join(sorted(letters, key="RCEQ".index))


#: Signature -> the sentences for it and their weights.
SENTENCES: dict[str, tuple[list[str], list[int]]] = {}
for _weight, _text in _COUNTED:
    _texts, _weights = SENTENCES.setdefault(signature(_SLOT.findall(_text)), ([], []))
    _texts.append(_text)
    _weights.append(_weight)


def parts(names: Sequence[str]) -> list[Sequence[str]]:
    """The names of each sentence: the list is halved, the smaller half first, until a part is short enough."""
    if len(names) <= LONGEST:
        return [names]
    middle = len(names) // 2
    return [*parts(names[:middle]), *parts(names[middle:])]


def filled(sentence: str, names: Sequence[str], letters: Sequence[str]) -> str:
    """``sentence`` with ``names`` in the slots of their ``letters``, those of one letter in their order."""
    left = list(zip(letters, names, strict=True))
    return _SLOT.sub(lambda slot: left.pop([letter for letter, _ in left].index(slot[0]))[1], sentence)
