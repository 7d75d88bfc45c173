"""From a row of the systems table to its predictions: merge, train, predict, each once.

Notebooks 03 to 06 all go through :func:`make_system`; a row's init decides whether something is merged, its method
whether something is trained. A step is repeated only when its inputs, its parameters or its code changed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task, Template, baseline_prompt, prompt
from lmolt_utils.config.systems import PUBLISHED, System, load_systems
from lmolt_utils.data.sample import PAIR_COLUMNS, TEST_COLUMNS
from lmolt_utils.files import read_rows, write_rows
from lmolt_utils.merging.merges import Merge, make_merge, merge_of, with_weights
from lmolt_utils.models.generation import generate
from lmolt_utils.models.loading import Kind, fingerprintable
from lmolt_utils.models.postprocess import clean
from lmolt_utils.models.predictions import PREDICTION_COLUMNS, prediction_path
from lmolt_utils.run.notebook import Run
from lmolt_utils.training.adapters import load_trained
from lmolt_utils.training.recipes import Recipe
from lmolt_utils.training.trainers import train


@dataclass(frozen=True)
class Plan:
    """Everything about one system that its files depend on."""

    name: str
    init: str
    method: str
    recipe: Recipe
    merge: Merge | None
    base_model: str
    cap2mol_model: str
    mol2cap_model: str
    published_model: str | None
    baseline_prompt: str
    remote_code: tuple[str, ...]
    test_prompt: Template
    max_new_tokens: int
    generation_batch: int
    save_steps: int


def plan(run: Run, system: Any) -> Plan:
    """The plan of ``system`` (a row of the systems table) in ``run``, with the row's own settings applied."""
    params = system.params(run.params)
    recipe = Recipe(
        method=system.method, **{n: getattr(params, n) for n in Recipe.__dataclass_fields__ if n != "method"}
    )
    return Plan(
        name=system.name,
        init=system.init,
        method=system.method,
        recipe=recipe,
        merge=merge_of(system, params),
        base_model=params.base_model,
        cap2mol_model=params.cap2mol_model,
        mol2cap_model=params.mol2cap_model,
        published_model=getattr(params, PUBLISHED[system.init]) if system.init in PUBLISHED else None,
        baseline_prompt=params.baseline_prompt,
        remote_code=tuple(params.remote_code),
        test_prompt=params.test_prompt,
        max_new_tokens=params.max_new_tokens,
        generation_batch=params.generation_batch,
        save_steps=params.save_steps,
    )


def initial_model(run: Run, todo: Plan, task: Task, say: Callable[[str], None] = print) -> str:
    """The model that ``todo`` starts from for ``task`` (merging it if it is a merge): a folder or a hub id."""
    if todo.published_model is not None:
        return todo.published_model
    if todo.merge is None:
        own = {"cap2mol": todo.cap2mol_model, "mol2cap": todo.mol2cap_model}
        return own[task if todo.init == "per_task" else todo.init]
    return str(make_merge(run, todo.merge, say))


def make_system(run: Run, system: Any, say: Callable[[str], None] = print) -> None:
    """Merge, train and predict one system; says what was done, and what was up to date.

    A system that only differs at test time (``adapter_of``) is trained as that other one, unless it has been.
    """
    todo = plan(run, system)
    adapter = run.path("models", system.adapter_of) if todo.method != "none" else None
    if adapter is not None:
        trained = todo if adapter.name == todo.name else plan(run, _named(adapter.name))
        _train(run, trained, initial_model(run, trained, "cap2mol", say), adapter, say)
    for task in TASKS:
        _predict(run, todo, initial_model(run, todo, task, _quiet), adapter, task, say)


def _named(name: str) -> System:
    return next(system for system in load_systems() if system.name == name)


def with_bases(systems: Sequence[System]) -> list[System]:
    """``systems``, each after the system that it differs from (``against``), which another notebook may make too."""
    names = {name: None for system in systems for name in (system.against, system.name) if name}
    own = {system.name: system for system in systems}
    return [own.get(name) or _named(name) for name in names]


def _quiet(_: str) -> None:
    return None


def _train(run: Run, todo: Plan, initial: str, adapter: Path, say: Callable[[str], None]) -> None:
    pairs = run.path("data", "pairs.jsonl")
    log = run.path("logs", f"{todo.name}.training.jsonl")

    def make(work: Path) -> None:
        rows = read_rows(pairs, PAIR_COLUMNS)
        start = with_weights(todo.merge, initial)
        train(todo.recipe, start, rows, adapter, log, work, title=todo.name, say=say, save_steps=todo.save_steps)

    run.step(
        f"train {todo.name}",
        make,
        outputs=[adapter, log],
        params=todo.recipe.relevant(),
        inputs={"pairs": pairs, "initial": fingerprintable(initial)},
        say=say,
    )


def _asked(todo: Plan, task: Task, text: str) -> str:
    if todo.published_model is not None:
        return baseline_prompt(todo.init, todo.baseline_prompt, task, text)
    return prompt(task, text, todo.test_prompt)


def _predict(run: Run, todo: Plan, initial: str, adapter: Path | None, task: Task, say: Callable[[str], None]) -> None:
    test = run.path("data", "test.jsonl")
    output = prediction_path(run, todo.name, task)

    def make(_: Path) -> None:
        kind: Kind = "translator" if todo.init == "txtchem" else "causal"
        machine = {name: getattr(todo.recipe, name) for name in ("device", "dtype", "quantize")}
        code = initial in todo.remote_code
        model, tokenizer = load_trained(
            with_weights(todo.merge, initial), adapter, kind=kind, remote_code=code, **machine
        )
        rows = read_rows(test, TEST_COLUMNS)
        columns = ("molecule", "caption") if task == "mol2cap" else ("caption", "molecule")
        source, reference = rows[columns[0]], rows[columns[1]]
        raw = generate(
            model,
            tokenizer,
            [_asked(todo, task, text) for text in source],
            max_new_tokens=todo.max_new_tokens,
            batch_size=todo.generation_batch,
            title=f"{todo.name} {task}",
        )
        frame = pd.DataFrame({"id": rows["id"], "task": task, "source": source, "reference": reference, "raw": raw})
        frame["prediction"] = [clean(text) for text in raw]
        write_rows(output, frame[list(PREDICTION_COLUMNS)])

    inputs: dict[str, Path | str] = {"test": test, "initial": fingerprintable(initial)}
    if adapter is not None:
        inputs["adapter"] = adapter
    run.step(
        f"predict {todo.name} {task}",
        make,
        outputs=[output],
        params={
            "task": task,
            "prompt": todo.test_prompt if todo.published_model is None else todo.baseline_prompt,
            "max_new_tokens": todo.max_new_tokens,
            "generation_batch": todo.generation_batch,
            "dtype": todo.recipe.dtype,
            "quantize": todo.recipe.quantize,
            "device": todo.recipe.device,
        },
        inputs=inputs,
        say=say,
    )
