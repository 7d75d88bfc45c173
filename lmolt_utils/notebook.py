"""What every notebook begins with: ``run = start("04_alignment", globals())``.

The notebook's parameters cell lists the parameters it uses, each ``None``: the profile's value. What a reader
changes there, or papermill injects (``-f params/cpu.yaml -y 'systems: [cpo]'``), takes precedence. Unknown names
and wrong types stop here, before any work.
"""

import os
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.core.getipython import get_ipython

from lmolt_utils.errors import CompanionError
from lmolt_utils.files import fingerprint, read_json, write_json
from lmolt_utils.notebook_files import NOTEBOOKS, assigned, declared, made_from
from lmolt_utils.params import ParameterError, Params, check, describe, load, nearest, profile_path, read_yaml
from lmolt_utils.paths import run_folder, shown
from lmolt_utils.semantics import resolve_data
from lmolt_utils.steps import record_path, step
from lmolt_utils.systems import System, chosen, load_systems, replicas, with_ratio_grid

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

    Raises :class:`~lmolt_utils.params.ParameterError` for anything unknown or mistyped.
    """
    values = dict(values)
    systems = values.pop("systems", None)
    if systems is not None and not (isinstance(systems, list) and all(isinstance(s, str) for s in systems)):
        raise ParameterError(f"parameter 'systems' = {systems!r}: a list of names is needed, such as [cpo]")
    profile = values.get("profile") or os.environ.get("LMOLT_PROFILE") or DEFAULT_PROFILE
    base = read_yaml(profile_path(profile))
    return _with_data_switches(check({**base, **values, "profile": profile})), systems or None


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
    changed: tuple[str, ...] = ()
    made_from: Mapping[str, str] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        """``run.beta``: a parameter, if this notebook declares it (its record would be incomplete otherwise)."""
        if name not in Params.model_fields:
            raise AttributeError(f"no parameter or attribute {name!r}{nearest(name, list(Params.model_fields))}")
        if name not in declared(self.notebook):
            raise AttributeError(f"{self.notebook} uses {name!r} but its parameters cell does not list it")
        return getattr(self.params, name)

    @property
    def table(self) -> list[System]:
        """Every system of the run: the table's rows, what ``ratio_grid`` adds, copies for more ``seeds``."""
        return replicas(with_ratio_grid(load_systems(), self.params), self.params)

    @property
    def systems(self) -> list[System]:
        """The systems that this notebook makes in this run; a wanted one comes with its copies for more ``seeds``."""
        rows = with_ratio_grid(load_systems(), self.params)
        return replicas(chosen(rows, self.notebook, list(self.wanted) if self.wanted else None), self.params)

    def path(self, *parts: str) -> Path:
        """A path in the run's folder."""
        return self.folder.joinpath(*parts)

    def step(self, name: str, make: Callable[[], Any], *, outputs: Sequence[Path], **kept: Any) -> bool:
        """:func:`lmolt_utils.steps.step`, with its outputs noted for the receipt."""
        ran = step(name, make, outputs=outputs, **kept)
        self.wrote(*outputs)
        return ran

    def wrote(self, *outputs: Path) -> None:
        """Note files that this notebook is responsible for."""
        self.written.extend(path for path in outputs if path not in self.written)

    def finish(self) -> pd.DataFrame:
        """Write the receipt (which files, which hashes, made from what) and return the files with time and memory.

        A receipt tells ``make reproduce`` that the notebook is done. Files made with parameters other than the
        profile's get none, and the next ``make reproduce`` makes them again.
        """
        files = {self.shown(path): fingerprint(path) for path in self.written}
        for receipt in self.receipts():
            if self.changed:
                receipt.unlink(missing_ok=True)
            else:
                write_json(receipt, {"notebook": self.notebook, "made_from": self.made_from, "files": files})
        if self.changed:
            print(f"no receipt: {', '.join(self.changed)} differ from profile {self.params.profile}")
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
    record = record_path(path)
    facts = read_json(record) if record.exists() else {}
    return {"seconds": facts.get("wall_s"), "peak MB": facts.get("peak_mb"), "KB": _size(path) // 1024}


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def start(notebook: str, namespace: Mapping[str, Any]) -> Run:
    """Check the parameters, prepare libraries (threads, seed, quiet hub) and return the :class:`Run`.

    Raises :class:`~lmolt_utils.params.ParameterError`; says which profile runs and where its files are.
    """
    _short_errors()
    params, wanted = resolve(notebook, given(namespace))
    profile = _with_data_switches(load(params.profile)).model_dump()
    changed = tuple(sorted(name for name, value in params.model_dump().items() if profile[name] != value))
    made = made_from(notebook, params.profile)
    run = Run(notebook, run_folder(params.profile), params, tuple(wanted) if wanted else None, changed, made)
    if notebook in {system.notebook for system in load_systems()}:
        _ = run.systems  # a mistyped system stops here
    elif wanted:
        raise ParameterError(f"{notebook} makes no systems: leave 'systems' out")
    if notebook in _WITH_MODELS:
        _prepare(params)
    print(f"{notebook}: profile {params.profile}, files in {shown(run.folder)}, seed {params.seed}, on {params.device}")
    return run


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
