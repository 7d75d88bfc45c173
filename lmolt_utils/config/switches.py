"""Switches: where the papers' text and their released code disagree, which of the two to run, or the repaired form.

Each switch gives the settings (parameters) that its ``as_printed`` and ``as_released`` choices put in place of the
profile's. ``corrected`` changes nothing: every profile holds the corrected values. A profile picks one choice for all
(``semantics``), ``switches`` overrides single ones, in a profile or in a row of the systems table; a row's own settings
win over both. ``lmolt switches`` lists them.

Settings are keyed by the method or init they apply to, ``*``: any; ``data``: the pairs, which a run makes once for all
systems, so that no row of the systems table has a choice of its own. :class:`Times` multiplies the profile's
value: a learning rate is a matter of scale, its ratio between two recipes is not. ``None`` means that the choice cannot
be made, because the paper does not say or the code does not show; the profile's value then stays.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Choice = Literal["as_printed", "as_released", "corrected"]
CHOICES: tuple[Choice, ...] = get_args(Choice)


@dataclass(frozen=True)
class Times:
    """So many times the profile's value."""

    factor: float


Settings = dict[str, dict[str, Any]]
#: Key of what decides the pairs.
DATA = "data"


@dataclass(frozen=True)
class Switch:
    """One disagreement: settings per choice, what it is about, and its number in docs/audit.md."""

    as_printed: Settings | None
    as_released: Settings | None
    text: str
    audit: str

    def settings(self, choice: Choice, applies: set[str]) -> dict[str, Any]:
        """What ``choice`` sets for a system whose method and init are ``applies``."""
        table = {"as_printed": self.as_printed, "as_released": self.as_released, "corrected": {}}[choice] or {}
        return {
            name: value
            for key, values in table.items()
            if key in applies or key == "*"
            for name, value in values.items()
        }

    @property
    def of_the_run(self) -> bool:
        """Whether it decides the pairs: one choice for all systems of a run."""
        return DATA in {**(self.as_printed or {}), **(self.as_released or {})}


SWITCHES: dict[str, Switch] = {
    "negatives": Switch(
        {DATA: {"negatives": "translator"}},
        {DATA: {"negatives": "translator", "drop_equal": False}},
        "Rejected answers. Printed: a translator's outputs. Released: also those that equal the reference and so carry "
        "no preference. Corrected: the profile's source, without them.",
        "D24",
    ),
    "train_prompt": Switch(
        {"*": {"train_prompt": "printed"}},
        {
            "sft": {"train_prompt": "sft"},
            "dpo": {"train_prompt": "train12"},
            "cpo": {"train_prompt": "train12"},
            "kto": {"train_prompt": "kto16"},
        },
        "White space in training prompts. Released: the scripts' indentation, and no space before the answer. "
        "Corrected: the form the initial model was made with.",
        "D10",
    ),
    "test_prompt": Switch(
        {"*": {"test_prompt": "printed"}},
        {"*": {"test_prompt": "infer20"}},
        "White space in test prompts. Released: another indentation than in any training, for Meditron too. "
        "Corrected: as in training.",
        "D10",
    ),
    "baseline_prompt": Switch(
        None,
        {"txtchem": {"baseline_prompt": "released"}},
        "Prompt of TxtChem-T5. Printed: nothing. Released: a prefix that the model was never trained on. Corrected: "
        "the one that its authors document.",
        "D14",
    ),
    "sft_eos": Switch(
        {"sft": {"sft_eos": "append"}},
        {"sft": {"sft_eos": "none"}},
        "End-of-text token in SFT. Released: none is added and padding hides any, so the model never learns to stop.",
        "D15",
    ),
    "sft_loss": Switch(
        {"sft": {"sft_loss_on": "answer"}},
        {"sft": {"sft_loss_on": "all"}},
        "Tokens that SFT learns. Printed: the answer (Eq. 2). Released: the prompt too.",
        "D15",
    ),
    "dora": Switch(
        {"*": {"dora": False}},
        {"sft": {"dora": True}},
        "Adapter of SFT. Printed: LoRA for all. Released: DoRA for SFT alone.",
        "D5",
    ),
    "learning_rate": Switch(
        {"*": {}},
        {"sft": {"learning_rate": Times(4.0)}},
        "Peak learning rate. Printed: one for all (5.0e-5). Released: 2.0e-4 for SFT, four times the others'.",
        "D5",
    ),
    "schedule": Switch(
        {"*": {"scheduler": "cosine", "warmup_share": 0.1, "weight_decay": 0.0}},
        {
            "sft": {"scheduler": "constant", "warmup_share": 0.0, "weight_decay": 0.001},
            "cpo": {"scheduler": "linear"},
        },
        "Schedule and weight decay. Printed: cosine for all. Released: constant (its warm-up share is not used) with "
        "weight decay 0.001 for SFT, linear for CPO.",
        "D4",
    ),
    "clipping": Switch(
        {"*": {"max_grad_norm": 0.3}},
        {"sft": {"max_grad_norm": 1.0}, "cpo": {"max_grad_norm": 1.0}},
        "Gradient clipping. Printed: 0.3 for all. Released: 1.0 for CPO and SFT, by default.",
        "D4",
    ),
    "epochs": Switch(
        {"*": {"epochs": 3.0}},
        {"*": {"epochs": 1.0}},
        "Passes over the pairs. Printed: 3. Released: 1 by default, and the headline checkpoint has 396 steps, one "
        "epoch. Corrected: the profile's, the same for all.",
        "D2",
    ),
    "lora_dropout": Switch(
        {"*": {"lora_dropout": 0.1}},
        {"*": {"lora_dropout": 0.05}},
        "LoRA dropout. Printed: 0.1. Released: 0.05; TRL switches it off in DPO, CPO and KTO in any case.",
        "D7",
    ),
    "dpo_loss": Switch(
        {"dpo": {"dpo_loss": "sigmoid"}},
        {"dpo": {"dpo_loss": "kto_pair"}},
        "Loss of the rows named DPO. Printed: Eq. 3. Released: kto_pair.",
        "0.3",
    ),
    "cpo_nll": Switch(
        {"cpo": {"cpo_nll": "sum"}},
        {"cpo": {"cpo_nll": "row_mean"}},
        "SFT term of CPO. Printed: the answer's log-likelihood. Released: its mean per token, tens of times weaker. "
        "Corrected: as printed.",
        "D9",
    ),
    "kto_format": Switch(
        {"kto": {"kto_format": "plain"}},
        {"kto": {"kto_format": "chatml"}},
        "Prompt format and stop token of KTO. Released: ChatML with two untrained tokens for BOS and EOS in training, "
        "plain prompts and the base model's EOS at test time.",
        "D17",
    ),
    "postprocess": Switch(
        None,
        {"*": {"postprocess": "as_released"}},
        "From raw output to prediction. Printed: nothing. Released: every # goes, stray \\n stay.",
        "D27",
    ),
    "decoding": Switch(
        None,
        {"*": {"max_new_tokens": 300}},
        "Decoding. Printed: nothing. Released: greedy in effect, 300 new tokens, no stop but the base model's EOS.",
        "D20",
    ),
    "ratio": Switch(
        {"slerp": {"mol2cap_share": 1 / 19}, "soup": {"mol2cap_share": 1 / 19}},
        {"soup": {"mol2cap_share": 0.5}},
        "Share of mol2cap in a merge. Printed: 1:18 (L4M). Released: 1:1 for the soup; SLERP's is not released.",
        "D38",
    ),
}


def check_choices(choices: Mapping[str, Any]) -> dict[str, str]:
    """``choices`` (switch to choice), if every name and choice exists and can be made; else ``ValueError``."""
    for name, choice in choices.items():
        if name not in SWITCHES:
            close = difflib.get_close_matches(str(name), list(SWITCHES), n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else f" (there are: {', '.join(SWITCHES)})"
            raise ValueError(f"unknown switch {name!r}{hint}")
        if choice not in CHOICES:
            raise ValueError(f"switch {name!r} = {choice!r} is none of {', '.join(CHOICES)}")
        if choice != "corrected" and getattr(SWITCHES[name], choice) is None:
            raise ValueError(f"switch {name!r} has no {choice!r} form: {SWITCHES[name].text}")
    return {str(name): str(choice) for name, choice in choices.items()}


def resolve(profile: Mapping[str, Any], method: str, init: str, own: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The parameters that the switches set for a system, in place of ``profile``'s values.

    ``profile`` holds all parameters, ``semantics`` and ``switches`` among them; ``own`` are a systems row's switches.
    """
    chosen = {**profile["switches"], **(own or {})}
    values: dict[str, Any] = {}
    for name, switch in SWITCHES.items():
        for key, value in switch.settings(chosen.get(name, profile["semantics"]), {method, init}).items():
            values[key] = profile[key] * value.factor if isinstance(value, Times) else value
    return values


def resolve_data(profile: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that the switches set for the pairs of a run, in place of ``profile``'s values."""
    chosen = {name: profile["switches"].get(name, profile["semantics"]) for name in SWITCHES}
    own = [getattr(SWITCHES[name], choice, None) or {} for name, choice in chosen.items()]
    return {key: value for settings in own for key, value in settings.get(DATA, {}).items()}


def table() -> list[dict[str, str]]:
    """The switches for people: name, text, audit number, and what each choice sets."""
    return [
        {
            "switch": name,
            "as_printed": _shown(switch.as_printed),
            "as_released": _shown(switch.as_released),
            "audit": switch.audit,
            "text": switch.text,
        }
        for name, switch in SWITCHES.items()
    ]


def _shown(settings: Settings | None) -> str:
    if settings is None:
        return "not stated"
    parts = []
    for key, values in settings.items():
        for name, value in values.items():
            shown = (
                f"{value.factor:g} times"
                if isinstance(value, Times)
                else f"{value:.4g}"
                if isinstance(value, float)
                else value
            )
            parts.append(f"{name}: {shown}" + ("" if key == "*" else f" ({key})"))
    return ", ".join(parts) or "the profile's"
