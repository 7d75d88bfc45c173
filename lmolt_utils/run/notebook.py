"""What every notebook begins with: ``run = start("04_alignment", globals())``.

The parameters cell has three names: ``profile``, ``systems`` and ``overrides``. A parameter that papermill injects by
its own name (``-p learning_rate 1e-3``, ``-f params/gpu.yaml``) counts as an override.
"""

import logging
import os
import random
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from IPython.core.getipython import get_ipython
from IPython.display import HTML

from lmolt_utils.config.params import HEADLINE, ParameterError, Params, describe, load, nearest
from lmolt_utils.config.systems import System, chosen, load_systems, planned, replicas, with_ratio_grid
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import fingerprint, read_kept, write_json
from lmolt_utils.paths import figures_folder, inside, root, run_folder, shown
from lmolt_utils.run.notebooks import AFTER, NOTEBOOKS, changes, depends_on, first_changed, with_data_switches
from lmolt_utils.run.plan import gpus, problems, stop_if
from lmolt_utils.run.steps import commit, made_by_older_code, record_path, step
from lmolt_utils.run.summary import note

_CELL = ("profile", "systems", "overrides")
#: How the corpus manifest says that its property sets were not stated.
READ_OFF = "read off the captions"
_WITH_MODELS = NOTEBOOKS[1:7]


@dataclass(frozen=True)
class Run:
    """One notebook's view of a run: its parameters, its systems, where files are, and what it wrote."""

    notebook: str
    folder: Path
    params: Params
    #: The systems that this run is narrowed to; ``None``: all of the notebook's.
    wanted: tuple[str, ...] | None = None
    #: Parameters that differ from the profile's, and make this a run of its own.
    changed: Mapping[str, Any] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    @property
    def scale(self) -> str:
        """Whose models the numbers are of, as the tables' captions say it."""
        models, papers = ([p.base_model, p.cap2mol_model, p.mol2cap_model] for p in (self.params, load("paper")))
        if all(model.startswith("embedded:") for model in models):
            return "embedded"
        same = [model.split("@")[0] for model in models] == papers
        return "the paper's models" if same else f"not the paper's models but {', '.join(dict.fromkeys(models))}"

    @property
    def table(self) -> list[System]:
        """Every system of the run, whichever notebook makes it."""
        return planned(self.params)

    @property
    def systems(self) -> list[System]:
        """The systems that this notebook makes, a wanted one with its copies for more ``seeds``."""
        rows = with_ratio_grid(load_systems(), self.params)
        return replicas(chosen(rows, self.notebook, list(self.wanted) if self.wanted else None), self.params)

    @property
    def title(self) -> str:
        """Which run this is, for the captions of tables: ``cpu``, or ``cpu, beta = 0.5``."""
        return ", ".join([self.params.profile, *(f"{name} = {value}" for name, value in self.changed.items())])

    @property
    def default(self) -> "Run":
        """The run of the profile's own parameters, which a changed run is held against; without changes this one."""
        if not self.changed:
            return self
        profile = self.params.profile
        own = with_data_switches(load(profile))
        return Run(self.notebook, run_folder(profile), own, self.wanted)

    @property
    def figures(self) -> Path:
        """Where tables and figures go: only a run with the profile's own parameters writes the tracked ones."""
        tracked = figures_folder(self.folder, self.params.figures_dir)
        return self.path("figures") if self.changed else tracked

    @property
    def property_note(self) -> str:
        """What belongs beside every number that rests on property sets, if 01 read these off the captions."""
        facts = read_kept(self.path("data", "corpus.manifest.json")) or {}
        note = "Property sets were read off the captions by the grammar: the corpus states none."
        return note if facts.get("properties") == READ_OFF else ""

    @property
    def older_code(self) -> str:
        """The steps that were kept though their code changed since, for the captions of tables; empty: none."""
        names = sorted(made_by_older_code(self.folder))
        return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")

    def path(self, *parts: str) -> Path:
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
        """Record which files this notebook wrote, with which parameters; the files with their time and memory.

        By the record a copied or damaged run is told from a finished one; one narrowed to some systems has none.
        """
        if self.wanted is None:
            files = {self.shown(path): fingerprint(path) for path in self.written}
            record = {"params": depends_on(self.notebook, self.params), "files": files, "commit": commit()}
            write_json(notebook_record(self.folder, self.notebook), record)
        if get_ipython() is not None:
            self.note()
        return pd.DataFrame([{"file": self.shown(path), **_cost(path)} for path in self.written])

    def note(self, error: BaseException | None = None) -> None:
        """A line in ``logs/runs.jsonl``: this notebook is done, or ended by ``error``."""
        note(self.folder, self.notebook, self.began, error, systems=self.wanted, profile=self.title)

    def shown(self, path: Path) -> str:
        """``path`` relative to the run's folder, or to the repository, whose figures/ may be a link to elsewhere."""
        places = (place for place in (self.folder, root()) if path.is_relative_to(place))
        return next((path.relative_to(place).as_posix() for place in places), shown(path))

    def settings(self) -> HTML:
        """The dozen parameters that matter in this notebook, the value beside the paper's; all others folded away."""
        values = {"here": self.params.model_dump(), "paper profile": load("paper").model_dump()}
        told = pd.DataFrame({name: describe(name) for name in Params.model_fields}).T
        every = pd.DataFrame(values, dtype=object).join(told[["source", "unit", "meaning"]])
        first = HEADLINE[self.notebook]
        rest = every.drop(index=first)
        folded = f"<details><summary>{len(rest)} more parameters</summary>{rest.to_html()}</details>"
        return HTML(every.loc[first].to_html() + folded)


def notebook_record(folder: Path, notebook: str) -> Path:
    """Where a notebook's record lies: its parameters, and the hashes of all files that it stands for."""
    return folder / "notebooks" / f"{notebook}.record.json"


def read_notebook_record(folder: Path, notebook: str) -> dict[str, Any] | None:
    """That record; ``None`` where it is missing, damaged, or names a file outside the folder that it speaks of."""
    found = read_kept(notebook_record(folder, notebook))
    whole = isinstance(found, dict) and all(isinstance(found.get(part), dict) for part in ("params", "files"))
    return found if whole and all(inside(name) for name in found["files"]) else None


def altered(folder: Path, notebook: str) -> Iterator[str]:
    """Files of a finished notebook that are missing, no longer what it wrote, or have a damaged record; its own record,
    where that is not there."""
    record = read_notebook_record(folder, notebook)
    if record is None:
        yield f"notebooks/{notebook}.record.json"
        return
    for name, digest in record["files"].items():
        path = folder / name if (folder / name).exists() else root() / name
        damaged = record_path(path).exists() and read_kept(record_path(path)) is None
        if damaged or not path.exists() or fingerprint(path) != digest:
            yield str(name)


def _cost(path: Path) -> dict[str, Any]:
    """Seconds and peak memory from the record beside a file, where it has one, and its size."""
    facts = read_kept(record_path(path)) or {}
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    size = sum(p.stat().st_size for p in files)
    return {"seconds": facts.get("wall_s"), "peak MB": facts.get("peak_mb"), "KB": size // 1024}


def start(notebook: str, namespace: MutableMapping[str, Any]) -> Run:
    """Check the parameters (:class:`ParameterError`), prepare libraries, say what runs and where."""
    _short_errors()
    warnings.filterwarnings("ignore", message="IProgress not found")  # text bars are what an executed copy can show
    profile, wanted, values = given(namespace)
    params = with_data_switches(load(profile, values))
    changed = changes(profile, values)
    run = Run(notebook, run_folder(profile, changed), params, wanted, changed)
    _watch(run)
    _ = run.figures  # a folder that nothing may be written to stops here
    if notebook in {system.notebook for system in load_systems()}:
        _ = run.systems  # a mistyped system stops here
    elif wanted:
        raise ParameterError(f"{notebook} makes no systems: leave 'systems' empty")
    stop_if(problems(params, notebook, run.folder))
    if notebook in _WITH_MODELS:
        prepare_libraries(params)
    elif params.device == "cuda" and not gpus():
        print(f"note: from 02 on profile {profile!r} needs a CUDA device, and there is none here")
    if changed:
        _take_over(run)
    _check_earlier(run)
    print(f"{notebook}: profile {run.title}, files in {shown(run.folder)}, seed {params.seed}, on {params.device}")
    return run


def given(namespace: MutableMapping[str, Any]) -> tuple[str, tuple[str, ...] | None, dict[str, Any]]:
    """Profile, systems and overrides as the notebook's namespace has them; :class:`ParameterError` for unknown names.

    What papermill injected by name is read off the first time: later, a notebook's own variables may be called as a
    parameter is.
    """
    if "_injected" not in namespace:
        injected = {}
        for name, value in namespace.items():
            helper = name.startswith("_") or callable(value) or isinstance(value, ModuleType)
            if helper or name in (*_CELL, "In", "Out"):
                continue
            if name not in Params.model_fields:
                raise ParameterError(f"unknown parameter {name!r}{nearest(name, [*_CELL, *Params.model_fields])}")
            injected[name] = value
        namespace["_injected"] = injected
    profile, systems, overrides = (namespace.get(name) for name in _CELL)
    if not isinstance(profile, str):
        raise ParameterError(f"profile = {profile!r}: give the name of a file in params/, such as cpu")
    if isinstance(systems, str):
        systems = [name.strip() for name in systems.split(",")]
    if systems and not (isinstance(systems, list) and all(isinstance(name, str) for name in systems)):
        raise ParameterError(f"systems = {systems!r}: a list of names is needed, such as ['cpo']")
    if overrides and not isinstance(overrides, dict):
        raise ParameterError(f"overrides = {overrides!r}: names and values are needed, such as {{'beta': 0.2}}")
    return profile, tuple(systems) if systems else None, {**namespace["_injected"], **(overrides or {})}


def _check_earlier(run: Run) -> None:
    """Raise :class:`ParameterError` if a notebook whose files this one reads was run with other parameters."""
    earlier = set(AFTER[run.notebook])
    for notebook in reversed(NOTEBOOKS):
        earlier.update(AFTER[notebook] if notebook in earlier else ())
    for notebook in sorted(earlier):
        record, now = read_notebook_record(run.folder, notebook), depends_on(notebook, run.params)
        then = record["params"] if record else {}  # an older version may lack a parameter: the steps' keys decide that
        if names := [name for name, value in now.items() if then.get(name, value) != value]:
            raise ParameterError(
                f"{notebook} was run with another {' and '.join(names)} than profile {run.title} has now: run it again "
                "before this one (what is unaffected is kept), or lmolt reproduce, which runs all that changed"
            )


def _take_over(run: Run) -> None:
    """Link into a changed run's folder what the notebooks before the first changed parameter made in the profile's run.

    The files of a notebook whose record does not fit this run (its switches may change the pairs) count as not made.
    """
    base, first = run_folder(run.params.profile), min(map(first_changed, run.changed))
    for notebook in NOTEBOOKS[: NOTEBOOKS.index(first)]:
        there, here = notebook_record(base, notebook), notebook_record(run.folder, notebook)
        record = read_notebook_record(base, notebook)
        if record is None or record["params"] != depends_on(notebook, run.params):
            continue
        if here.exists() and here.read_bytes() == there.read_bytes():
            continue
        made = [path for name in record["files"] for path in (base / name, record_path(base / name))]
        for path in (*made, there):
            if path.exists():
                _link(path, run.folder / path.relative_to(base))


def _link(source: str | Path, target: str | Path) -> None:
    """``target`` as another name of ``source``: files are replaced, never written into."""
    if Path(source).is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, copy_function=_link)
        return
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a disk that knows no links
        shutil.copy2(source, target)


def _short_errors() -> None:
    """In IPython, show an error that a user can mend as its message alone."""

    def show(self: Any, kind: type, error: Exception, trace: Any, tb_offset: Any = None) -> list[str]:
        lines = [f"{kind.__name__}: {error}"]
        self._showtraceback(kind, error, lines)
        return lines

    if (shell := get_ipython()) is not None:
        shell.set_custom_exc((CompanionError,), show)


_watched: list[Callable[[Any], None]] = []


def _watch(run: Run) -> None:
    """In a kernel: note how a cell of ``run`` fails, and let SIGTERM end it as Ctrl-C does."""
    if (shell := get_ipython()) is None:
        return

    def after(result: Any) -> None:
        if result.error_in_exec is not None:
            run.note(result.error_in_exec)

    for earlier in _watched:
        shell.events.unregister("post_run_cell", earlier)
    _watched[:] = [after]
    shell.events.register("post_run_cell", after)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def prepare_libraries(params: Params) -> None:
    """Threads, seed and a quiet hub, where models run: importing torch takes seconds."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_MININTERVAL", "5")  # seconds between two lines of any bar: executed copies keep them
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it misses an optional kernel, on a CPU
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # of its own renamings
    # KTO's ChatML adds two tokens; PEFT says that a checkpoint then holds the embeddings too.
    warnings.filterwarnings("ignore", message="Setting `save_embedding_layers` to `True`")
    import torch
    from threadpoolctl import threadpool_limits
    from transformers.utils import logging as transformers_logging

    if params.device == "cuda" and not torch.cuda.is_available():
        raise ParameterError(f"profile {params.profile!r} needs a CUDA device and there is none: use profile cpu")
    torch.set_num_threads(params.threads)
    threadpool_limits(params.threads)  # numpy's BLAS: the number of threads decides the order of a sum
    random.seed(params.seed)  # as transformers.set_seed, which imports all that trains (5 s) where nothing does
    np.random.seed(params.seed)
    torch.manual_seed(params.seed)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
