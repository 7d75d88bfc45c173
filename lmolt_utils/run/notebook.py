"""What every notebook begins with: ``run = start("04_alignment", globals())``.

The notebook's parameters cell lists the parameters it uses, each ``None``: the profile's value. What a reader
changes there, or papermill injects (``-f params/cpu.yaml -y 'systems: [cpo]'``), takes precedence. Unknown names
and wrong types stop here, before any work.
"""

import os
import random
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.core.getipython import get_ipython

from lmolt_utils.config.params import ParameterError, Params, check, describe, load
from lmolt_utils.config.switches import resolve_data
from lmolt_utils.config.systems import System, chosen, load_systems, planned, replicas, with_ratio_grid
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import fingerprint, read_kept, write_json
from lmolt_utils.paths import figures_folder, run_folder, shown
from lmolt_utils.run.notebook_files import AFTER, NOTEBOOKS, assigned, changes, declared, made_from, outdated, untouched
from lmolt_utils.run.steps import record_path, step

DEFAULT_PROFILE = "cpu"
_WITH_MODELS = NOTEBOOKS[1:7]


def given(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The values set in the parameters cell and in papermill's injected one.

    Other variables of the notebook do not count, so the start cell can be run again at any time.
    """
    values: dict[str, Any] = {}
    for source in namespace.get("In", []):
        names = assigned(source)
        if "profile" in names or source.startswith("# Parameters"):
            values |= {name: namespace[name] for name in names if name in namespace}
    return {name: value for name, value in values.items() if value is not None}


def resolve(notebook: str, values: Mapping[str, Any]) -> tuple[Params, list[str] | None]:
    """Parameters of a run, and the systems it was narrowed to (``None``: all of the notebook's).

    Raises :class:`~lmolt_utils.config.params.ParameterError` for anything unknown or mistyped.
    """
    values = dict(values)
    systems = values.pop("systems", None)
    if systems is not None and not (isinstance(systems, list) and all(isinstance(s, str) for s in systems)):
        raise ParameterError(f"parameter 'systems' = {systems!r}: a list of names is needed, such as [cpo]")
    profile = values.get("profile") or os.environ.get("LMOLT_PROFILE") or DEFAULT_PROFILE
    return _with_data_switches(load(profile, {**values, "profile": profile})), systems or None


def _with_data_switches(params: Params) -> Params:
    """``params`` with what ``semantics`` and ``switches`` change of the pairs; systems resolve the others."""
    values = params.model_dump()
    return check({**values, **resolve_data(values)})


@dataclass(frozen=True)
class Run:
    """One notebook's view of a run: its parameters, its systems, where files are, and what it wrote."""

    notebook: str
    folder: Path
    params: Params
    wanted: tuple[str, ...] | None = None
    #: Parameters that differ from the profile's, and make this a run of its own.
    changed: Mapping[str, Any] = field(default_factory=dict)
    made_from: Mapping[str, str] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)

    @property
    def scale(self) -> str:
        """Whose models the numbers are of, as the tables' captions say it."""
        names = ("base_model", "cap2mol_model", "mol2cap_model")
        models = [str(getattr(self.params, name)) for name in names]
        if all(model.startswith("embedded:") for model in models):
            return "embedded"
        paper = load("paper")
        same = [model.split("@")[0] for model in models] == [getattr(paper, name) for name in names]
        return "the paper's models" if same else f"not the paper's models but {', '.join(dict.fromkeys(models))}"

    @property
    def table(self) -> list[System]:
        """Every system of the run: the table's rows, what ``ratio_grid`` adds, copies for more ``seeds``."""
        return planned(self.params)

    @property
    def systems(self) -> list[System]:
        """The systems that this notebook makes in this run; a wanted one comes with its copies for more ``seeds``."""
        rows = with_ratio_grid(load_systems(), self.params)
        return replicas(chosen(rows, self.notebook, list(self.wanted) if self.wanted else None), self.params)

    @property
    def title(self) -> str:
        """Which run this is, for the captions of tables: ``cpu``, or ``cpu, beta = 0.5``."""
        return ", ".join([self.params.profile, *(f"{name} = {value}" for name, value in self.changed.items())])

    @property
    def figures(self) -> Path:
        """Where tables and figures go: only a run with the profile's own parameters writes the tracked ones."""
        profiles_own = figures_folder(self.folder, self.params.figures_dir)
        return self.path("figures") if self.changed else profiles_own

    def path(self, *parts: str) -> Path:
        """A path in the run's folder."""
        return self.folder.joinpath(*parts)

    def step(self, name: str, make: Callable[[Path], object], *, outputs: Sequence[Path], **key: Any) -> bool:
        """:func:`lmolt_utils.run.steps.step`, with its outputs noted as this notebook's."""
        key |= {"redo_below_s": self.params.redo_below_s, "notebook": self.notebook}
        ran = step(name, make, outputs=outputs, **key)
        self.wrote(*outputs)
        return ran

    def wrote(self, *outputs: Path) -> None:
        """Note files that this notebook is responsible for."""
        self.written.extend(path for path in outputs if path not in self.written)

    def finish(self) -> pd.DataFrame:
        """Write the receipt (which files, which hashes, made from what) and return the files with time and memory.

        A receipt tells ``make reproduce`` that the notebook is done. It knows profiles alone: a run with other
        parameters has none, and figures that went to another folder do not count as the profile's.
        """
        if not self.changed and self.params.figures_dir == load(self.params.profile).figures_dir:
            files = {self.shown(path): fingerprint(path) for path in self.written}
            for receipt in self.receipts():
                write_json(receipt, {"notebook": self.notebook, "made_from": self.made_from, "files": files})
        return pd.DataFrame([{"file": self.shown(path), **_cost(path)} for path in self.written])

    def receipts(self) -> list[Path]:
        """The notebook's receipt, or one per system when the run was narrowed to some."""
        if self.wanted is None:
            return [self.path("receipts", f"{self.notebook}.json")]
        return [self.path("receipts", f"{name}.system.json") for name in self.wanted]

    def shown(self, path: Path) -> str:
        """``path`` relative to the run's folder, or to the repository."""
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else shown(path)

    def settings(self) -> pd.DataFrame:
        """The parameters of this notebook: value here, the paper profile's, unit, source."""
        paper = load("paper").model_dump()
        rows = []
        for name in declared(self.notebook):
            if name in Params.model_fields:
                facts = describe(name)
                rows.append(
                    {
                        "parameter": name,
                        "here": getattr(self.params, name),
                        "paper profile": paper[name],
                        "unit": facts["unit"],
                        "meaning": facts["meaning"],
                        "source": facts["source"],
                    }
                )
        return pd.DataFrame(rows).set_index("parameter")


def _cost(path: Path) -> dict[str, Any]:
    """Seconds and peak memory from the record beside a file, where it has one."""
    facts = read_kept(record_path(path)) or {}
    return {"seconds": facts.get("wall_s"), "peak MB": facts.get("peak_mb"), "KB": _size(path) // 1024}


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def start(notebook: str, namespace: Mapping[str, Any]) -> Run:
    """Check the parameters, prepare libraries (threads, seed, quiet hub) and return the :class:`Run`.

    Raises :class:`~lmolt_utils.config.params.ParameterError`; says which profile runs and where its files are.
    """
    _short_errors()
    values = given(namespace)
    params, wanted = resolve(notebook, values)
    changed = changes(params.profile, values)
    folder = run_folder(params.profile, changed)
    made = made_from(notebook, params.profile)
    run = Run(notebook, folder, params, tuple(wanted) if wanted else None, changed, made)
    _ = run.figures  # a folder that nothing may be written to stops here
    if notebook in {system.notebook for system in load_systems()}:
        _ = run.systems  # a mistyped system stops here
    elif wanted:
        raise ParameterError(f"{notebook} makes no systems: leave 'systems' out")
    if notebook in _WITH_MODELS:
        _prepare(params)
    if changed:
        _take_over(run)
    _check_earlier(run)
    print(f"{notebook}: profile {run.title}, files in {shown(run.folder)}, seed {params.seed}, on {params.device}")
    return run


def _check_earlier(run: Run) -> None:
    """Raise :class:`ParameterError` if a notebook whose files this one reads was run with other parameters."""
    earlier = set(AFTER[run.notebook])
    for notebook in reversed(NOTEBOOKS):
        earlier |= set(AFTER[notebook]) if notebook in earlier else set()
    for notebook in sorted(earlier):
        told = _receipt(run.path("receipts", f"{notebook}.json"))
        if told and (names := outdated(told, run.params.profile)):
            raise ParameterError(
                f"{notebook} was run when profile {run.params.profile} had another {' and '.join(names)}: run it "
                "again before this one, or lmolt reproduce, which runs all that changed"
            )


def _receipt(path: Path) -> dict[str, Any] | None:
    """A receipt, or ``None`` where there is none or a damaged one (which the profile's next run sees to)."""
    told = read_kept(path)
    return told if isinstance(told, dict) and {"notebook", "made_from", "files"} <= set(told) else None


def _take_over(run: Run) -> None:
    """Link into a changed run's folder what the profile's run has and what no changed parameter can touch.

    Whole notebooks only, with all that they read: a system that 04 makes is not taken over when 04 lists a changed
    parameter, and counts as not run until it is made here. A receipt that came along says what has been taken.
    """
    base = run_folder(run.params.profile)
    kept = [notebook for notebook in untouched(run.changed) if notebook != NOTEBOOKS[-1]]
    for receipt in sorted((base / "receipts").glob("*.json")):
        here = run.path("receipts", receipt.name)
        told = _receipt(receipt)
        if told is None or told["notebook"] not in kept or outdated(told, run.params.profile):
            continue
        if here.exists() and here.read_bytes() == receipt.read_bytes():
            continue
        for name in told["files"]:
            if (base / name).exists():
                _link(base / name, run.path(name))
                if record_path(base / name).exists():
                    _link(record_path(base / name), record_path(run.path(name)))
        _link(receipt, here)


def _link(source: Path, target: Path) -> None:
    """``target`` as another name of ``source`` (a copy on another disk): files are replaced, never written into."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, copy_function=_link_file)
    else:
        target.unlink(missing_ok=True)
        _link_file(str(source), str(target))


def _link_file(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _short_errors() -> None:
    """In IPython, show an error that a user can mend as its message alone."""
    shell: Any = get_ipython()
    if shell is not None:

        def show(self: Any, kind: type, error: Exception, trace: Any, tb_offset: Any = None) -> list[str]:
            lines = [f"{kind.__name__}: {error}"]
            self._showtraceback(kind, error, lines)
            return lines

        shell.set_custom_exc((CompanionError,), show)


def _prepare(params: Params) -> None:
    """Threads, seed and a quiet hub, where models run: importing torch takes seconds that the others save."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_MININTERVAL", "5")  # seconds between two lines of any bar: executed copies keep them
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    warnings.filterwarnings("ignore", message="IProgress not found")  # text bars are what an executed copy can show
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # of its own renamings
    import torch
    from transformers.utils import logging

    if params.device == "cuda" and not torch.cuda.is_available():
        raise ParameterError(f"profile {params.profile!r} needs a CUDA device and there is none: use profile cpu")
    torch.set_num_threads(params.threads)
    random.seed(params.seed)  # as transformers.set_seed, which imports all that trains (5 s) where nothing does
    np.random.seed(params.seed)
    torch.manual_seed(params.seed)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
