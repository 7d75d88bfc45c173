"""The objectives against plain implementations of the papers' equations: losses and gradients, to 1e-5.

The plain side runs the same weights one sequence at a time, without padding, and sums log-probabilities in double
precision. Every step of a training is compared, so that from the second one on policy and reference differ.
"""

import math
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import TrainerCallback

from lmolt_utils.config.prompts import answer, prompt
from lmolt_utils.training.losses import kto_pair
from tests.training.test_training import recipe, trainer_for

WORDS = ["toxin.", "nutrient.", "lipid", "It impacts aging.", "flavour", "membrane stabilizer", "and"]


def pairs(rows: int) -> pd.DataFrame:
    """Answers of one to nine words and atoms, so that every batch needs padding."""
    generator = random.Random(1)
    made = []
    for row in range(rows):
        task = ("mol2cap", "cap2mol")[row % 2]
        caption, other = (" ".join(generator.choices(WORDS, k=generator.randint(1, 9))) for _ in range(2))
        molecule, wrong = ("C" * generator.randint(1, 12) + "O" for _ in range(2))
        source, good, bad = (molecule, caption, other) if task == "mol2cap" else (caption, molecule, wrong + "N")
        source = f"{source}{row}"  # each prompt once: the comparison finds its rows by their prompts
        made.append({"task": task, "source": source, "chosen": good, "rejected": bad})
    return pd.DataFrame(made)


def texts(rows: int) -> list[dict[str, Any]]:
    """``pairs`` as the model sees them."""
    return [
        {"prompt": prompt(row.task, row.source), "chosen": answer(row.chosen), "rejected": answer(row.rejected)}
        for row in pairs(rows).itertuples()
    ]


def log_probability(model: Any, tokenizer: Any, text: str, target: str) -> tuple[torch.Tensor, int]:
    """Sum of log π over the answer's tokens and EOS, and how many they are."""
    before = tokenizer(text).input_ids
    ids = torch.tensor([[*tokenizer(text + target).input_ids, tokenizer.eos_token_id]])
    table = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
    picked = table[torch.arange(table.shape[0]), ids[0, 1:]][len(before) - 1 :]
    return picked.sum(), len(picked)


def equation(name: str, rows: list[dict[str, Any]], model: Any, tokenizer: Any, settings: Any) -> torch.Tensor:
    """The loss of one optimiser step on ``rows`` by ``model`` as it is now, as the papers' equations define it."""

    def ask(row: dict[str, Any], which: str) -> tuple[torch.Tensor, int]:
        return log_probability(model, tokenizer, row["prompt"], row[which])

    beta = settings.beta
    with torch.no_grad(), model.disable_adapter():
        reference = [(ask(row, "chosen")[0], ask(row, "rejected")[0]) for row in rows]
    now = [(ask(row, "chosen"), ask(row, "rejected")) for row in rows]
    if name == "sft":
        return -sum(w[0] for w, _ in now) / sum(w[1] for w, _ in now)
    terms = []
    for (w, other), (ref_w, ref_l) in zip(now, reference, strict=True):
        delta_w, delta_l = w[0] - ref_w, other[0] - ref_l
        nll = -w[0] if settings.cpo_nll == "sum" else -w[0] / w[1]
        if name.startswith("dpo"):
            term = -torch.log(1 / (1 + torch.exp(-beta * (delta_w - delta_l)))) + settings.dpo_alpha * nll
        elif name == "kto_pair":
            zero = torch.zeros(())
            up = 1 - 1 / (1 + torch.exp(-beta * (delta_w - torch.maximum(delta_l, zero))))
            down = 1 - 1 / (1 + torch.exp(-beta * (torch.maximum(delta_w, zero) - delta_l)))
            term = (up + down) / 2
        else:
            term = -torch.log(1 / (1 + torch.exp(-beta * (w[0] - other[0])))) + settings.cpo_alpha * nll
        terms.append(term)
    return sum(terms) / len(terms)


class Oracle(TrainerCallback):
    """Before each step the loss and gradients that the equations give, after it the trainer's."""

    def __init__(self, trainer: Any, steps: list[list[dict[str, Any]]], loss: Any) -> None:
        self.trainer, self.steps, self.loss = trainer, steps, loss
        self.gradients: list[tuple[float, float]] = []
        self.expected: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.weights = [weight for weight in self.trainer.model.parameters() if weight.requires_grad]
        value = self.loss(self.steps[state.global_step % len(self.steps)])
        self.wanted = torch.autograd.grad(value, self.weights)
        self.expected.append(float(value.detach()))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        sides = zip(self.weights, self.wanted, strict=True)
        worst = max(float((weight.grad - wanted).abs().max()) for weight, wanted in sides)
        self.gradients.append((worst, max(float(wanted.abs().max()) for wanted in self.wanted)))


CASES = {
    "sft": ("sft", {}),
    "dpo": ("dpo", {"beta": 0.3}),
    "dpo+nll": ("dpo", {"dpo_alpha": 0.7, "cpo_nll": "row_mean"}),
    "kto_pair": ("dpo", {"dpo_loss": "kto_pair"}),
    "cpo sum": ("cpo", {"cpo_alpha": 0.5}),
    "cpo row_mean": ("cpo", {"cpo_nll": "row_mean"}),
}


def run(method: str, folder: Path, rows: int, **changes: Any) -> tuple[Any, Any, Any]:
    """A trainer on ``rows`` pairs with plain clipping and a constant rate, its settings and tokenizer.

    TRL has no dropout in preference trainings, whatever is asked (D7): with any, no loss would be its equation's.
    """
    changes["lora_dropout"] = 0.0 if method == "sft" else 0.5
    settings = recipe(method, max_grad_norm=1e9, learning_rate=2.0e-3, epochs=2.0, **changes)
    trainer = trainer_for(settings, folder, pairs(rows))
    return trainer, settings, trainer.processing_class


def compare(trainer: Any, oracle: Oracle, kinks: int = 0) -> None:
    """Losses of every step, gradients of all but the first ``kinks``, where the equation has a corner."""
    trainer.add_callback(oracle)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == len(oracle.expected) >= 4
    assert losses == pytest.approx(oracle.expected, abs=1e-5, rel=1e-5)
    assert losses[0] != pytest.approx(losses[-1], abs=1e-4), "weights moved between the steps compared"
    for worst, largest in oracle.gradients[kinks:]:
        assert worst <= 1e-5 * max(1.0, largest)
        assert largest > 1e-4


@pytest.mark.parametrize("method", ["dpo", "cpo"])
def test_the_log_of_a_step_has_the_mean_log_probabilities(method: str, tmp_path: Path) -> None:
    trainer, settings, tokenizer = run(method, tmp_path, 4)
    with torch.no_grad():
        means = {
            which: sum(log_probability(trainer.model, tokenizer, row["prompt"], row[which])[0] for row in texts(4)) / 4
            for which in ("chosen", "rejected")
        }
    trainer.train()
    first, *_, last = [row for row in trainer.state.log_history if "loss" in row]
    for which, mean in means.items():
        assert first[f"logps/{which}"] == pytest.approx(float(mean), abs=1e-4)
        start = first[f"logps/{which}"] if method == "dpo" else 0.0  # rewards are relative to the reference
        assert last[f"rewards/{which}"] == pytest.approx(settings.beta * (last[f"logps/{which}"] - start), abs=1e-5)


# 10 rows: steps of 6 and 4 in micro-batches of 3, so that the second step ends in a smaller one.
@pytest.mark.parametrize("name", CASES)
def test_pairwise_losses_are_the_equations(name: str, tmp_path: Path) -> None:
    method, changes = CASES[name]
    trainer, settings, tokenizer = run(method, tmp_path, 10, effective_batch=6, micro_batch=3, **changes)
    by_prompt = {row["prompt"]: row for row in texts(10)}
    order = [by_prompt[text] for text in trainer.train_dataset["prompt"]]
    known = trainer.model, tokenizer, settings
    oracle = Oracle(trainer, [order[:6], order[6:]], lambda rows: equation(name.split()[0], rows, *known))
    compare(trainer, oracle, kinks=int(name == "kto_pair"))  # max(Δ, 0) at Δ = 0, before the first step


def test_kto_is_its_equation(tmp_path: Path) -> None:
    """Eq. 5 with both λ 1; z_ref from each prompt with its neighbour's answer within a micro-batch, >= 0."""
    trainer, settings, tokenizer = run("kto", tmp_path, 5, effective_batch=8, micro_batch=4, beta=0.2)
    data = trainer.train_dataset.select_columns(["prompt", "completion", "label"]).to_list()
    for row in data:
        row["completion"] = row["completion"].removesuffix(tokenizer.eos_token)
    assert len(data) == 10

    def log_ratio(row: dict[str, Any], completion: str) -> torch.Tensor:
        with torch.no_grad(), trainer.model.disable_adapter():
            reference = log_probability(trainer.model, tokenizer, row["prompt"], completion)[0]
        return log_probability(trainer.model, tokenizer, row["prompt"], completion)[0] - reference

    def loss(rows: list[dict[str, Any]]) -> torch.Tensor:
        terms = []
        for batch in (rows[i : i + 4] for i in range(0, len(rows), 4)):
            with torch.no_grad():
                z = sum(log_ratio(row, batch[i - 1]["completion"]) for i, row in enumerate(batch)) / len(batch)
                z = max(float(z), 0.0)
            for row in batch:
                delta = log_ratio(row, row["completion"])
                value = settings.beta * (delta - z) if row["label"] else settings.beta * (z - delta)
                terms.append(1 - 1 / (1 + torch.exp(-value)))
        return sum(terms) / len(terms)

    compare(trainer, Oracle(trainer, [data[:8], data[8:]], loss))


def test_kto_pair_by_hand() -> None:
    """Computed with a pocket calculator's four functions and exp."""
    loss = kto_pair(torch.tensor([2.0, 3.0, -1.0]), torch.tensor([-1.0, 3.0, -1.0]), beta=0.5)
    first = ((1 - 1 / (1 + math.exp(-1.0))) + (1 - 1 / (1 + math.exp(-1.5)))) / 2
    assert loss.tolist() == pytest.approx([first, 0.5, 0.5], abs=1e-6)
    both = torch.tensor([0.7], requires_grad=True)
    kto_pair(both, both, 0.1).sum().backward()
    assert both.grad.item() == pytest.approx(0.0, abs=1e-7), "moving both answers together changes nothing"


@pytest.mark.parametrize(
    ("changes", "losses", "margins"),
    [
        ({"cpo_alpha": 0.5}, [28.421955, 19.297279, 25.756237, 17.342640], (5.21371, 5.38232)),
        ({"cpo_nll": "row_mean"}, [8.573787, 8.284963, 7.744720, 7.445985], (5.21371, 5.40929)),
    ],
)
def test_cpo_without_a_reference_is_what_trls_own_cpo_trainer_was(
    changes: dict[str, Any], losses: list[float], margins: tuple[float, float], tmp_path: Path
) -> None:
    """Losses and margins (steps 1, 3) of trl.experimental.cpo.CPOTrainer (TRL 1.16.0), given the same NLL term."""
    trainer, *_ = run("cpo", tmp_path, 10, effective_batch=6, micro_batch=3, **changes)
    assert "ref_chosen_logps" not in trainer.train_dataset.column_names, "no reference is asked"
    trainer.train()
    log = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["loss"] for row in log] == pytest.approx(losses, rel=1e-5)
    assert [row["rewards/margins"] for row in log[::2]] == pytest.approx(margins, abs=1e-4)
