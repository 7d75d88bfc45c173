"""The eight notebooks: which reads whose files, and which parameters each one's files depend on."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmolt_utils.config.params import Params, check, load
from lmolt_utils.config.switches import resolve
from lmolt_utils.config.systems import System, load_systems, with_ratio_grid
from lmolt_utils.files import fingerprint
from lmolt_utils.paths import root
from lmolt_utils.run.steps import DATA

#: Which notebooks' files each one reads. 03 to 06 are independent of each other and may run side by side.
AFTER: dict[str, tuple[str, ...]] = {
    "01_data": (),
    "02_negatives": ("01_data",),
    "03_sft": ("02_negatives",),
    "04_alignment": ("02_negatives",),
    "05_merging": ("02_negatives",),
    "06_ablation": ("02_negatives",),
    "07_nli_evaluation": ("01_data", "03_sft", "04_alignment", "05_merging", "06_ablation"),
    "08_figures": ("07_nli_evaluation",),
}
NOTEBOOKS = tuple(AFTER)

#: Parameters that change no number, only how or where a run works: with another value it stays the same run.
SAME_NUMBERS = (
    "threads", "ablation_jobs", "redo_below_s", "figures_dir", "save_steps", "negatives_shard_rows", "keep_merges",
    "stop_above",
)  # fmt: skip
#: Parameters that only add systems: what was made before stays as it is.
ADDS_SYSTEMS = ("seeds", "ratio_grid")
#: The first notebook whose files a parameter changes. Those not listed count from 01 on.
_FIRST: dict[str, tuple[str, ...]] = {
    "02_negatives": (
        "negatives", "drop_equal", "negatives_mol2cap_model", "negatives_cap2mol_model", "max_new_tokens",
        "generation_batch", "device", "dtype",
    ),
    "03_sft": (
        "mol2cap_model", "txtchem_model", "chemllm_model", "baseline_prompt", "remote_code", "quantize", "semantics",
        "switches", "seeds", "train_prompt", "test_prompt", "epochs", "effective_batch", "micro_batch",
        "learning_rate", "scheduler", "warmup_share", "max_grad_norm", "weight_decay", "beta", "cpo_alpha", "cpo_nll",
        "dpo_loss", "dpo_alpha", "kto_format", "sft_eos", "sft_loss_on", "lora_rank", "lora_alpha", "lora_dropout",
        "dora", "max_length", "generation_engine",
    ),
    "05_merging": ("base_model", "mol2cap_share", "ties_density", "merge_dtype", "ratio_grid"),
    "07_nli_evaluation": (
        "caption_tokenizer", "postprocess", "invalid", "nli_model", "nli_batch_tokens", "nli_code",
        "decomposer", "decomposer_model", "decomposer_new_tokens", "word_cuts",
    ),
    "08_figures": ("author_scores",),
}  # fmt: skip


def notebook_path(notebook: str) -> Path:
    return root() / "notebooks" / f"{notebook}.ipynb"


def first_changed(name: str) -> str:
    """The first notebook whose files the parameter ``name`` changes."""
    return next((notebook for notebook, names in _FIRST.items() if name in names), NOTEBOOKS[0])


def with_data_switches(params: Params) -> Params:
    """``params`` with what ``semantics`` and ``switches`` change for all systems; these resolve the others."""
    values = params.model_dump()
    return check({**values, **resolve(values, ("data",))})


def depends_on(notebook: str, params: Params) -> dict[str, Any]:
    """The parameters that ``notebook``'s files depend on: those that count from it or from an earlier notebook on."""
    values = with_data_switches(params).model_dump(mode="json")
    names = [name for name in values if name not in (*SAME_NUMBERS, *ADDS_SYSTEMS) and first_changed(name) <= notebook]
    return {name: values[name] for name in names}


def rows_of(notebook: str, params: Params) -> list[System]:
    """Rows of the systems table that ``notebook`` makes; for 07 and 08, which show all, every row."""
    rows = with_ratio_grid(load_systems(), params)
    return [row for row in rows if row.notebook == notebook] if notebook < "07" else rows


def changes(profile: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Of ``values``, those that make another run than the profile's."""
    base, own = load(profile).model_dump(), load(profile, {**values, "profile": profile}).model_dump()
    return {name: own[name] for name in sorted(own) if own[name] != base[name] and name not in SAME_NUMBERS}


def parts(profile: str, *, per_system: bool = False) -> dict[str, tuple[str, list[str]]]:
    """Executions of a notebook that are narrowed to some of its systems and run before it: notebook and systems.

    ``per_system``: one for every system. Else 06's systems, as many as 03 to 05 make together, are dealt out to the
    profile's ``ablation_jobs``.
    """
    params = load(profile)
    rows = [row for row in with_ratio_grid(load_systems(), params) if row.init != "baseline"]  # those take seconds
    if per_system:
        return {f"{row.notebook}.{row.name}": (row.notebook, [row.name]) for row in rows}
    names, jobs = [row.name for row in rows if row.notebook == "06_ablation"], params.ablation_jobs
    if jobs < 2:
        return {}
    return {f"06_ablation.{job + 1}": ("06_ablation", names[job::jobs]) for job in range(min(jobs, len(names)))}


def package_hash() -> str:
    """One hash over the package's code and the data files that belong to it: notebooks run again when it changes."""
    package = root() / "lmolt_utils"
    files = [path for path in package.rglob("*") if path.suffix in (".py", *DATA)]
    files += [package / "embedded" / "models" / "hashes.json", root() / "params" / "printed_captions.tsv"]
    files += [
        root() / "params" / f"{name}.yaml" for name in ("published", "official", "released", "switches", "claims")
    ]
    whole = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        whole.update(f"{path.relative_to(root()).as_posix()}\0{fingerprint(path)}\n".encode())
    return whole.hexdigest()
