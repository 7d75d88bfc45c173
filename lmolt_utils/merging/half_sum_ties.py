"""The newest paper's own TIES, registered with mergekit as ``half_sum_ties``.

What L4M §3.2.1 prints is not TIES (audit D40): where the trimmed task vectors differ in sign, Eq. 1 sets both to the
entry of larger magnitude (TIES elects the sign of the sum and averages the entries that agree), and the merge is half
the sum (TIES divides by the number of entries kept, so an entry that only one task vector keeps counts whole there and
half here). The base, which the printed formula leaves out, is added back: without it no model would be left.

mergekit's command does not know the rule; this one registers it and then runs mergekit's:
``python -m lmolt_utils.merging.half_sum_ties CONFIG OUT`` in place of ``mergekit-yaml CONFIG OUT``.
"""

import numpy as np
import torch
from mergekit.merge_methods import registry
from mergekit.merge_methods.base import BasePolicy, InputContract, PerNonBase, TensorGroup
from mergekit.merge_methods.easy_define import merge_method

from lmolt_utils.merging.trimming import merged_in_pieces

NAME = "half_sum_ties"


def aligned_sum(first: torch.Tensor, second: torch.Tensor, weights: tuple[float, float]) -> torch.Tensor:
    """L4M Eq. 1 on two trimmed flat task vectors of equal length, then their weighted sum (weights 1/2: the paper's).

    Where the signs differ both take the value of larger magnitude (the second's when equal, as printed). Eq. 1 says
    so of every entry, the sentence before it of conflicts; read as printed for every entry it would fill in from
    the other task vector what trimming had reset, and the half in front of the sum would have no effect.
    """
    mixed = (weights[0] * first).add_(weights[1] * second)
    places = torch.from_numpy(np.flatnonzero((first * second).numpy() < 0))  # few: only they are looked at twice
    one, other = first[places], second[places]
    mixed[places] = sum(weights) * torch.where(one.abs() > other.abs(), one, other)
    return mixed


@merge_method(
    name=NAME,
    pretty_name="TIES as printed in Less for More",
    contract=InputContract(base=BasePolicy.REQUIRED, min_non_base=2, max_non_base=2),
)
def half_sum_ties(group: TensorGroup, weight: PerNonBase[float], density: PerNonBase[float]) -> torch.Tensor:
    """One tensor: trim, align by Eq. 1, weighted sum, added to the base; in float32, in pieces of a cache's size."""
    weights = weight.values_for(group.non_base)
    tensors = [entry.tensor.cpu() for entry in group.non_base]
    merged = merged_in_pieces(
        group.base.tensor.cpu(),
        tensors,
        density.values_for(group.non_base),
        lambda vectors, _: aligned_sum(vectors[0], vectors[1], (weights[0], weights[1])),
    )
    return merged.to(group.base.tensor.device)


def register() -> None:
    """Make the rule known to mergekit in this process (once; mergekit refuses a name twice)."""
    if NAME not in {method.spec.name for method in registry.registered_methods()}:
        registry.register(half_sum_ties)


def main() -> None:
    """mergekit's own command, with this rule."""
    from mergekit.scripts.run_yaml import main as mergekit_yaml

    register()
    mergekit_yaml()


if __name__ == "__main__":
    main()
