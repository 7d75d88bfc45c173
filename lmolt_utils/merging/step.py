"""Merges as steps of a run: made once, recorded, shared by every system that starts from the same one."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypedDict

from lmolt_utils.config.params import Params
from lmolt_utils.config.systems import TRIMMING, System
from lmolt_utils.files import emptied
from lmolt_utils.merging.merges import Merge, Share, merge_models, needed_models, yaml_path
from lmolt_utils.models.loading import model_identity
from lmolt_utils.run.notebook import Run


class Parents(TypedDict):
    """The three models of a plan by role."""

    base: str
    cap2mol: str
    mol2cap: str


class Merged(Protocol):
    """What a plan says about its merge and the models that go into it."""

    @property
    def merge(self) -> Merge | None: ...
    @property
    def base_model(self) -> str: ...
    @property
    def cap2mol_model(self) -> str: ...
    @property
    def mol2cap_model(self) -> str: ...


def merge_of(system: System, params: Params) -> Merge | None:
    """The merge that ``system`` starts from under ``params`` (its own settings applied), or ``None``."""
    if not system.merged:
        return None
    filters: list[tuple[str, Share]] = [
        (part, tuple(share) if isinstance(share, list) else share) for part, share in params.merge_filters.items()
    ]
    return Merge(
        rule=system.init,
        share=params.ties_mol2cap_share if system.init in TRIMMING else params.mol2cap_share,
        density=params.ties_density,
        scale=params.merge_scale,
        filters=tuple(filters),
        dtype=params.merge_dtype,
        seed=params.seed,
    )


def parents_of(todo: Merged) -> Parents:
    """The three models of a plan by role."""
    return {"base": todo.base_model, "cap2mol": todo.cap2mol_model, "mol2cap": todo.mol2cap_model}


def make_merge(run: Run, todo: Merged, say: Callable[[str], None] = print) -> Path:
    """Make the merge of a plan in the run's models folder, unless it is there; returns its folder."""
    merge = todo.merge
    if merge is None:
        raise ValueError("a plan without a merge")
    folder: Path = run.path("models", merge.name)
    parents = parents_of(todo)
    run.step(
        f"merge {folder.name}",
        lambda _: merge_models(merge, folder, **parents),
        outputs=[folder, yaml_path(folder)],
        params=merge.relevant(),
        inputs={role: model_identity(name) for role, name in needed_models(merge, **parents).items()},
        say=say,
    )
    return folder


def with_weights(todo: Merged, initial: str) -> str:
    """``initial``, merged again if it is a merge whose weights were deleted after their last use."""
    if todo.merge is not None and emptied(Path(initial)):
        merge_models(todo.merge, Path(initial), **parents_of(todo))
    return initial
