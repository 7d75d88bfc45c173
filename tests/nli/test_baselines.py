"""Full-text, sentence-level and SummaC-style NLI: pooling by hand, and a convolution fitted on references."""

import numpy as np
import pytest

from lmolt_utils.embedded.corpus import generate
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.nli.baselines import SUMMAC_ZS, FitError, convolution, fitted_convolution, zero_shot
from lmolt_utils.nli.classifier import Answer
from tests.nli.conftest import Answers

DECOMPOSER = Decomposer(open_vocabulary=True)


def by_facts(premise: str, hypothesis: str) -> Answer:
    """Entailed as far as the premise states the hypothesis' properties."""
    wanted, stated = DECOMPOSER.properties(hypothesis), DECOMPOSER.properties(premise)
    share = len(wanted & stated) / max(1, len(wanted))
    return 0.0, 0.9 * share, 1 - 0.9 * share


def test_zero_shot_takes_the_two_maxima_apart() -> None:
    # One hypothesis, two premises: highest entailment from the first, highest contradiction from the second.
    answers = np.array([[[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], [[0.0, 0.0, 1.0], [0.2, 0.1, 0.7]]])
    expected = (((0.7 - 0.5) + (0.1 - 0.2)) / 2 + 1) / 2
    assert zero_shot(answers) == pytest.approx(expected)
    assert SUMMAC_ZS.pool(answers, answers) == pytest.approx((1 - expected, expected, 1 - expected))


def entailed(*values: list[float]) -> np.ndarray:
    """Answers, shape (hypotheses, premises, 3), by their entailment."""
    return np.stack([np.zeros_like(values), values, 1 - np.array(values)], axis=-1)


def test_convolution_by_hand() -> None:
    weights = np.zeros(50)
    weights[49], weights[0] = 2.0, -1.0
    answers = entailed([1.0, 0.019], [0.0, 0.0])  # the last of the 50 bins and the first; the second begins at 0.02
    expected = np.mean([1 / (1 + np.exp(-(2 - 1 + 0.5))), 1 / (1 + np.exp(-(-2 + 0.5)))])
    other = 1 / (1 + np.exp(-(-2 + 0.5)))
    found = convolution(weights, 0.5).pool(answers, entailed([0.0, 0.0]))
    assert found == pytest.approx((1 - expected, other, 1 - expected))


def test_convolution_fitted_on_references_tells_own_facts_from_others() -> None:
    references = list(generate(200, 3)["caption"])
    method = fitted_convolution(references, DECOMPOSER, Answers(by_facts))
    own, other = entailed([0.9, 0.0]), entailed([0.0, 0.0])
    _, consistency, _ = method.pool(other, own)
    assert consistency > 0.8
    assert method.pool(own, other)[1] < 0.5
    again = fitted_convolution(references[::-1], DECOMPOSER, Answers(by_facts))
    assert again.pool(other, own) == method.pool(other, own)


@pytest.mark.parametrize(("references", "distinct"), [(["The molecule is a nutrient."] * 100, 1), ([], 0)])
def test_convolution_refuses_too_little(references: list[str], distinct: int) -> None:
    with pytest.raises(FitError, match=f"{distinct} distinct"):
        fitted_convolution(references, DECOMPOSER, Answers(by_facts))
