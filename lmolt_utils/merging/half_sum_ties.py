"""TIES as L4M §3.2.1 prints it (audit D40), a rule of its own for mergekit: ``half_sum_ties``.

Where two trimmed task vectors differ in sign, Eq. 1 sets both to the entry of larger magnitude, and the merge is the
base plus half their sum. In TIES an entry that one task vector alone keeps counts whole, here half.
"""

import torch
from mergekit.merge_methods import registry
from mergekit.merge_methods.base import BasePolicy, InputContract, PerNonBase, TensorGroup
from mergekit.merge_methods.easy_define import merge_method

NAME = "half_sum_ties"


def trimmed(vector: torch.Tensor, density: float) -> torch.Tensor:
    """``vector`` with all but its ``density`` largest entries (one at least) set to 0; of equal ones the first stay.

    mergekit's own trimming leaves that to the machine's sort.
    """
    sizes = vector.abs().flatten()
    stay = max(1, int(density * len(sizes)))
    border = sizes.kthvalue(len(sizes) - stay + 1).values  # several times as fast as sorting
    larger = ~(sizes <= border)  # so that an entry that is no number stays, too, and is seen
    equal = sizes == border
    kept = larger | (equal & (equal.cumsum(0) <= stay - larger.sum()))
    return torch.where(kept.reshape(vector.shape), vector, 0)


@merge_method(
    name=NAME,
    pretty_name="TIES as printed in Less for More",
    contract=InputContract(base=BasePolicy.REQUIRED, min_non_base=2, max_non_base=2),
)
def half_sum_ties(group: TensorGroup, weight: PerNonBase[float], density: PerNonBase[float]) -> torch.Tensor:
    """One tensor; Eq. 1 is applied where the signs conflict, as the sentence before it says."""
    base = group.base.tensor
    one, two = weight.values_for(group.non_base)
    first, second = (
        trimmed(entry.tensor - base, share)
        for entry, share in zip(group.non_base, density.values_for(group.non_base), strict=True)
    )
    larger = torch.where(first.abs() > second.abs(), first, second)
    return base + torch.where(first * second < 0, (one + two) * larger, one * first + two * second)


def register() -> None:
    """Make the rule known to mergekit in this process; it refuses a name twice."""
    if NAME not in {method.spec.name for method in registry.registered_methods()}:
        registry.register(half_sum_ties)


def main() -> None:
    """``mergekit-yaml`` with this rule added."""
    from mergekit.scripts.run_yaml import main as mergekit_yaml

    register()
    mergekit_yaml()


if __name__ == "__main__":
    main()
