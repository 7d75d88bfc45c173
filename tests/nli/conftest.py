"""What stands in for an NLI model where its answers must be known."""

from collections.abc import Callable, Iterable, Mapping

from lmolt_utils.nli.classifier import Answer, Pair, PairScorer


class Answers(PairScorer):
    """The answers of ``judge`` to premise and hypothesis; ``seen``: what was asked last."""

    def __init__(self, judge: Callable[[str, str], Answer]) -> None:
        self.judge = judge

    def __call__(self, pairs: Iterable[Pair], *, progress: bool = True) -> Mapping[Pair, Answer]:
        self.seen = list(pairs)
        return {pair: self.judge(*pair) for pair in self.seen}
