"""The four objectives as TRL trainers, and what TRL's are made exact in.

========  ==============================================================================================
SFT       -log π(y_w|x), mean over the answer tokens of an optimiser step (L4M Eq. 2)
DPO       -log σ(β (Δ_w - Δ_l)), Δ = log π(y|x) - log π_ref(y|x) over the answer's tokens (Eq. 3), + α NLL
kto_pair  what the released "DPO" ran: 1 - σ(β (Δ_w - max(Δ_l, 0))) and 1 - σ(β (max(Δ_w, 0) - Δ_l)), averaged
CPO       -log σ(β (log π(y_w|x) - log π(y_l|x))) + α NLL (Eq. 4; the printed sign of the first term is reversed)
NLL       -log π(y_w|x) (``sum``), or that divided by the answer's tokens (``row_mean``); in DPO and CPO alike
KTO       λ_w (1 - σ(β (Δ - z_ref))) for chosen, λ_l (1 - σ(β (z_ref - Δ))) for rejected answers (Eq. 5; printed
          with the wrong sign before λ_l); z_ref: mean Δ of mismatched prompts and answers, at least 0
========  ==============================================================================================

All but SFT are means over the rows of an optimiser step. TRL averages the means of the micro-batches, which weighs the
rows of a smaller last micro-batch more: :class:`ByRows` corrects that. So no objective depends on ``micro_batch``, but
for KTO's z_ref, which is estimated within each micro-batch.

TRL also casts differently under QLoRA: :func:`same_precision` undoes that.

What TRL computes twice or for nothing is left out: :mod:`lmolt_utils.training.head`,
:mod:`lmolt_utils.training.shared_prompt`.
"""

import math
import time
from functools import partial
from typing import Any

import psutil
import torch
from torch.nn import functional
from trl import DPOTrainer, KTOTrainer, SFTTrainer
from trl.experimental.cpo import CPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import add_fused_lm_head

from lmolt_utils.errors import CompanionError
from lmolt_utils.training.head import answers_only
from lmolt_utils.training.shared_prompt import joined, matched_and_not, padded


class TrainingError(CompanionError):
    """A training that cannot start, or that has to stop."""


def kto_pair(chosen: torch.Tensor, rejected: torch.Tensor, beta: float) -> torch.Tensor:
    """Loss per pair (rows) from the log-ratios Δ_w and Δ_l (rows), as TRL 0.8.6 has it at one pair per micro-batch.

    There the released code ran (batch 1, accumulation 64): the KL terms are then each pair's own log-ratios and carry
    gradient. Along Δ_w = Δ_l the loss is exactly 1/2: nothing in it pulls towards the chosen answer itself.
    """
    up = 1 - torch.sigmoid(beta * (chosen - rejected.clamp(min=0)))
    down = 1 - torch.sigmoid(beta * (chosen.clamp(min=0) - rejected))
    return (up + down) / 2


def negative_log_likelihood(log_probs: torch.Tensor, tokens: torch.Tensor, kind: str) -> torch.Tensor:
    """The SFT term per row from log π(y_w|x) and the answer's tokens (both per row); audit D9.

    ``sum``: as Eq. 4 prints it. ``row_mean``: per token of the answer, which is what the released code ran (TRL's mean
    over a micro-batch's tokens, at one row per micro-batch); an answer's length times weaker.
    """
    return -log_probs if kind == "sum" else -log_probs / tokens


def same_precision(model: Any) -> str:
    """Give the weights of a new trainer's ``model`` the same types for every method; says which.

    The adapter is float32: AdamW's updates at the papers' learning rate are smaller than what bfloat16 keeps of LoRA's
    A. Under QLoRA embeddings, norms and head are float32 too, as PEFT prepares them. Left to itself, TRL rounds the
    adapter to bfloat16 in SFT, DPO and KTO, and embeddings and head in CPO. The adapter's first values are rounded
    for all, so that all start from the same ones.
    """
    quantised = getattr(model, "is_loaded_in_4bit", False)
    frozen: set[str] = {"nf4"} if quantised else set()
    trained: set[str] = set()
    for parameter in model.parameters():
        if type(parameter).__name__ == "Params4bit":
            continue
        if quantised and parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
        if quantised or parameter.requires_grad:
            parameter.data = parameter.data.float()
        kept = trained if parameter.requires_grad else frozen
        kept.add(str(parameter.dtype).removeprefix("torch."))
    return f"adapter {', '.join(sorted(trained))}, base {', '.join(sorted(frozen, reverse=True))}"


def _rows(batch: dict[str, Any]) -> int:
    """Training rows in a micro-batch (DPO's tensors hold two sequences per row, which no ratio of counts notices)."""
    return len(batch["input_ids"] if "input_ids" in batch else batch["chosen_input_ids"])


class Watched:
    """Counts tokens and memory, and stops at the first loss that is no number, naming the step and the batch."""

    tokens = 0
    peak_mb = 0.0
    micro = 0
    precision = ""
    reference_s = 0.0

    def __init__(self, *args: Any, model: Any, **kwargs: Any) -> None:
        kwargs["model"] = model
        with answers_only(statistics=False):  # the reference's log-probabilities are computed here
            super().__init__(*args, **kwargs)
        self.precision = same_precision(self.model)  # type: ignore[attr-defined]

    def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        found = super()._precompute_ref_logps(*args, **kwargs)  # type: ignore[misc]
        self.reference_s += time.perf_counter() - begin
        return found

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss of a micro-batch."""
        with answers_only():
            loss = super().compute_loss(*args, **kwargs)  # type: ignore[misc]
        self.note_memory()  # activations are still held
        return loss

    def note_memory(self) -> None:
        """Sample the memory in use."""
        self.peak_mb = max(self.peak_mb, _memory_mb(self.args.device))  # type: ignore[attr-defined]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The micro-batches of the next step; their rows are counted."""
        found = super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]
        self.micro = 0
        self.rows_in_step = sum(_rows(batch) for batch in found[0])
        return found

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-batch; raises :class:`TrainingError` when its loss is not finite."""
        masks = [
            inputs[name]
            for name in ("attention_mask", "chosen_attention_mask", "rejected_attention_mask")
            if name in inputs
        ]
        tokens, first = sum(int(mask.sum()) for mask in masks), _rows(inputs)
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        self.tokens += tokens
        self.micro += 1
        self.note_memory()
        if not math.isfinite(float(loss)):
            step = self.state.global_step + 1  # type: ignore[attr-defined]
            raise TrainingError(
                f"the loss is {float(loss)} at step {step}, micro-batch {self.micro} ({first} rows of {tokens} tokens)"
            )
        return loss


def _memory_mb(device: torch.device) -> float:
    """Memory in use: a GPU's peak since the training began (``Clock`` begins the count), else this process's, now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return float(psutil.Process().memory_info().rss) / 2**20


class ByRows(Watched):
    """The loss of a step is the mean over its rows, however they fall into micro-batches."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """A micro-batch's mean, weighted by its share of the step's rows."""
        rows = _rows(inputs)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        share = rows * self.current_gradient_accumulation_steps / self.rows_in_step  # type: ignore[attr-defined]
        return loss if share == 1 or not model.training else loss * share


class Sft(Watched, SFTTrainer):
    """TRL's SFT: its loss is the mean over the step's tokens already."""


class Dpo(ByRows, DPOTrainer):
    """TRL's DPO."""


class _OwnLoss(ByRows, DPOTrainer):
    """DPO's trainer with a loss of ours."""

    def losses(
        self, chosen: torch.Tensor, rejected: torch.Tensor, log_probs: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Loss per pair from Δ_w, Δ_l, log π(y_w|x) and the chosen answer's tokens (all per pair)."""
        raise NotImplementedError

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> torch.Tensor:
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=False,
            labels=labels,
            fused_lm_head=True,
        )
        log_probs, other = outputs.log_probs.sum(dim=1).chunk(2, dim=0)
        tokens = inputs["completion_mask"][:, 1:].sum(dim=1).chunk(2, dim=0)[0]
        chosen, rejected = log_probs - inputs["ref_chosen_logps"], other - inputs["ref_rejected_logps"]
        metrics = self._metrics["train" if model.training else "eval"]
        with torch.no_grad():
            for name, value in (
                ("rewards/chosen", chosen),
                ("rewards/rejected", rejected),
                ("rewards/margins", chosen - rejected),
            ):
                metrics[name].append(self.beta * value.mean().item())
            metrics["rewards/accuracies"].append((chosen > rejected).float().mean().item())
        return self.losses(chosen, rejected, log_probs, tokens).mean()


class KtoPair(_OwnLoss):
    """:func:`kto_pair`, which TRL gave up in 0.9.6."""

    def losses(
        self, chosen: torch.Tensor, rejected: torch.Tensor, log_probs: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Of the log-ratios alone."""
        return kto_pair(chosen, rejected, self.beta)


class DpoNll(_OwnLoss):
    """DPO with an SFT term of weight ``alpha``. TRL's is a mean over the tokens of a micro-batch."""

    nll = "sum"
    alpha = 1.0

    def losses(
        self, chosen: torch.Tensor, rejected: torch.Tensor, log_probs: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Eq. 3 and :func:`negative_log_likelihood`."""
        return self.alpha * negative_log_likelihood(log_probs, tokens, self.nll) - functional.logsigmoid(
            self.beta * (chosen - rejected)
        )


class Cpo(ByRows, CPOTrainer):
    """TRL's CPO, with :func:`negative_log_likelihood` of kind ``nll`` for its SFT term.

    TRL's is a mean over the tokens of a micro-batch, so that its objective changes with the size of one.
    """

    nll = "sum"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        padding: Any = self.pad_token_id
        self.data_collator = partial(padded, padding=padding)
        rows: Any = self.train_dataset
        unread = [name for name in rows.column_names if name.endswith("_mask") or name.startswith("prompt_")]
        self.train_dataset = rows.remove_columns(unread)
        # TRL's CPO computes all logits; its other trainers have this head.
        adapted: Any = self.model
        add_fused_lm_head(adapted.get_base_model(), outputs=("log_probs", "mean_logits"))

    def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> Any:
        """TRL's five parts: log π of chosen and rejected answers (rows), mean logits at their tokens, the SFT term."""
        padding: Any = self.pad_token_id
        pairs = joined(batch, padding, model.dtype)
        found = model(
            input_ids=pairs.ids,
            position_ids=pairs.positions,
            attention_mask=pairs.mask,
            labels=pairs.labels,
            fused_lm_head=True,
        )
        sides = [(part & (pairs.labels != -100))[:, 1:] for part in (pairs.chosen, pairs.rejected)]
        chosen, rejected = ((found.log_probs * side).sum(dim=1) for side in sides)
        nll = negative_log_likelihood(chosen, sides[0].sum(dim=1), self.nll).mean()
        return chosen, rejected, *(found.mean_logits[side] for side in sides), nll


class Kto(ByRows, KTOTrainer):
    """TRL's KTO; z_ref is estimated within each micro-batch. The reference has to be computed before the training."""

    mismatched: torch.Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.precompute_ref_logps:
            raise ValueError("Kto keeps the policy's mismatched answers only: set precompute_ref_log_probs")

    def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
        reference: Any = self.model
        with reference.disable_adapter():  # once, not for each batch
            return super()._precompute_ref_logps(*args, **kwargs)

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        """Log π of a batch's answers, and of its mismatched ones (rows), by a model whose adapter is off."""
        settings: Any = self.args.gradient_checkpointing_kwargs
        with torch.no_grad(), disable_gradient_checkpointing(model, settings), self.accelerator.autocast():
            found, mismatched = matched_and_not(model, inputs)
        return found.log_probs.sum(dim=1), mismatched

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        found, self.mismatched = matched_and_not(model, inputs)
        return super()._compute_loss(lambda **_: found, inputs, return_outputs)

    def _compute_kl_logps(self, model: Any, batch: Any) -> Any:
        return self.mismatched
