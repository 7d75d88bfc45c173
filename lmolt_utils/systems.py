"""The systems table, ``params/systems.yaml``: the experiment, one row per system."""

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lmolt_utils.params import ParameterError, Params, check, nearest, read_yaml
from lmolt_utils.paths import root

Init = Literal[
    "per_task",
    "cap2mol",
    "mol2cap",
    "slerp",
    "nuslerp",
    "soup",
    "task_arithmetic",
    "ties",
    "dare_ties",
    "half_sum_ties",
]
Method = Literal["none", "sft", "dpo", "cpo", "kto"]
Maker = Literal["03_sft", "04_alignment", "05_merging", "06_ablation"]
#: The inits that are merges (lmolt_utils.merging has a rule of each name), and those of them that trim task vectors:
#: their share is a parameter of its own, as the paper weighs both task vectors equally.
MERGES = ("slerp", "nuslerp", "soup", "task_arithmetic", "ties", "dare_ties", "half_sum_ties")
TRIMMING = ("ties", "dare_ties", "half_sum_ties")
#: What a row may set for itself; everything else comes from the profile.
SETTINGS = [
    "epochs",
    "effective_batch",
    "micro_batch",
    "learning_rate",
    "scheduler",
    "warmup_share",
    "max_grad_norm",
    "beta",
    "cpo_alpha",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "ties_density",
    "merge_scale",
    "merge_filters",
    "merge_dtype",
    "seed",
]


class System(BaseModel):
    """One row: where training starts (``init``), what is done (``method``), which table rows it stands for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9+@._-]*$")
    label: str
    notebook: Maker
    init: Init
    method: Method
    mol2cap_share: float | None = Field(default=None, ge=0, le=1)
    settings: dict[str, Any] = {}
    rows: dict[str, str] = {}

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name not in SETTINGS:
                raise ValueError(f"unknown setting {name!r}{nearest(name, SETTINGS)}")
        return value

    @model_validator(mode="after")
    def _sensible(self) -> "System":
        if self.mol2cap_share is not None and self.init not in MERGES:
            raise ValueError(f"mol2cap_share belongs to merges ({', '.join(MERGES)}), not to init {self.init!r}")
        if self.init == "per_task" and self.method != "none":
            raise ValueError("init 'per_task' is two models: it can be scored, not trained")
        return self

    @property
    def merged(self) -> bool:
        """Whether the weights it starts from are a merge."""
        return self.init in MERGES

    def params(self, profile: Params) -> Params:
        """The profile's parameters with this row's own settings on top."""
        own = dict(self.settings)
        if self.mol2cap_share is not None:
            own["ties_mol2cap_share" if self.init in TRIMMING else "mol2cap_share"] = self.mol2cap_share
        return check({**profile.model_dump(), **own})


def load_systems(path: Path | None = None) -> list[System]:
    """Every row of the table; raises :class:`ParameterError` naming the row and the field that is wrong."""
    path = path or root() / "params" / "systems.yaml"
    rows = read_yaml(path)
    if not isinstance(rows, list) or not rows:
        raise ParameterError(f"{path} is no list of systems")
    systems: list[System] = []
    for number, row in enumerate(rows, start=1):
        name = row.get("name", f"row {number}") if isinstance(row, dict) else f"row {number}"
        try:
            systems.append(System.model_validate(row))
        except ValidationError as error:
            raise ParameterError("\n".join(_explain(path, str(name), p) for p in error.errors())) from None
        if name in {system.name for system in systems[:-1]}:
            raise ParameterError(f"{path}: two systems are called {name!r}")
    return systems


def _explain(path: Path, name: str, problem: Any) -> str:
    field = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        return f"{path}: system {name!r} has an unknown field {field!r}{nearest(field, list(System.model_fields))}"
    if problem["type"] == "literal_error":
        known = {"init": Init, "method": Method, "notebook": Maker}[field]
        given = str(problem["input"])
        return f"{path}: system {name!r}: {field} {given!r} is none of {', '.join(get_args(known))}"
    message = re.sub(r"^Value error, ", "", problem["msg"])
    return f"{path}: system {name!r}{': ' + field if field else ''}: {message}"


def chosen(systems: list[System], notebook: str, wanted: list[str] | None) -> list[System]:
    """The rows that ``notebook`` makes, or those of them named in ``wanted``.

    Raises :class:`ParameterError` when a wanted name is unknown, or belongs to another notebook.
    """
    own = [system for system in systems if system.notebook == notebook]
    if not wanted:
        return own
    by_name = {system.name: system for system in systems}
    for name in wanted:
        if name not in by_name:
            raise ParameterError(f"systems: no system {name!r}{nearest(name, list(by_name))}")
        if by_name[name].notebook != notebook:
            raise ParameterError(
                f"systems: {name!r} is made by {by_name[name].notebook}, not by {notebook} "
                f"(which makes {', '.join(system.name for system in own)})"
            )
    return [system for system in own if system.name in set(wanted)]


def ratio(share: float) -> str:
    """A share of mol2cap as the papers' ratio, Mol2Cap:Cap2Mol: 1/19 is ``1:18``."""
    fraction = Fraction(share).limit_denominator(40)
    if math.isclose(float(fraction), share, abs_tol=1e-4):
        return f"{fraction.numerator}:{fraction.denominator - fraction.numerator}"
    return f"{share:.4g} mol2cap"


def with_ratio_grid(systems: Sequence[System], params: Params) -> list[System]:
    """``systems``, and a row ``slerp@SHARE+cpo`` for every share of ``ratio_grid`` that the table lacks.

    A share counts as there when a row trains CPO from SLERP at it with no settings of its own (within 0.0001:
    names give four digits), be it the row's own share or the profile's.
    """
    rows = list(systems)
    for share in params.ratio_grid:
        there = [
            params.mol2cap_share if row.mol2cap_share is None else row.mol2cap_share
            for row in rows
            if row.init == "slerp" and row.method == "cpo" and not row.settings
        ]
        if not any(math.isclose(share, other, abs_tol=1e-4) for other in there):
            rows.append(
                System(
                    name=f"slerp@{share:.4g}+cpo",
                    label=f"SLERP+CPO, {ratio(share)}",
                    notebook="06_ablation",
                    init="slerp",
                    method="cpo",
                    mol2cap_share=share,
                )
            )
    return rows
