"""TRL's trainers for SFT, DPO, CPO and KTO, and the losses that TRL's stable trainers lack.

========  ==============================================================================================
SFT       -log π(y_w|x), mean over the answer tokens of an optimiser step (L4M Eq. 2)
DPO       -log σ(β (Δ_w - Δ_l)), Δ = log π(y|x) - log π_ref(y|x) over the answer's tokens (Eq. 3), + α NLL
kto_pair  what the released "DPO" ran: 1 - σ(β (Δ_w - max(Δ_l, 0))) and 1 - σ(β (max(Δ_w, 0) - Δ_l)), averaged
CPO       -log σ(β (log π(y_w|x) - log π(y_l|x))) + α NLL (Eq. 4; the printed sign of the first term is reversed)
NLL       -log π(y_w|x) (``sum``), or that divided by the answer's tokens (``row_mean``); in DPO and CPO alike
KTO       λ_w (1 - σ(β (Δ - z_ref))) for chosen, λ_l (1 - σ(β (z_ref - Δ))) for rejected answers (Eq. 5; printed
          with the wrong sign before λ_l); z_ref: mean Δ of mismatched prompts and answers, at least 0
========  ==============================================================================================

SFT and KTO are TRL's. DPO, kto_pair and CPO are :class:`PairTrainer`, TRL's DPO trainer with these losses: CPO is DPO
with NLL and no reference. The output layer is computed for the answers alone: at a vocabulary of 32,000 TRL's own takes
thirty times as long on a CPU.

All but SFT are means over the rows of an optimiser step. TRL averages the means of the micro-batches, which gives the
rows of a smaller last one more weight; :class:`RowMean` corrects that. So no objective depends on ``micro_batch``,
except through KTO's z_ref, which is estimated within each micro-batch.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from trl import DPOTrainer, KTOTrainer, SFTTrainer

from lmolt_utils.errors import CompanionError

#: Loss per pair from Δ_w, Δ_l, log π(y_w|x) and the number of the chosen answer's tokens (all per pair).
Objective = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class TrainingError(CompanionError):
    """A training that cannot start, or that has to stop."""


def kto_pair(chosen: torch.Tensor, rejected: torch.Tensor, beta: float) -> torch.Tensor:
    """Loss per pair (rows) from the log-ratios Δ_w and Δ_l (rows), as TRL 0.8.6 has it at one pair per micro-batch.

    So the released code ran: the KL terms are each pair's own log-ratios and carry gradient. Along Δ_w = Δ_l the loss
    is exactly 1/2: nothing in it pulls towards the chosen answer itself.
    """
    up = 1 - torch.sigmoid(beta * (chosen - rejected.clamp(min=0)))
    down = 1 - torch.sigmoid(beta * (chosen.clamp(min=0) - rejected))
    return (up + down) / 2


def sigmoid_and_nll(beta: float, alpha: float, nll: str) -> Objective:
    """Eq. 3 with an NLL term; Eq. 4 where there is no reference.

    ``nll`` (audit D9): ``sum``, as Eq. 4 prints it; ``row_mean``, per token of the answer, as the released code ran.
    """

    def losses(
        chosen: torch.Tensor, rejected: torch.Tensor, log_probs: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        preference = -functional.logsigmoid(beta * (chosen - rejected))
        return preference + alpha * (-log_probs if nll == "sum" else -log_probs / tokens)

    return losses


def hidden_states(decoder: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Last hidden states (2 pairs, tokens, width) of a batch of TRL's DPO collator: chosen answers, then rejected ones.

    The two sequences of a pair become one: chosen, then the part of rejected that differs, which sees the tokens that
    both begin with, prompt included, but none of chosen's others. So what they share is computed once (Wang & Hegde
    2024, arXiv 2410.20305).
    """
    ids, real = batch["input_ids"], batch["attention_mask"].bool()
    (chosen, rejected), (kept, other) = ids.chunk(2), real.chunk(2)
    shared = ((chosen == rejected) & kept & other).cumprod(dim=1).sum(dim=1, keepdim=True)
    column = torch.arange(ids.shape[1], device=ids.device).expand(chosen.shape)
    moved = column + (column >= shared) * (kept.sum(dim=1, keepdim=True) - shared)  # where rejected's tokens stand
    width = int((kept.sum(dim=1) + other.sum(dim=1) - shared[:, 0]).max())
    row = torch.arange(len(chosen), device=ids.device)[:, None].expand(chosen.shape)
    tokens, positions = ids.new_zeros((2, len(chosen), width))
    segment = ids.new_full((len(chosen), width), -1)  # 0: of both, 1: chosen, 2: rejected, -1: padding
    for text, there, place, number in ((rejected, other, moved, 2), (chosen, kept, column, 1)):
        at = row[there], place[there]
        tokens[at], positions[at] = text[there], column[there]
        segment[at] = torch.where(column < shared, 0, number)[there]
    seen = (segment[:, None] == segment[:, :, None]) | (segment[:, None] == 0)
    mask = torch.zeros(seen.shape, dtype=decoder.dtype, device=ids.device)
    mask = mask.masked_fill(~seen.tril(), torch.finfo(decoder.dtype).min)[:, None]
    states = decoder(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state
    place = torch.cat([column, moved]).clamp(max=width - 1)  # padding may point beyond the end
    return states[torch.cat([row, row]), place]


def answer_log_probs(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """log π(y|x) of each sequence of a batch of TRL's DPO collator, by a PEFT model: a sum over the answer's tokens."""
    causal = model.get_base_model()
    states = hidden_states(causal.get_decoder(), batch)[:, :-1]
    predicted = batch["completion_mask"][:, 1:].bool()
    logits = causal.get_output_embeddings()(states[predicted]).float()
    found = -functional.cross_entropy(logits, batch["input_ids"][:, 1:][predicted], reduction="none")
    return found.new_zeros(predicted.shape).masked_scatter(predicted, found).sum(dim=1)


def same_precision(model: Any) -> str:
    """Give the weights of a new trainer's ``model`` the same types for every method; says which.

    The adapter is float32: AdamW's updates at the papers' learning rate are smaller than what bfloat16 keeps of LoRA's
    A. Under QLoRA embeddings, norms and head are float32 too, as PEFT prepares them. TRL's own bfloat16 adapters begin
    with rounded values, which stay.
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


class Monitored:
    """A trainer that counts tokens and stops at the first loss that is not finite, naming the step and the batch."""

    tokens = 0
    reference_s = 0.0  # seconds that the reference's log-probabilities took

    def __init__(self, *args: Any, model: Any, **kwargs: Any) -> None:
        super().__init__(*args, model=model, **kwargs)  # type: ignore[call-arg]
        self.precision = same_precision(self.model)  # type: ignore[attr-defined]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        self.micro = 0
        return super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-batch; raises :class:`TrainingError` when its loss is not finite."""
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        self.tokens += int(self.accelerator.reduce(inputs["attention_mask"].sum()))  # type: ignore[attr-defined]
        self.micro += 1
        if not math.isfinite(float(loss)):
            step = self.state.global_step + 1  # type: ignore[attr-defined]
            raise TrainingError(f"the loss is {float(loss)} at step {step}, micro-batch {self.micro}")
        return loss


class RowMean(Monitored):
    """A trainer whose loss of a step is the mean over the step's rows, however they fall into micro-batches."""

    rows_in_step: int | None = None  # known while training

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        found = super().get_batch_samples(*args, **kwargs)
        self.rows_in_step = sum(len(batch["input_ids"]) for batch in found[0])
        return found

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        """log π_ref of a batch's answers, timed: TRL asks for them before the training."""
        begin = time.perf_counter()
        found = super().compute_ref_log_probs(model, inputs)  # type: ignore[misc]
        self.reference_s += time.perf_counter() - begin
        return found

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
        """A micro-batch's mean; in a training weighted by its share of the step's rows."""
        loss: torch.Tensor = super().compute_loss(model, inputs)  # type: ignore[misc]
        if self.rows_in_step is None:
            return loss
        steps = self.current_gradient_accumulation_steps  # type: ignore[attr-defined]
        share = len(inputs["input_ids"]) * steps / self.rows_in_step
        return loss if share == 1 else loss * share


class Sft(Monitored, SFTTrainer):
    """TRL's SFT: its loss is the mean over the step's tokens already."""


class Kto(RowMean, KTOTrainer):
    """TRL's KTO; z_ref is estimated within each micro-batch."""


class AnswersOnly(DPOTrainer):
    """TRL's DPO trainer with the loss ``objective``; a reference that is not precomputed counts as 0."""

    objective: Objective

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.measured: list[tuple[torch.Tensor, ...]] = []

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        """By the same code as the policy's, so that Δ is exactly 0 at first, where kto_pair has a corner."""
        model = self.accelerator.unwrap_model(model)
        with torch.no_grad(), model.disable_adapter(), self.accelerator.autocast():
            return answer_log_probs(model, inputs).chunk(2)

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
        """The mean of ``objective`` over the pairs of a micro-batch."""
        with self.accelerator.autocast():
            log_probs, other = answer_log_probs(self.accelerator.unwrap_model(model), inputs).chunk(2)
        tokens = inputs["completion_mask"].sum(dim=1).chunk(2)[0]
        chosen = log_probs - inputs.get("ref_chosen_logps", 0)
        rejected = other - inputs.get("ref_rejected_logps", 0)
        self.measured.append((chosen.detach(), rejected.detach(), log_probs.detach(), other.detach()))
        return self.objective(chosen, rejected, log_probs, tokens).mean()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With the means of log π and of the rewards β Δ since the last log, under the names that TRL's DPO gives."""
        if self.measured:
            parts = [torch.cat(part) for part in zip(*self.measured, strict=True)]
            chosen, rejected, log_probs, other = map(self.accelerator.gather, parts)
            chosen, rejected = self.beta * chosen, self.beta * rejected
            rewards = {"chosen": chosen, "rejected": rejected, "margins": chosen - rejected}
            rewards["accuracies"] = (chosen > rejected).float()
            logs |= {"logps/chosen": log_probs.mean().item(), "logps/rejected": other.mean().item()}
            logs |= {f"rewards/{name}": values.mean().item() for name, values in rewards.items()}
            self.measured.clear()
        super().log(logs, start_time)


class PairTrainer(RowMean, AnswersOnly):
    """DPO, kto_pair and CPO; the gradient of a whole step is the mean over all processes'.

    torch's own averaging waits for a forward pass of the whole model, which computes every logit.
    """

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(model, inputs, *args, **kwargs)
        if self.args.world_size > 1 and self.micro == self.current_gradient_accumulation_steps:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        return loss
