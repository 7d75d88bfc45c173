"""Which properties a molecule of the embedded corpus has: rules from substructure to property.

In L+M-24 properties come from databases; here they follow from the molecule, so that a model can learn them from
little data and a reader can check every one. The names are L+M-24's, and the lipid families carry property sets of its
size (a cardiolipin has ten), because that skew is what makes a constant caption score well there.
"""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from rdkit import Chem


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


class Rule(NamedTuple):
    """One property family: molecules matching ``smarts`` (and not ``unless``) have the properties ``brings``."""

    family: str
    smarts: str
    brings: str
    unless: str | None = None

    @property
    def properties(self) -> tuple[str, ...]:
        return _names(self.brings)


_ACYL = "[CX4]C(=O)O"
_GLYCEROL_P = "OCC(O)COP(=O)"
_CARDIOLIPIN = "P(=O)OCC(O)COP(=O)"
_POLYENE_CHAIN = "[CX4]C=C[CH2]C=C[CX4]"

#: Lipids: the family decides, as in L+M-24, where whole families share one property set.
LIPID_RULES = (
    Rule("cardiolipin", _CARDIOLIPIN,
         "apoptosis, cholesterol translocation, membrane stabilizer, energy source, emulsifier, "
         "aging, barth syndrome, diabetic heart disease, tangier disease, non-alcoholic fatty liver disease"),
    Rule("polyunsaturated cardiolipin", f"{_CARDIOLIPIN}.{_POLYENE_CHAIN}", "signalling molecule"),
    Rule("triacylglycerol", f"{_ACYL}CC(OC(=O)[CX4])COC(=O)[CX4]",
         "energy storage, fat storage, nutrient, inflammatory, thyroxine treatment, atherosclerosis, "
         "cardiovascular disease, metabolic syndrome, pancreatitis"),
    Rule("diacylglycerol", f"{_ACYL}CC(OC(=O)[CX4])C[OH]",
         "signalling molecule, protein kinase c activator, insulin resistance"),
    Rule("phosphatidylcholine", f"{_ACYL}CC(OC(=O)[CX4])COP(=O)([O-])OCC[N+](C)(C)C",
         "emulsifier, membrane stabilizer, food additive, smooth, liver disease"),
    Rule("lysophosphatidylcholine", f"{_ACYL}CC([OH])COP(=O)([O-])OCC[N+](C)(C)C",
         "inflammatory, surfactant, atherosclerosis"),
    Rule("phosphatidylethanolamine", f"{_GLYCEROL_P}OC[CH2][NH2]",
         "membrane stabilizer, autophagy inducer, parkinson's disease"),
    Rule("phosphatidylserine", f"{_GLYCEROL_P}OCC(N)C(=O)[OH]",
         "apoptosis, blood coagulant, nutritional supplement, alzheimer's disease"),
    Rule("phosphatidylglycerol", f"{_GLYCEROL_P}OCC([OH])C[OH]",
         "surfactant, lung protectant, respiratory distress syndrome"),
    Rule("ceramide", "[OH]CC(NC(=O)[CX4])C([OH])C=C", "skin conditioner, apoptosis, psoriasis, obesity"),
    Rule("saturated fatty acid", "[CH2][CH2][CH2][CH2][CH2]C(=O)[OH]", "surfactant, lubricant", unless="[P,a,$(C=C)]"),
    Rule("polyunsaturated fatty acid", f"{_POLYENE_CHAIN}.CC(=O)[OH]",
         "anti inflammatory, nutritional supplement, cardiovascular disease", unless="P"),
)  # fmt: skip

#: Small molecules: each substructure brings its own properties, so two together make a combination.
PHARMACOPHORE_RULES = (
    Rule("anilinoquinazoline", "c1ccccc1Nc1ncnc2ccccc12",
         "tyrosine kinase inhibitor, egfr inhibitor, cancer treatment"),
    Rule("sulfonamide", "cS(=O)(=O)[NH2]", "carbonic anhydrase inhibitor, diuretic, glaucoma"),
    Rule("hydroxamic acid", "C(=O)N[OH]", "hdac inhibitor, anti proliferative"),
    Rule("N-alkyl imidazole", "[CX4]n1[cH]n[cH][cH]1", "anti fungal, cyp51 inhibitor"),
    Rule("fluoroquinolone", "[OH]C(=O)c1cn(c)c2ccc(F)cc2c1=O", "anti bacterial, dna gyrase inhibitor"),
    Rule("beta-lactam", "O=C1CCN1", "anti bacterial, cell wall synthesis inhibitor, bacterial infection treatment"),
    Rule("arylpropionic acid", "cC(C)C(=O)[OH]", "anti inflammatory, cyclooxygenase inhibitor, analgesic"),
    Rule("benzodiazepine", "O=C1CN=C(c2ccccc2)c2ccccc2N1", "anxiolytic, sedative, seizure"),
    Rule("arylpiperazine", "c1ccccc1N1CCN(C)CC1", "serotonin antagonist, anti psychotic, schizophrenia"),
    Rule("nucleoside", "OCC1OC(n2ccc(=O)[nH]c2=O)CC1", "anti viral, reverse transcriptase inhibitor, hiv treatment"),
    Rule("thiazolidinedione", "O=C1CSC(=O)N1",
         "ppar agonist, diabetes treatment, insulin resistance, diabetes mellitus type 2"),
    Rule("carbazole", "c1ccc2c(c1)c1ccccc1n2", "electroluminescent, hole transporter, organic electroluminescence"),
    Rule("coumarin", "O=c1ccc2ccccc2o1", "fluorescent, anti coagulant, thrombosis"),
    Rule("nitroaromatic", "c[N+](=O)[O-]", "explosive, toxin"),
    Rule("dihydropyridine", "C1=CCC=CN1", "calcium channel blocker, anti hypertensive, hypertension"),
    Rule("aryloxypropanolamine", "cOCC(O)CN", "beta blocker, anti arrhythmic, heart failure"),
    Rule("xanthine", "O=c1[nH0]c(=O)c2[nH0]cnc2[nH0]1", "stimulant, adenosine antagonist, pde inhibitor"),
    Rule("phenylurea", "cNC(=O)N(C)C", "herbicide, photosynthesis inhibitor"),
    Rule("thiophosphate", "P(=S)(O)O", "insecticide, acetylcholinesterase inhibitor, toxin"),
    Rule("catechol", "[OH]c1ccccc1[OH]", "anti oxidant, dopamine modulator"),
    Rule("trifluoromethyl ether", "cOC(F)(F)F", "liquid crystal, dielectric"),
    Rule("nitrile", "cC#N", "aromatase inhibitor, breast cancer"),
)  # fmt: skip

#: Odorants: one organoleptic word family each, only in small acyclic or lightly ringed molecules.
_NOT_A_LIPID_OR_DRUG = "[P,$([#6]C(=O)OCC(OC(=O)[#6])C),$([#7;r]),$(C(=O)[OH])]"
ODORANT_RULES = (
    Rule("aliphatic ester", "[CX4]C(=O)O[CX4;!r]", "fruity, flavouring agent", unless=_NOT_A_LIPID_OR_DRUG),
    Rule("aliphatic aldehyde", "[CX4][CH]=O", "waxy, fragrance"),
    Rule("thiol", "[CX4][SH]", "sulfurous, warning agent"),
    Rule("alkylpyrazine", "[CX4]c1nccnc1", "nutty, roasted, flavouring agent"),
    Rule("vanilloid", "COc1cc([CH]=O)ccc1[OH]", "vanilla, sweet, flavouring agent"),
    Rule("lactone", "O=C1CCC(C)O1", "coconut, creamy, flavouring agent"),
    Rule("terpene alcohol", "CC(C)=CCCC(C)[CX4]CO", "floral, fragrance, insect repellent"),
    Rule("alkyl methyl ketone", "[CX4][CX4]C(=O)[CH3]", "cheesy, solvent", unless="[P,N,n,c]"),
)

RULES: tuple[Rule, ...] = LIPID_RULES + PHARMACOPHORE_RULES + ODORANT_RULES
_PROPERTIES = {rule.family: rule.properties for rule in RULES}

#: Diseases and health effects: L+M-24 writes them as "impacts X".
EFFECTS = frozenset(
    _names(
        "aging, alzheimer's disease, atherosclerosis, barth syndrome, breast cancer, cardiovascular disease, "
        "diabetes mellitus type 2, diabetic heart disease, glaucoma, heart failure, hypertension, insulin "
        "resistance, liver disease, metabolic syndrome, non-alcoholic fatty liver disease, obesity, organic "
        "electroluminescence, pancreatitis, parkinson's disease, psoriasis, respiratory distress syndrome, "
        "schizophrenia, seizure, tangier disease, thrombosis"
    )
)
#: Organoleptic words: "is X", without an article.
QUALITIES = frozenset(
    _names("cheesy, coconut, creamy, floral, fruity, nutty, roasted, smooth, sulfurous, sweet, vanilla, waxy")
)

_pattern = cache(Chem.MolFromSmarts)


def families_of(mol: Chem.Mol) -> list[str]:
    """Names of the property families whose rule fires for ``mol``, in the order of :data:`RULES`."""
    return [
        rule.family
        for rule in RULES
        if mol.HasSubstructMatch(_pattern(rule.smarts))
        and not (rule.unless and mol.HasSubstructMatch(_pattern(rule.unless)))
    ]


def properties_of(families: Iterable[str]) -> list[str]:
    """Sorted distinct properties of molecules in these ``families`` (names as in :data:`RULES`)."""
    return sorted({name for family in families for name in _PROPERTIES[family]})


def vocabulary() -> list[str]:
    """Every property name the rules can give, sorted."""
    return properties_of(rule.family for rule in RULES)
