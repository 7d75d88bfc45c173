"""What decides a training besides its data and its initial weights."""

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from peft import LoraConfig

from lmolt_utils.config.prompts import Template

if TYPE_CHECKING:  # a machine that only measures trainings has no pydantic
    from lmolt_utils.config.params import Params

#: Fields that one method alone uses.
_OWN = {
    "sft": {"sft_eos", "sft_loss_on", "lora_dropout"},  # TRL switches dropout off in the three preference trainers
    "dpo": {"dpo_loss", "dpo_alpha", "cpo_nll"},
    "cpo": {"cpo_alpha", "cpo_nll"},
    "kto": {"kto_format"},
}


@dataclass(frozen=True)
class Recipe:
    """One training's settings; meaning, unit and source of each: the parameter of the same name in ``Params``."""

    method: str
    epochs: float
    effective_batch: int
    micro_batch: int
    learning_rate: float
    scheduler: str
    warmup_share: float
    max_grad_norm: float
    weight_decay: float
    beta: float
    dpo_loss: str
    dpo_alpha: float
    cpo_alpha: float
    cpo_nll: str
    kto_format: str
    sft_eos: str
    sft_loss_on: str
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    dora: bool
    train_prompt: Template
    max_length: int
    stop_above: float
    quantize: str
    dtype: str
    device: str
    seed: int

    @classmethod
    def of(cls, method: str, params: "Params") -> "Recipe":
        """The recipe that ``params`` say for ``method``."""
        return cls(method, **{field.name: getattr(params, field.name) for field in fields(cls)[1:]})

    def relevant(self) -> dict[str, Any]:
        """The values that can change this method's result: what its record is keyed by."""
        unused = set().union(*_OWN.values()) - _OWN[self.method] | {"stop_above"}
        if self.method == "dpo" and not self.dpo_alpha:
            unused |= {"cpo_nll"}
        if self.method == "sft":
            unused |= {"beta"}
        return {name: value for name, value in asdict(self).items() if name not in unused}

    def lora(self) -> LoraConfig:
        """LoRA (or DoRA) on every linear layer but the output (L4M Fig. 15)."""
        size: dict[str, Any] = {"r": self.lora_rank, "lora_alpha": self.lora_alpha, "lora_dropout": self.lora_dropout}
        return LoraConfig(**size, use_dora=self.dora, target_modules="all-linear", task_type="CAUSAL_LM")
