"""Which properties a molecule of the embedded corpus has: rules from substructure to property.

In L+M-24 properties come from databases; here they follow from the molecule, so that a model can learn them from
little data and a reader can check every one. The names are L+M-24's, and the lipid families carry property sets of its
size (a cardiolipin has ten), because that skew is what makes a constant caption score well there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from rdkit import Chem


@dataclass(frozen=True)
class Rule:
    """One property family: molecules matching ``smarts`` (and not ``unless``) have ``properties``."""

    family: str
    smarts: str
    properties: tuple[str, ...]
    unless: str | None = None


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.split(","))


def _rule(family: str, smarts: str, properties: str, unless: str | None = None) -> Rule:
    return Rule(family, smarts, _names(properties), unless)


_ACYL = "[CX4]C(=O)O"
_GLYCEROL_P = "OCC(O)COP(=O)"
_CARDIOLIPIN = "P(=O)OCC(O)COP(=O)"
_POLYENE_CHAIN = "[CX4]C=C[CH2]C=C[CX4]"

#: Lipids: the family decides, as in L+M-24, where whole families share one property set.
LIPID_RULES = (
    _rule(
        "cardiolipin",
        _CARDIOLIPIN,
        "apoptosis, cholesterol translocation, membrane stabilizer, energy source, emulsifier, "
        "aging, barth syndrome, diabetic heart disease, tangier disease, non-alcoholic fatty liver disease",
    ),
    _rule("polyunsaturated cardiolipin", f"{_CARDIOLIPIN}.{_POLYENE_CHAIN}", "signalling molecule"),
    _rule(
        "triacylglycerol",
        f"{_ACYL}CC(OC(=O)[CX4])COC(=O)[CX4]",
        "energy storage, fat storage, nutrient, inflammatory, thyroxine treatment, atherosclerosis, "
        "cardiovascular disease, metabolic syndrome, pancreatitis",
    ),
    _rule(
        "diacylglycerol",
        f"{_ACYL}CC(OC(=O)[CX4])C[OH]",
        "signalling molecule, protein kinase c activator, insulin resistance",
    ),
    _rule(
        "phosphatidylcholine",
        f"{_ACYL}CC(OC(=O)[CX4])COP(=O)([O-])OCC[N+](C)(C)C",
        "emulsifier, membrane stabilizer, food additive, smooth, liver disease",
    ),
    _rule(
        "lysophosphatidylcholine",
        f"{_ACYL}CC([OH])COP(=O)([O-])OCC[N+](C)(C)C",
        "inflammatory, surfactant, atherosclerosis",
    ),
    _rule(
        "phosphatidylethanolamine",
        f"{_GLYCEROL_P}OC[CH2][NH2]",
        "membrane stabilizer, autophagy inducer, parkinson's disease",
    ),
    _rule(
        "phosphatidylserine",
        f"{_GLYCEROL_P}OCC(N)C(=O)[OH]",
        "apoptosis, blood coagulant, nutritional supplement, alzheimer's disease",
    ),
    _rule(
        "phosphatidylglycerol",
        f"{_GLYCEROL_P}OCC([OH])C[OH]",
        "surfactant, lung protectant, respiratory distress syndrome",
    ),
    _rule("ceramide", "[OH]CC(NC(=O)[CX4])C([OH])C=C", "skin conditioner, apoptosis, psoriasis, obesity"),
    _rule("saturated fatty acid", "[CH2][CH2][CH2][CH2][CH2]C(=O)[OH]", "surfactant, lubricant", unless="[P,a,$(C=C)]"),
    _rule(
        "polyunsaturated fatty acid",
        f"{_POLYENE_CHAIN}.CC(=O)[OH]",
        "anti inflammatory, nutritional supplement, cardiovascular disease",
        unless="P",
    ),
)

#: Small molecules: each substructure brings its own properties, so two together make a combination.
PHARMACOPHORE_RULES = (
    _rule(
        "anilinoquinazoline", "c1ccccc1Nc1ncnc2ccccc12", "tyrosine kinase inhibitor, egfr inhibitor, cancer treatment"
    ),
    _rule("sulfonamide", "cS(=O)(=O)[NH2]", "carbonic anhydrase inhibitor, diuretic, glaucoma"),
    _rule("hydroxamic acid", "C(=O)N[OH]", "hdac inhibitor, anti proliferative"),
    _rule("N-alkyl imidazole", "[CX4]n1[cH]n[cH][cH]1", "anti fungal, cyp51 inhibitor"),
    _rule("fluoroquinolone", "[OH]C(=O)c1cn(c)c2ccc(F)cc2c1=O", "anti bacterial, dna gyrase inhibitor"),
    _rule("beta-lactam", "O=C1CCN1", "anti bacterial, cell wall synthesis inhibitor, bacterial infection treatment"),
    _rule("arylpropionic acid", "cC(C)C(=O)[OH]", "anti inflammatory, cyclooxygenase inhibitor, analgesic"),
    _rule("benzodiazepine", "O=C1CN=C(c2ccccc2)c2ccccc2N1", "anxiolytic, sedative, seizure"),
    _rule("arylpiperazine", "c1ccccc1N1CCN(C)CC1", "serotonin antagonist, anti psychotic, schizophrenia"),
    _rule("nucleoside", "OCC1OC(n2ccc(=O)[nH]c2=O)CC1", "anti viral, reverse transcriptase inhibitor, hiv treatment"),
    _rule(
        "thiazolidinedione",
        "O=C1CSC(=O)N1",
        "ppar agonist, diabetes treatment, insulin resistance, diabetes mellitus type 2",
    ),
    _rule("carbazole", "c1ccc2c(c1)c1ccccc1n2", "electroluminescent, hole transporter, organic electroluminescence"),
    _rule("coumarin", "O=c1ccc2ccccc2o1", "fluorescent, anti coagulant, thrombosis"),
    _rule("nitroaromatic", "c[N+](=O)[O-]", "explosive, toxin"),
    _rule("dihydropyridine", "C1=CCC=CN1", "calcium channel blocker, anti hypertensive, hypertension"),
    _rule("aryloxypropanolamine", "cOCC(O)CN", "beta blocker, anti arrhythmic, heart failure"),
    _rule("xanthine", "O=c1[nH0]c(=O)c2[nH0]cnc2[nH0]1", "stimulant, adenosine antagonist, pde inhibitor"),
    _rule("phenylurea", "cNC(=O)N(C)C", "herbicide, photosynthesis inhibitor"),
    _rule("thiophosphate", "P(=S)(O)O", "insecticide, acetylcholinesterase inhibitor, toxin"),
    _rule("catechol", "[OH]c1ccccc1[OH]", "anti oxidant, dopamine modulator"),
    _rule("trifluoromethyl ether", "cOC(F)(F)F", "liquid crystal, dielectric"),
    _rule("nitrile", "cC#N", "aromatase inhibitor, breast cancer"),
)

#: Odorants: one organoleptic word family each, only in small acyclic or lightly ringed molecules.
_NOT_A_LIPID_OR_DRUG = "[P,$([#6]C(=O)OCC(OC(=O)[#6])C),$([#7;r]),$(C(=O)[OH])]"
ODORANT_RULES = (
    _rule("aliphatic ester", "[CX4]C(=O)O[CX4;!r]", "fruity, flavouring agent", unless=_NOT_A_LIPID_OR_DRUG),
    _rule("aliphatic aldehyde", "[CX4][CH]=O", "waxy, fragrance"),
    _rule("thiol", "[CX4][SH]", "sulfurous, warning agent"),
    _rule("alkylpyrazine", "[CX4]c1nccnc1", "nutty, roasted, flavouring agent"),
    _rule("vanilloid", "COc1cc([CH]=O)ccc1[OH]", "vanilla, sweet, flavouring agent"),
    _rule("lactone", "O=C1CCC(C)O1", "coconut, creamy, flavouring agent"),
    _rule("terpene alcohol", "CC(C)=CCCC(C)[CX4]CO", "floral, fragrance, insect repellent"),
    _rule("alkyl methyl ketone", "[CX4][CX4]C(=O)[CH3]", "cheesy, solvent", unless="[P,N,n,c]"),
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
