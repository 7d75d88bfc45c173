"""From a row of the systems table to its predictions: merge (if init says so), train (method), predict, each once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lmolt_utils.config.params import Params
from lmolt_utils.config.prompts import SIDES, TASKS, Task, baseline_prompt, prompt
from lmolt_utils.config.systems import PUBLISHED, System, load_systems
from lmolt_utils.data.molecules import TRIES, rewritten
from lmolt_utils.data.sample import PAIR_COLUMNS, TEST_COLUMNS
from lmolt_utils.files import emptied, empty, read_rows, write_rows
from lmolt_utils.merging.merges import Merge, make_merge, merge_of, with_weights
from lmolt_utils.models.generation import continuous, stream
from lmolt_utils.models.loading import Kind, model_identity
from lmolt_utils.models.postprocess import clean
from lmolt_utils.models.predictions import prediction_path
from lmolt_utils.run.notebook import Run
from lmolt_utils.run.resume import answered
from lmolt_utils.training.adapters import load_trained
from lmolt_utils.training.recipes import Recipe
from lmolt_utils.training.trainers import train

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is to be done for one system; ``params`` are the run's with the row's own settings applied."""

    system: System
    params: Params
    recipe: Recipe
    merge: Merge | None

    @property
    def published_model(self) -> str | None:
        """The model of a published baseline."""
        init = self.system.init
        return getattr(self.params, PUBLISHED[init]) if init in PUBLISHED else None


def plan(run: Run, system: System) -> Plan:
    """The plan of ``system`` (a row of the systems table) in ``run``."""
    params = system.params(run.params)
    return Plan(system, params, Recipe.of(system.method, params), merge_of(system, params))


def initial_model(run: Run, todo: Plan, task: Task, say: Say = print) -> str:
    """The model that ``todo`` starts from for ``task`` (merging it if it is a merge): a folder or a hub id."""
    if todo.published_model is not None:
        return todo.published_model
    if todo.merge is not None:
        return str(make_merge(run, todo.merge, say))
    own = {"cap2mol": todo.params.cap2mol_model, "mol2cap": todo.params.mol2cap_model}
    return own[task if todo.system.init == "per_task" else todo.system.init]


def training_pairs(run: Run) -> pd.DataFrame:
    """The preference pairs that 02 made: id, task, source, chosen, rejected."""
    return read_rows(run.path("data", "pairs.jsonl"), PAIR_COLUMNS)


def short_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """One pair of each task to look at: a fifth of its task's pairs are shorter."""
    length = (pairs["source"] + pairs["chosen"] + pairs["rejected"]).str.len().groupby(pairs["task"]).rank(pct=True)
    return pairs.loc[(length - 0.2).abs().groupby(pairs["task"]).idxmin()]


def train_system(
    run: Run, todo: Plan, initial: str, say: Say = print, begin: Callable[[Path], None] = lambda _: None
) -> Path:
    """Train the adapter of ``todo`` unless that was done; returns its folder.

    ``begin`` is told the work folder when a training begins.
    """
    name, pairs = todo.system.name, run.path("data", "pairs.jsonl")
    adapter, log = _trained(run, name)

    def make(work: Path) -> None:
        begin(work)
        train_into(run, todo, initial, work, say)

    run.step(
        f"train {name}",
        make,
        outputs=[adapter, log],
        params=todo.recipe.relevant(),
        inputs={"pairs": pairs, "initial": model_identity(initial)},
        say=say,
    )
    return adapter


def _trained(run: Run, name: str) -> tuple[Path, Path]:
    return run.path("models", name), run.path("logs", f"{name}.training.jsonl")


def train_into(run: Run, todo: Plan, initial: str, work: Path, say: Say = print) -> None:
    """The training of ``todo`` itself, with its checkpoints in ``work``."""
    name, save_steps = todo.system.name, todo.params.save_steps
    start = with_weights(todo.merge, initial)
    where = (*_trained(run, name), work)
    train(todo.recipe, start, training_pairs(run), *where, title=name, say=say, save_steps=save_steps)


def _asked(todo: Plan, task: Task, text: str) -> str:
    if todo.published_model is not None:
        return baseline_prompt(todo.system.init, todo.params.baseline_prompt, task, text)
    return prompt(task, text, todo.params.test_prompt)


def predict(run: Run, todo: Plan, task: Task, say: Say = print, *, other_smiles: bool = False) -> Path:
    """Answers of ``todo`` (trained, if it is to be) for the test rows, unless they are there; returns their file.

    With ``other_smiles`` each molecule is asked about in another SMILES of it, as ``<system>.rewritten``: does a system
    caption the molecule, or its spelling? AMORE (Ganeeva et al. 2024) asks it of embeddings, this of captions.
    """
    initial = initial_model(run, todo, task, lambda _: None)
    adapter = run.path("models", todo.system.adapter_of) if todo.system.method != "none" else None
    name, params = todo.system.name + ".rewritten" * other_smiles, todo.params
    test, output = run.path("data", "test.jsonl"), prediction_path(run, name, task)
    machine = {each: getattr(params, each) for each in ("device", "dtype", "quantize")}
    by_request = params.generation_engine == "continuous"

    def ask(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
        kind: Kind = "translator" if todo.system.init == "txtchem" else "causal"
        trusted = initial in params.remote_code
        start = with_weights(todo.merge, initial)
        model, tokenizer = load_trained(start, adapter, kind=kind, remote_code=trusted, **machine)
        answers = continuous if by_request and kind == "causal" else stream
        yield from answers(
            model, tokenizer, texts, max_new_tokens=params.max_new_tokens, batch_size=params.generation_batch
        )

    def make(work: Path) -> None:
        rows, (given, wanted) = read_rows(test, TEST_COLUMNS), SIDES[task]
        sources = [rewritten(text, params.seed) for text in rows[given]] if other_smiles else rows[given]
        asked = [_asked(todo, task, text) for text in sources]
        raw = answered(asked, ask, work, params.negatives_shard_rows, f"{name} {task}")
        frame = pd.DataFrame({"id": rows["id"], "task": task, "source": sources, "reference": rows[wanted]})
        write_rows(output, frame.assign(raw=raw, prediction=[clean(text) for text in raw]))

    run.step(
        f"predict {name} {task}",
        make,
        outputs=[output],
        params={
            "task": task,
            "prompt": params.test_prompt if todo.published_model is None else params.baseline_prompt,
            "max_new_tokens": params.max_new_tokens,
            "generation_batch": params.generation_batch,
            **machine,
        }
        | ({"seed": params.seed, "tries": TRIES} if other_smiles else {})
        | ({"generation_engine": "continuous"} if by_request else {}),
        inputs={"test": test, "initial": model_identity(initial)} | ({"adapter": adapter} if adapter else {}),
        say=say,
    )
    return output


def make_system(run: Run, system: System, say: Say = print) -> None:
    """Merge, train and predict one system; says what was done, and what was up to date.

    A system that only differs at test time (``adapter_of``) is trained as that other one, unless it has been.
    """
    todo = plan(run, system)
    if system.method != "none":
        trained = todo if system.adapter_of == system.name else plan(run, _named(system.adapter_of))
        train_system(run, trained, initial_model(run, trained, "cap2mol", say), say)
    for task in TASKS:
        predict(run, todo, task, say)


def _named(name: str) -> System:
    return next(system for system in load_systems() if system.name == name)


def with_bases(systems: Sequence[System]) -> list[System]:
    """``systems``, each after the system that it differs from (``against``), which another notebook may make too."""
    names = {name: None for system in systems for name in (system.against, system.name) if name}
    own = {system.name: system for system in systems}
    return [own.get(name) or _named(name) for name in names]


def make_sweep(run: Run, systems: Sequence[System], table: Sequence[System], say: Say = print) -> None:
    """Make ``systems`` one after the other, such as the points of the mixing ratio (L4M Fig. 4).

    Without ``keep_merges`` the weights of a merge go once the last system that starts from it is done: at 7B they fill
    a disk. Its YAML and record stay, from which it can be made again. Where another notebook or job makes a row of the
    whole ``table`` from it, it stays: it may be in use there at this moment.
    """
    asked = run.wanted or [system.name for system in systems]
    here = {system.name for system in systems if system.notebook == run.notebook and system.name in asked}
    elsewhere = {_merge_name(run, row) for row in table if row.name not in here}
    for place, system in enumerate(systems):
        make_system(run, system, say)
        name = _merge_name(run, system)
        needed = elsewhere | {_merge_name(run, later) for later in systems[place + 1 :]}
        if name is None or run.params.keep_merges or name in needed:
            continue
        folder = run.path("models", name)
        if not emptied(folder):
            empty(folder)
            say(f"merge {name}: weights deleted after their last use, by {system.name}")


def _merge_name(run: Run, system: System) -> str | None:
    merge = merge_of(system, system.params(run.params))
    return merge.name if merge else None
