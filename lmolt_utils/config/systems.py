"""The systems table, ``params/systems.yaml``: the experiment, one row per system."""

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lmolt_utils.config.params import ParameterError, Params, check, nearest, read_yaml
from lmolt_utils.config.switches import SWITCHES, check_choices, resolve
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
    "txtchem",
    "chemllm",
    "baseline",
]
Method = Literal["none", "sft", "dpo", "cpo", "kto"]
Maker = Literal["01_data", "03_sft", "04_alignment", "05_merging", "06_ablation"]
#: The papers' tables: 2 to 5 of Less for More, 1 and 2 of ALMol.
TABLES = ("T2", "T3", "T4", "T5", "AT1", "AT2")
#: The inits that are merges (lmolt_utils.merging.merges has a rule of each name), and those of them that trim task
#: vectors: their share is a parameter of its own, as the paper weighs both task vectors equally.
MERGES = ("slerp", "nuslerp", "soup", "task_arithmetic", "ties", "dare_ties", "half_sum_ties")
TRIMMING = ("ties", "dare_ties", "half_sum_ties")
#: Rows of init ``baseline``: their name says what they answer (:mod:`lmolt_utils.data.baselines`).
BASELINES = ("constant", "nearest-neighbour", "rule")
#: Inits that are published baselines of the papers' tables: the parameter that names the model.
PUBLISHED = {"txtchem": "txtchem_model", "chemllm": "chemllm_model"}
#: What a row with another's adapter may set, switches of these names among them: nothing that its training follows.
TEST_ONLY = ("adapter_of", "test_prompt", "postprocess", "max_new_tokens")
#: What a row may set for itself; everything else comes from the profile.
SETTINGS = [
    "switches",
    "adapter_of",
    "train_prompt",
    "test_prompt",
    "baseline_prompt",
    "epochs",
    "effective_batch",
    "micro_batch",
    "learning_rate",
    "scheduler",
    "warmup_share",
    "max_grad_norm",
    "weight_decay",
    "beta",
    "cpo_alpha",
    "cpo_nll",
    "dpo_loss",
    "dpo_alpha",
    "kto_format",
    "kto_desirable",
    "kto_undesirable",
    "sft_eos",
    "sft_loss_on",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "dora",
    "ties_density",
    "postprocess",
    "max_new_tokens",
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
    #: The system that this one differs from in one thing (06_ablation compares the two).
    against: str | None = None

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name not in SETTINGS:
                raise ValueError(f"unknown setting {name!r}{nearest(name, SETTINGS)}")
        for name in check_choices(value.get("switches", {})):
            if SWITCHES[name].of_the_run:
                raise ValueError(f"switch {name!r} decides the pairs of all systems: set it in the profile's switches")
        return value

    @model_validator(mode="after")
    def _sensible(self) -> "System":
        if self.mol2cap_share is not None and self.init not in MERGES:
            raise ValueError(f"mol2cap_share belongs to merges ({', '.join(MERGES)}), not to init {self.init!r}")
        if unknown := [table for table in self.rows if table not in TABLES]:
            raise ValueError(f"rows names no table {unknown[0]!r}: there are {', '.join(TABLES)}")
        if "adapter_of" in self.settings:
            names = [*self.settings, *self.settings.get("switches", {})]
            if trained := [name for name in names if name not in (*TEST_ONLY, "switches")]:
                raise ValueError(
                    f"{trained[0]!r} has no effect on an adapter that another system trained: leave out adapter_of"
                )
        if self.init == "per_task" and self.method != "none":
            raise ValueError("init 'per_task' is two models: it can be scored, not trained")
        if self.init in PUBLISHED and self.method != "none":
            raise ValueError(f"init {self.init!r} is a published baseline: it is scored, not trained")
        if (self.init == "baseline") != (self.notebook == "01_data"):
            raise ValueError("init 'baseline' and notebook '01_data' belong together")
        if self.init == "baseline" and (self.method != "none" or self.settings):
            raise ValueError("a baseline is not trained: method none, no settings")
        if self.init == "baseline" and self.name not in BASELINES:
            raise ValueError(f"no such baseline; there are {', '.join(BASELINES)}{nearest(self.name, list(BASELINES))}")
        return self

    @property
    def merged(self) -> bool:
        """Whether the weights it starts from are a merge."""
        return self.init in MERGES

    @property
    def trained_for_tables(self) -> bool:
        """Whether it is trained and stands for a row of the papers' tables: those that ``seeds`` repeats."""
        return bool(self.rows) and self.method != "none"

    @property
    def replica(self) -> bool:
        """Whether it is another system's copy with a further seed (:func:`replicas`)."""
        return re.search(r"@seed\d+$", self.name) is not None

    @property
    def adapter_of(self) -> str:
        """The system whose adapter this one predicts with: itself, unless only its test differs."""
        return str(self.settings.get("adapter_of", self.name))

    def params(self, profile: Params) -> Params:
        """The profile's parameters, with what the switches change, with this row's own settings on top."""
        own = {name: value for name, value in self.settings.items() if name not in ("switches", "adapter_of")}
        if self.mol2cap_share is not None:
            own["ties_mol2cap_share" if self.init in TRIMMING else "mol2cap_share"] = self.mol2cap_share
        values = profile.model_dump()
        return check({**values, **resolve(values, self.method, self.init, self.settings.get("switches")), **own})


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
    names = [system.name for system in systems]
    stands: dict[tuple[str, str], str] = {}
    for system in systems:
        for place in system.rows.items():
            if place in stands:
                raise ParameterError(
                    f"{path}: {stands[place]!r} and {system.name!r} are both row {place[1]!r} of {place[0]}"
                )
            stands[place] = system.name
        for field, other in (("against", system.against), ("adapter_of", system.adapter_of)):
            if other is not None and other not in names:
                raise ParameterError(
                    f"{path}: system {system.name!r}: {field} names no system: {other!r}{nearest(other, names)}"
                )
    return systems


def replicas(systems: Sequence[System], params: Params) -> list[System]:
    """``systems``, each trained one of the papers' tables followed by its copies with the further ``seeds``.

    A copy is called <name>@seed<k>; it is scored and averaged, but stands for no table row of its own. Raises
    :class:`ParameterError` when the first seed is not the run's own, which the system itself has.
    """
    if params.seeds[0] != params.seed:
        raise ParameterError(f"seeds = {params.seeds}: the first must be the run's seed, {params.seed}")
    found = []
    for system in systems:
        found.append(system)
        if system.trained_for_tables:
            found += [
                system.model_copy(
                    update={
                        "name": f"{system.name}@seed{seed}",
                        "label": f"{system.label} (seed {seed})",
                        "settings": {**system.settings, "seed": seed},
                        "rows": {},
                        "against": None,
                    }
                )
                for seed in params.seeds[1:]
            ]
    return found


def planned(params: Params) -> list[System]:
    """Every system of a run: the table's rows, what ``ratio_grid`` adds, copies for more ``seeds``.

    Raises :class:`ParameterError` where one cannot be made as its row says, so before any work.
    """
    systems = replicas(with_ratio_grid(load_systems(), params), params)
    names = [system.name for system in systems]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ParameterError(
            f"two systems are called {twice[0]!r}: one is a row, the other comes from seeds or ratio_grid"
        )
    for system in systems:
        try:
            system.params(params)
        except ParameterError as error:
            raise ParameterError(f"system {system.name!r}: {error}") from None
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
    """The rows of ``systems`` that a run makes, and ``slerp@SHARE+cpo`` for every share of ``ratio_grid`` they lack.

    A published baseline whose model the profile does not name is not run.
    A share counts as there when a row trains CPO from SLERP at it with no settings of its own (within 0.0001:
    names give four digits), be it the row's own share or the profile's.
    """
    rows = [row for row in systems if row.init not in PUBLISHED or getattr(params, PUBLISHED[row.init]) is not None]
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
