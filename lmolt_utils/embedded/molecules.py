"""Molecules of the embedded corpus, drawn from families with the skew of L+M-24.

L+M-24 is 42 % cardiolipins, 14 % triacylglycerols and 8 % other glycerophospholipids, with a quarter of
small ring-bearing molecules; the family weights below follow it. Lipids differ by their chains, small
molecules by scaffold, second pharmacophore and neutral decorations.
"""

import random
from collections.abc import Callable
from functools import cache

from rdkit import Chem


def _chain(rng: random.Random, polyunsaturated: bool = False) -> str:
    """An acyl chain without its carboxyl carbon, written from the methyl end; mostly saturated or mono-ene."""
    length = rng.choice(range(11, 20))
    if polyunsaturated:
        tail = rng.choice((2, 4, 5))
        return "C" * tail + "C/C=C\\C/C=C\\" + "C" * max(2, length - tail - 7)
    if rng.random() < 0.25:
        before = rng.choice((5, 7, 8))
        return "C" * before + "/C=C\\" + "C" * max(2, length - before - 2)
    branch = "C(C)" if rng.random() < 0.1 else ""
    return "C" + branch + "C" * length


def _acyl(rng: random.Random, polyunsaturated: bool = False) -> str:
    return _chain(rng, polyunsaturated) + "C(=O)O"


def _cardiolipin(rng: random.Random) -> str:
    # One in seven is polyunsaturated: the largest single property set then covers 36 % of the corpus,
    # as in L+M-24 (36.5 %), while the family covers 42 %.
    first = _acyl(rng, polyunsaturated=rng.random() < 1 / 7)
    # The others are written as branches, carboxyl first: O C(=O) chain.
    a, b, c = (_reverse(_chain(rng)) for _ in range(3))
    return f"{first}C[C@H](COP(=O)(O)OC[C@@H](O)COP(=O)(O)OC[C@@H](COC(=O){a})OC(=O){b})OC(=O){c}"


@cache  # there are some hundred chains
def _reverse(chain: str) -> str:
    """The same chain written from the carboxyl end."""
    mol = Chem.MolFromSmiles(chain)
    return Chem.MolToSmiles(mol, rootedAtAtom=mol.GetNumAtoms() - 1)


def _two_chains(rng: random.Random, head: str) -> str:
    """A glycerolipid: acyl chains at sn-1 and sn-2, ``head`` on sn-3."""
    return f"{_acyl(rng)}C[C@H](C{head})OC(=O){_reverse(_chain(rng))}"


def _triacylglycerol(rng: random.Random) -> str:
    return _two_chains(rng, f"OC(=O){_reverse(_chain(rng, polyunsaturated=rng.random() < 0.2))}")


_HEADS = {
    "OP(=O)([O-])OCC[N+](C)(C)C": 4,
    "OP(=O)(O)OCCN": 3,
    "OP(=O)(O)OC[C@H](N)C(=O)O": 2,
    "OP(=O)(O)OC[C@@H](O)CO": 2,
}


def _phospholipid(rng: random.Random) -> str:
    if rng.random() < 0.12:
        return f"{_acyl(rng)}C[C@@H](O)COP(=O)([O-])OCC[N+](C)(C)C"
    return _two_chains(rng, rng.choices(list(_HEADS), weights=list(_HEADS.values()))[0])


def _other_lipid(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.4:
        return _two_chains(rng, "O")
    if kind < 0.8:
        return f"CCCCCCCCCC{'C' * rng.choice(range(1, 6))}/C=C/[C@@H](O)[C@H](CO)NC(=O){_reverse(_chain(rng))}"
    return _chain(rng, polyunsaturated=kind > 0.9) + "C(=O)O"


# Substituents close their rings with label 9, so that none meets a scaffold's own labels.
_ALKYL = (
    *("C", "CC", "CCC", "C(C)C", "CCCC", "CC(C)C", "C(C)CC", "CCCCC", "CCC(C)C", "CCCCCC", "CCCCCCC", "CCCC(C)C"),
    *("CCCCCCCC", "CC(C)CC(C)C", "CC(CC)CCC", "CC(C)CCC(C)C", "CC9CCCCC9", "CCC9CCCC9", "CC(CC)C", "CC(CCC)CC"),
    *("CCCCCCCCC", "CC(C)CCC", "CCC9CCCCC9"),
)
_ODORANT_TEMPLATES = {
    "O=C({a})O{b}": 4,
    "{a}CC=O": 2,
    "{a}CS": 2,
    "{a}c1nccnc1{b}": 3,
    "{a}Oc1cc(C=O)ccc1O": 1,
    "{a}C1CCC(=O)O1": 2,
    "CC(C)=CCC[C@@H]({c})CCO{a}": 2,
    "{a}CC(C)=O": 2,
}


def _odorant(rng: random.Random) -> str:
    template = rng.choices(list(_ODORANT_TEMPLATES), weights=list(_ODORANT_TEMPLATES.values()))[0]
    vanilloid = template.startswith("{a}Oc1")
    return template.format(a="C" if vanilloid else rng.choice(_ALKYL), b=rng.choice(_ALKYL), c="C")


#: Neutral decorations: they vary a molecule without adding a property.
_NEUTRAL = (
    *("C", "F", "Cl", "Br", "CC", "C(C)C", "OC", "OCC", "C(F)(F)F", "CCC", "C9CC9", "CCOC", "N(C)C", "C(C)(C)C"),
    *("OCCOC", "C(C)CC", "CCCC", "OC(C)C", "C9CCCC9", "SC"),
)
#: Second pharmacophores, written so that they can end any substituent position.
_APPENDAGES = {
    "sulfonamide": "S(N)(=O)=O",
    "hydroxamic acid": "C(=O)NO",
    "N-alkyl imidazole": "Cn9ccnc9",
    "nitroaromatic": "[N+](=O)[O-]",
    "nitrile": "C#N",
    "trifluoromethyl ether": "OC(F)(F)F",
    "arylpropionic acid": "C(C)C(=O)O",
    "phenylurea": "NC(=O)N(C)C",
}
#: Scaffolds: {a} is a position on a benzene ring (any appendage may sit there), {b} takes a neutral one.
_SCAFFOLDS = (
    "c1({a})cccc(Nc2ncnc3cc({b})ccc23)c1",
    "O=C1CN=C(c2ccc({a})cc2)c2cc({b})ccc2N1",
    "c1({a})ccc(N2CCN(C{b})CC2)cc1",
    "O=c1cc({b})c2cc({a})ccc2o1",
    "c1({a})ccc2[nH]c3ccc({b})cc3c2c1",
    "CC1=C(C(=O)O{e})C(c2ccc({a})cc2)C(C(=O)OC)=C(C)N1",
    "c1({a})ccc(OCC(O)CN{e})c({b})c1",
    "O=C1NC(=O)C(Cc2ccc({a})c({b})c2)S1",
    "Cn1c(=O)c2c(nc(-c3ccc({a})cc3)n2C{e})n(C)c1=O",
    "Oc1cc({b})c(Cc2ccc({a})cc2)cc1O",
    "CCOP(=S)(O{e})Oc1ccc({a})c({b})c1",
    "O=C1C(NC(=O)c2ccc({a})c({b})c2)CN1C{e}",
    "O=C(O)c1cn(-c2ccc({a})cc2)c2cc({b})c(F)cc2c1=O",
    "O=c1ccn(C2CC(O{e})C(COc3ccc({a})cc3)O2)c(=O)[nH]1",
    "c1({a})ccc(C{e})c({b})c1",
    "c1({a})ccc(-c2ccc({b})cc2)cc1",
    "c1({a})ccc(OCc2ccc({b})cc2)cc1",
)
#: Short alkyl groups for positions where an aryl substituent would change the family.
_SHORT = ("C", "CC", "CCC", "C(C)C", "CCCC", "CC(C)C", "C9CC9", "CC9CC9", "C(C)CC", "CCCCC")


def _drug_like(rng: random.Random) -> str:
    scaffold = rng.choice(_SCAFFOLDS)
    paired = rng.random() < 0.55
    appendage = _APPENDAGES[rng.choice(list(_APPENDAGES))] if paired else rng.choice(_NEUTRAL)
    return scaffold.format(a=appendage, b=rng.choice(_NEUTRAL), e=rng.choice(_SHORT))


#: Kinds of molecules with their weights. Draws that repeat a molecule, or give one without any property, are drawn
#: again, so the corpus itself has 42 % cardiolipins.
_KINDS: dict[Callable[[random.Random], str], float] = {
    _cardiolipin: 36,
    _triacylglycerol: 13,
    _phospholipid: 9,
    _other_lipid: 5,
    _odorant: 9,
    _drug_like: 27,
}


def draw(rng: random.Random) -> tuple[str, Chem.Mol]:
    """One molecule: canonical SMILES and its RDKit form."""
    build = rng.choices(list(_KINDS), weights=list(_KINDS.values()))[0]
    mol = Chem.MolFromSmiles(build(rng))
    return Chem.MolToSmiles(mol), mol
