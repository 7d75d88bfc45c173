"""Switches: where the papers' text and their released code disagree, which of the two to run, or the repaired form.

``params/switches.yaml`` says what each choice sets; ``corrected`` sets nothing: profiles hold those values.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from lmolt_utils.config.reading import Strict, nearest, read_as
from lmolt_utils.paths import root

CHOICES = ("as_printed", "as_released", "corrected")
#: Method, init, ``*`` or ``data`` -> parameter -> value; ``{times: x}``: x times the profile's, ``{least: x}``: >= x.
Settings = dict[str, dict[str, Any]]


class Switch(Strict):
    """One disagreement: its number in docs/audit.md, and what each choice sets (None: not known)."""

    audit: str
    text: str
    as_printed: Settings | None
    as_released: Settings | None

    def of(self, choice: str) -> Settings | None:
        return {"as_printed": self.as_printed, "as_released": self.as_released}.get(choice, {})

    @property
    def of_the_run(self) -> bool:
        """Whether it decides the pairs or NLI, so that all systems of a run share one choice."""
        return any("data" in (self.of(choice) or {}) for choice in CHOICES)


@cache
def switches() -> dict[str, Switch]:
    return read_as(root() / "params" / "switches.yaml", dict[str, Switch])


def check_choices(choices: Mapping[str, Any]) -> dict[str, str]:
    """``choices`` (switch -> choice), if every name and choice exists and can be made; else ``ValueError``."""
    for name, choice in choices.items():
        if name not in switches():
            hint = nearest(str(name), switches()) or f" (there are: {', '.join(switches())})"
            raise ValueError(f"unknown switch {name!r}{hint}")
        if choice not in CHOICES:
            raise ValueError(f"switch {name!r} = {choice!r} is none of {', '.join(CHOICES)}")
        if switches()[name].of(choice) is None:
            raise ValueError(f"switch {name!r} has no {choice!r} form: {switches()[name].text}")
    return {str(name): str(choice) for name, choice in choices.items()}


def resolve(
    profile: Mapping[str, Any], applies: tuple[str, ...], own: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The parameters that the switches set in place of ``profile``'s values.

    ``applies``: method, init and ``*`` of a system, or ``data`` for what a run does once; ``own``: the switches of a
    systems row.
    """
    choices = {**profile["switches"], **(own or {})}
    values: dict[str, Any] = {}
    for name, switch in switches().items():
        chosen = switch.of(choices.get(name, profile["semantics"])) or {}
        for parameter, value in (item for key in chosen if key in applies for item in chosen[key].items()):
            if isinstance(value, dict):
                own_value = profile[parameter]
                value = own_value * value["times"] if "times" in value else max(own_value, value["least"])
            values[parameter] = value
    return values


def shown(settings: Settings | None) -> str:
    """What a choice sets, for people."""
    if settings is None:
        return "not stated"
    parts = []
    for key, name, value in ((key, *item) for key, values in settings.items() for item in values.items()):
        number = f"{value:.4g}" if isinstance(value, float) else value
        text = " ".join(f"{word} {x:g}" for word, x in value.items()) if isinstance(value, dict) else number
        parts.append(f"{name}: {text}" + ("" if key == "*" else f" ({key})"))
    return ", ".join(parts) or "the profile's"
