"""The systems table, ``params/systems.yaml``: the experiment, one row per system."""

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from lmolt_utils.config.params import Params, check
from lmolt_utils.config.published import load_published, systems_by_row
from lmolt_utils.config.reading import ParameterError, Strict, explain, nearest, read_yaml
from lmolt_utils.config.switches import CHOICES, check_choices, resolve, switches
from lmolt_utils.paths import root

Merged = Literal["slerp", "nuslerp", "soup", "ties", "half_sum_ties"]
Init = Literal["per_task", "cap2mol", "mol2cap", Merged, "txtchem", "chemllm", "baseline"]
Method = Literal["none", "sft", "dpo", "cpo", "kto"]
Maker = Literal["01_data", "03_sft", "04_alignment", "05_merging", "06_ablation"]
#: The inits that are merges (lmolt_utils.merging.merges has a rule of each name), and those that trim task vectors.
MERGES: tuple[str, ...] = get_args(Merged)
TRIMMING = ("ties", "half_sum_ties")
#: mol2cap's share in the rules that trim, in place of the profile's: L4M §3.2.1 takes half the sum of task vectors.
TIES_SHARE = 0.5
#: Rows of init ``baseline``: their name says what they answer (:mod:`lmolt_utils.data.baselines`).
BASELINES = ("constant", "nearest-neighbour", "rule")
#: Inits that are published baselines of the papers' tables: the parameter that names the model.
PUBLISHED = {"txtchem": "txtchem_model", "chemllm": "chemllm_model"}
#: What a row may set besides ``switches`` and ``adapter_of``: systems are compared on equal footing.
SETTINGS = (
    "epochs", "learning_rate", "micro_batch", "beta", "cpo_alpha", "dpo_alpha", "lora_rank", "lora_alpha",
    "ties_density", "seed",
)  # fmt: skip
#: Switches that a row with another system's adapter may set: those that its training does not follow.
TEST_ONLY = ("test_prompt", "postprocess", "decoding")
#: The methods or inits (``*``: any) that a parameter has an effect on, where it is not every training.
_ONLY: dict[str, tuple[str, ...]] = {
    "beta": ("dpo", "cpo", "kto"), "cpo_alpha": ("cpo",), "dpo_alpha": ("dpo",), "lora_dropout": ("sft",),
    "ties_density": TRIMMING, "mol2cap_share": MERGES, "test_prompt": ("per_task", "cap2mol", "mol2cap", *MERGES),
    "baseline_prompt": tuple(PUBLISHED), "max_new_tokens": ("*",), "postprocess": ("*",),
}  # fmt: skip


class System(Strict):
    """One row: where training starts (``init``), what is done (``method``), which table rows it stands for."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9+@._-]*$")
    label: str
    notebook: Maker
    init: Init
    method: Method
    mol2cap_share: float | None = Field(default=None, ge=0, le=1)
    settings: dict[str, Any] = Field(default={})
    #: Published table -> its row; a row that the table lacks is a control.
    rows: dict[str, str] = Field(default={})
    #: The system that this one differs from in one thing (06_ablation compares the two).
    against: str | None = None

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        known = (*SETTINGS, "switches", "adapter_of")
        if unknown := [name for name in value if name not in known]:
            hint = nearest(unknown[0], known) or f" (a system may set {', '.join(known)})"
            raise ValueError(f"unknown setting {unknown[0]!r}{hint}")
        if not isinstance(value.get("switches", {}), dict):
            raise ValueError("switches: names and choices are needed, such as {sft_eos: as_released}")
        for name in check_choices(value.get("switches", {})):
            if switches()[name].of_the_run:
                raise ValueError(f"switch {name!r} decides for all systems of a run: set it in the profile's switches")
        return value

    @model_validator(mode="after")
    def _sensible(self) -> "System":
        if self.mol2cap_share is not None and self.init not in MERGES:
            raise ValueError(f"mol2cap_share belongs to merges ({', '.join(MERGES)}), not to init {self.init!r}")
        if "adapter_of" in self.settings:
            names = [*self.settings, *self.settings.get("switches", {})]
            if trained := [name for name in names if name not in ("adapter_of", "switches", *TEST_ONLY)]:
                raise ValueError(f"{trained[0]!r} has no effect on another system's adapter: leave out adapter_of")
        if self.init in ("per_task", "baseline", *PUBLISHED) and self.method != "none":
            raise ValueError(f"init {self.init!r} is not trained: write method none")
        if (self.init == "baseline") != (self.notebook == "01_data"):
            raise ValueError("init 'baseline' and notebook '01_data' belong together")
        if self.init == "baseline" and (self.settings or self.name not in BASELINES):
            raise ValueError(f"a baseline has no settings, and its name is one of {', '.join(BASELINES)}")
        idle = [name for name in self.settings if name != "switches" and not self._has_effect(name)]
        idle += [name for name, choice in self.settings.get("switches", {}).items() if not self._follows(name, choice)]
        if idle:
            raise ValueError(f"{idle[0]!r} changes nothing for init {self.init}, method {self.method}: leave it out")
        return self

    def _has_effect(self, parameter: str) -> bool:
        """Whether a parameter's value can change what this system is or answers."""
        if parameter in _ONLY:
            return not {self.method, self.init, "*"}.isdisjoint(_ONLY[parameter])
        return self.method != "none"

    def _follows(self, name: str, choice: str) -> bool:
        """Whether ``choice`` of a switch says something for this system, and the switch sets what has an effect."""
        forms, applies = {each: switches()[name].of(each) or {} for each in CHOICES}, {self.method, self.init, "*"}
        if choice != "corrected" and applies.isdisjoint(forms[choice]):
            return False
        return any(self._has_effect(p) for form in forms.values() for key in applies & form.keys() for p in form[key])

    @property
    def merged(self) -> bool:
        return self.init in MERGES

    @property
    def trained_for_tables(self) -> bool:
        """Whether it has a training of its own and stands for a table's row: ``seeds`` repeats those, 08 draws them."""
        return bool(self.rows) and self.method != "none" and self.adapter_of == self.name

    @property
    def replica(self) -> bool:
        """Whether it is another system's copy with a further seed."""
        return re.search(r"@seed\d+$", self.name) is not None

    @property
    def adapter_of(self) -> str:
        """The system whose adapter this one predicts with: itself, unless only its test differs."""
        return str(self.settings.get("adapter_of", self.name))

    def params(self, profile: Params) -> Params:
        """The profile's parameters, with what the switches change, with this row's own settings on top."""
        own = {name: value for name, value in self.settings.items() if name in SETTINGS}
        share = TIES_SHARE if self.mol2cap_share is None and self.init in TRIMMING else self.mol2cap_share
        if share is not None:
            own["mol2cap_share"] = share
        values = profile.model_dump()
        return check({**values, **resolve(values, (self.method, self.init, "*"), self.settings.get("switches")), **own})


def load_systems(path: Path | None = None) -> list[System]:
    path = path or root() / "params" / "systems.yaml"
    rows = read_yaml(path)
    if not rows or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ParameterError(f"{path} is no list of systems")
    systems: list[System] = []
    for number, row in enumerate(rows, start=1):
        try:
            systems.append(System.model_validate(row))
        except ValidationError as error:
            name = row.get("name", f"row {number}")
            raise ParameterError(f"{path}: system {name!r}: {explain(error, System, 'field')}") from None
    tables = {table.id: table for table in load_published().tables}
    names = [system.name for system in systems]
    for system in systems:
        if names.count(system.name) > 1:
            raise ParameterError(f"{path}: two systems are called {system.name!r}")
        named = [("rows", table, list(tables)) for table in system.rows]
        named += [("against", system.against or system.name, names), ("adapter_of", system.adapter_of, names)]
        for field, other, known in named:
            if other not in known:
                hint = nearest(other, known)
                raise ParameterError(f"{path}: system {system.name!r}: {field}: there is no {other!r}{hint}")
    try:
        for published in tables.values():
            systems_by_row(published, systems)
    except ValueError as error:
        raise ParameterError(f"{path}: {error}") from None
    return systems


def replicas(systems: Sequence[System], params: Params) -> list[System]:
    """``systems``, checked, each trained one of the papers' tables followed by its copies with the further ``seeds``.

    A copy, <name>@seed<k>, is scored and averaged, but stands for no table row of its own.
    """
    if params.seeds[0] != params.seed:
        raise ParameterError(f"seeds = {params.seeds}: the first must be the run's seed, {params.seed}")
    found = []
    for system in systems:
        found.append(system)
        for seed in params.seeds[1:] if system.trained_for_tables else ():
            own = {"name": f"{system.name}@seed{seed}", "label": f"{system.label} (seed {seed})"}
            settings = {**system.settings, "seed": seed}
            found.append(system.model_copy(update={**own, "settings": settings, "rows": {}, "against": None}))
    for system in found:
        if [other.name for other in found].count(system.name) > 1:
            raise ParameterError(f"two systems are called {system.name!r} (seeds and ratio_grid make systems too)")
        if [other.label for other in found].count(system.label) > 1:
            raise ParameterError(f"two systems have the label {system.label!r}: a figure would show one of them")
        try:
            system.params(params)
        except ParameterError as error:
            raise ParameterError(f"system {system.name!r}: {error}") from None
    return found


def planned(params: Params) -> list[System]:
    """Every system of a run, checked: the table's rows, what ``ratio_grid`` adds, copies for more ``seeds``."""
    return replicas(with_ratio_grid(load_systems(), params), params)


def chosen(systems: list[System], notebook: str, wanted: list[str] | None) -> list[System]:
    """The rows that ``notebook`` makes, or those of them named in ``wanted``."""
    maker = {system.name: system.notebook for system in systems}
    for name in wanted or []:
        if name not in maker:
            raise ParameterError(f"systems: no system {name!r}{nearest(name, maker)}")
        if maker[name] != notebook:
            raise ParameterError(f"systems: {name!r} is made by {maker[name]}, not by {notebook}")
    return [system for system in systems if system.name in (wanted or maker) and system.notebook == notebook]


def ratio(share: float) -> str:
    """A share of mol2cap as the papers' ratio, Mol2Cap:Cap2Mol: 1/19 is ``1:18``."""
    fraction = Fraction(share).limit_denominator(40)
    if math.isclose(float(fraction), share, abs_tol=1e-4):
        return f"{fraction.numerator}:{fraction.denominator - fraction.numerator}"
    return f"{share:.4g} mol2cap"


def with_ratio_grid(systems: Sequence[System], params: Params) -> list[System]:
    """The rows of ``systems`` that a run makes, and ``slerp@SHARE+cpo`` for every share of ``ratio_grid`` they lack.

    A published baseline whose model the profile does not name is not run.
    """
    rows = [row for row in systems if row.init not in PUBLISHED or getattr(params, PUBLISHED[row.init]) is not None]
    swept = [row for row in rows if row.init == "slerp" and row.method == "cpo" and not row.settings]
    there = [params.mol2cap_share if row.mol2cap_share is None else row.mol2cap_share for row in swept]
    for share in params.ratio_grid:
        if not any(math.isclose(share, other, abs_tol=1e-4) for other in there):  # names give four digits
            there.append(share)
            name, label = f"slerp@{share:.4g}+cpo", f"SLERP+CPO, {ratio(share)}"
            start: dict[str, Any] = {"notebook": "06_ablation", "init": "slerp", "mol2cap_share": share}
            rows.append(System(name=name, label=label, method="cpo", **start))
    return rows
