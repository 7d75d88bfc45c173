"""The model's head in a training: computed where an answer's token is predicted, and nowhere else.

At the prompt's positions it changes no loss, and with a small model it is a third of the work. TRL leaves them out by
itself on a GPU; elsewhere it scores all positions, for compilers that need constant shapes. On a processor the logits
are also kept for the backward pass, where TRL computes them again to save memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from trl.trainer import utils

_trl: Any = utils
_chunked = _trl._ChunkedLogProbFunction


@dataclass(frozen=True)
class Kept:
    """Stands in for TRL's function of the same arguments and results; ``statistics``: more than log-probabilities."""

    statistics: bool = True

    def apply(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        temperature: float,
        chunk: int,
        softcap: float | None,
        scale: float,
        outputs: tuple[str, ...],
    ) -> tuple[torch.Tensor | None, ...]:
        """Of each position: log-probability of its target, entropy, None, mean logit, whether the target is top."""
        usual = (temperature, softcap, scale) == (1.0, None, 1.0) and "log_sum_sq_probs" not in outputs
        if hidden.device.type != "cpu" or not usual:
            found: tuple[torch.Tensor | None, ...] = _chunked.apply(
                hidden, weight, bias, targets, temperature, chunk, softcap, scale, outputs
            )
            return found
        logits = functional.linear(hidden, weight, bias).float()
        log_probs = -functional.cross_entropy(logits, targets, reduction="none")
        entropy = mean = top = None
        if not self.statistics:
            return log_probs, entropy, None, mean, top
        with torch.no_grad():
            if "entropy" in outputs:  # log Z - Σ p z
                log_z = logits.gather(1, targets[:, None])[:, 0] - log_probs
                entropy = log_z - torch.linalg.vecdot(torch.softmax(logits, -1), logits)
            if "mean_logits" in outputs:
                mean = logits.mean(-1)
            if "is_top1" in outputs:
                top = logits.argmax(-1) == targets
        return log_probs, entropy, None, mean, top


@contextmanager
def answers_only(*, statistics: bool = True) -> Iterator[None]:
    """TRL's trainers compute the head as above while the block runs; a reference needs no statistics."""
    usual = _trl._ChunkedLogProbFunction, _trl._use_triton
    _trl._ChunkedLogProbFunction, _trl._use_triton = Kept(statistics), lambda device: True
    try:
        yield
    finally:
        _trl._ChunkedLogProbFunction, _trl._use_triton = usual
