"""Fréchet ChemNet Distance: its value, and what each row adds to it."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

FCD_WIDTH = 350  # tokens that ChemNet reads, the end mark among them
FCD_FULL_RANK = 513  # molecules from which a covariance of ChemNet's 512 activations can have full rank
_BATCH = 32  # molecules that go through ChemNet together


@dataclass(frozen=True, eq=False)
class FCDStatistics:
    """activations: ChemNet's, one row per distinct canonical SMILES, float32, shape (m, 512).

    references, predictions: which of them each row's two molecules have, -1 where left out, shape (n,).
    """

    activations: np.ndarray
    references: np.ndarray
    predictions: np.ndarray


@cache
def chemnet_network() -> Any:
    """fcd_torch's ChemNet on the CPU, loaded once per process."""
    import fcd_torch  # here, since it imports torch: captions do not need it

    return fcd_torch.FCD(device="cpu", n_jobs=1, canonize=False)


#: Activations of the molecules that this process has met, by canonical SMILES.
_MET: dict[str, np.ndarray] = {}


def chemnet(canonical_smiles: Sequence[str], met: dict[str, np.ndarray] = _MET) -> np.ndarray:
    """ChemNet's last-but-one layer for n non-empty canonical SMILES: float32 of shape (n, 512); ``met`` is added to.

    Every batch has the same shape and goes through one thread (three would divide it unevenly): a molecule's numbers
    do not depend on which others are new, and a resumed run gives the same bytes.
    """
    import torch

    new = [smiles for smiles in dict.fromkeys(canonical_smiles) if smiles not in met]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fcd_torch's uses of deprecated numpy names
            for start in range(0, len(new), _BATCH):
                batch = new[start : start + _BATCH]
                filled = [*batch, *["C"] * (_BATCH - len(batch))]
                met.update(zip(batch, chemnet_network().get_predictions(filled), strict=False))
    finally:
        torch.set_num_threads(threads)
    return np.array([met[smiles] for smiles in canonical_smiles], dtype=np.float32).reshape(-1, 512)


def frechet_chemnet_distance(
    references: Sequence[str | None], predictions: Sequence[str | None]
) -> tuple[float, FCDStatistics | None, dict[str, Any]]:
    """FCD of two sets of canonical SMILES, as fcd 1.1 and fcd_torch define it (unpaired; duplicates count).

    None stands for a string that does not parse, "" for an empty molecule: both are left out. With fewer than 513
    molecules values are large and compare only with sets of the same size; with fewer than two the value is NaN.

    Returns the value, what a resample of the rows needs, and counts: molecules that count, empty ones, those of which
    ChemNet may not read the end (350 characters or more) or reads the first fragment only, and a note for the reader.
    """
    sides = (list(references), list(predictions))
    kept = [[smiles for smiles in side if smiles] for side in sides]
    everything = kept[0] + kept[1]
    smallest = min(map(len, kept))
    value, statistics, note = math.nan, None, ""
    if smallest < 2:
        note = f"FCD needs two molecules on each side, got {len(kept[0])} references and {len(kept[1])} predictions"
    else:
        distinct: dict[str | None, int] = {smiles: i for i, smiles in enumerate(dict.fromkeys(everything))}
        activations = chemnet([smiles for smiles in distinct if smiles])
        places = [np.array([distinct.get(smiles, -1) for smiles in side], dtype=np.int64) for side in sides]
        value = frechet_distance(*(activations[of[of >= 0]].astype(np.float64) for of in places))
        statistics = FCDStatistics(activations, *places)
        if smallest < FCD_FULL_RANK:
            note = f"fewer than {FCD_FULL_RANK} molecules ({smallest}): the covariance is singular, "
            note += "compare only sets of the same size"
    counts: dict[str, Any] = {
        "fcd_references": len(kept[0]),
        "fcd_predictions": len(kept[1]),
        "fcd_dropped_empty": sum(smiles == "" for side in sides for smiles in side),
        "fcd_over_349_characters": sum(len(smiles) >= FCD_WIDTH for smiles in everything),
        "fcd_several_fragments": sum("." in smiles for smiles in everything),
        "fcd_note": note,
    }
    return value, statistics, counts


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Squared Fréchet distance of Gaussians fitted to two samples, shapes (n, d) and (m, d), n, m >= 2."""
    difference = x.mean(axis=0) - y.mean(axis=0)
    # With covariances X = P'P and Y = Q'Q, Tr sqrt(XY) is the sum of the singular values of PQ': exact, unlike the
    # usual matrix square root, when a covariance is singular.
    centred = ((side - side.mean(axis=0)) / np.sqrt(len(side) - 1) for side in (x, y))
    p, q = (np.asarray(np.linalg.qr(side, mode="r")) for side in centred)
    cross = np.linalg.svd(p @ q.T, compute_uv=False).sum()
    return float(difference @ difference + np.sum(p**2) + np.sum(q**2) - 2.0 * cross)


def fcd_influence(fcd: FCDStatistics) -> np.ndarray:
    """How much each row moves FCD, shape (n,): the derivative by the row's weight, which sums to 0.

    The infinitesimal jackknife (Efron 1982, chapter 6). With X and Y the centred activations over sqrt(size - 1), the
    derivative of Tr sqrt(cov X cov Y) by the weight of row i of X is half the diagonal entry i of sqrt(XY'YX').
    """
    activations = np.asarray(fcd.activations, dtype=float)
    sides = (fcd.references, fcd.predictions)
    rows = [np.flatnonzero(side >= 0) for side in sides]
    values = [activations[side[kept]] for side, kept in zip(sides, rows, strict=True)]
    shift = values[0].mean(axis=0) - values[1].mean(axis=0)
    centred = [x - x.mean(axis=0) for x in values]
    bases, factors = zip(*(np.linalg.qr(x / math.sqrt(len(x) - 1)) for x in centred), strict=True)
    left, singular, right = np.linalg.svd(factors[0] @ factors[1].T, full_matrices=False)
    cross = singular.sum()
    influence = np.zeros(len(sides[0]))
    for sign, kept, x, basis, factor, turn in zip((1, -1), rows, centred, bases, factors, (left, right.T), strict=True):
        spread, size = np.sum(factor**2), len(x)
        own = ((basis @ turn) ** 2) @ singular
        influence[kept] += (sign * 2 * x @ shift - spread + cross) / size + np.sum(x**2, axis=1) / (size - 1) - own
    return influence
