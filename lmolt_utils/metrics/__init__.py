"""The papers' metrics, defined as the L+M-24 evaluation defines them, one module per kind."""

from lmolt_utils.metrics.captions import (
    CAPTION_METRICS,
    CaptionScores,
    CaptionTokenizer,
    MeteorMatcher,
    caption_scores,
    caption_tokenizer,
    meteor_matcher,
)
from lmolt_utils.metrics.distributions import (
    chr_f,
    length_deviation,
    modality,
    right_modality,
    word_count,
    wrong_modality_rate,
)
from lmolt_utils.metrics.molecules import (
    FCD,
    MOLECULE_METRICS,
    MoleculeScores,
    frechet_chemnet_distance,
    molecule_scores,
    parse_smiles,
)

__all__ = [
    "CAPTION_METRICS",
    "FCD",
    "MOLECULE_METRICS",
    "CaptionScores",
    "CaptionTokenizer",
    "MeteorMatcher",
    "MoleculeScores",
    "caption_scores",
    "caption_tokenizer",
    "chr_f",
    "frechet_chemnet_distance",
    "length_deviation",
    "meteor_matcher",
    "modality",
    "molecule_scores",
    "parse_smiles",
    "right_modality",
    "word_count",
    "wrong_modality_rate",
]
