"""Score every system that has predictions: metrics, per-row values, entailment."""

from collections.abc import Sequence
from pathlib import Path

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.systems import System
from lmolt_utils.files import fingerprint, read_rows, write_json, write_rows
from lmolt_utils.metrics.featurise import Featuriser
from lmolt_utils.metrics.intervals import intervals, write_statistics
from lmolt_utils.metrics.scoring import Scorer
from lmolt_utils.models.predictions import PREDICTION_COLUMNS, prediction_path, rule_of
from lmolt_utils.paths import from_root
from lmolt_utils.run.notebook import Run


def predicted(run: Run, systems: Sequence[System]) -> list[System]:
    """The systems whose predictions for both tasks are there."""
    return [s for s in systems if all(prediction_path(run, s.name, task).exists() for task in TASKS)]


def scorer(run: Run) -> Scorer:
    """A scorer with the run's settings; one for all systems parses and featurises each molecule once."""
    return Scorer(from_root(run.params.caption_tokenizer), run.params.invalid, featuriser=Featuriser())


def score_systems(run: Run, systems: Sequence[System]) -> None:
    """All metrics of all systems on both tasks, each step skipped where it is up to date."""
    shared = scorer(run)
    for system in systems:
        for task in TASKS:
            score_system(run, system, task, shared)


def score_system(run: Run, system: System, task: Task, shared: Scorer | None = None) -> None:
    """All metrics of one system on one task: ``scores/<system>.<task>.json``, its rows and per-row statistics
    beside it.

    Scored are the raw outputs after the system's rule for post-processing. ``shared``: the scorer of the systems
    before. What "auto" means for tokenizer and METEOR is part of what the scores are known by: when SciBERT or WordNet
    appears, they are made again.
    """
    used = shared or scorer(run)
    predictions = prediction_path(run, system.name, task)
    whole = run.path("scores", f"{system.name}.{task}.json")
    rows = run.path("scores", f"{system.name}.{task}.samples.jsonl")
    statistics = run.path("scores", f"{system.name}.{task}.statistics.npz")

    def make(_: Path) -> None:
        frame = read_rows(predictions, PREDICTION_COLUMNS)
        result = used.score(frame, task, rule=rule_of(run, system))
        found = {name: interval.to_dict() for name, interval in intervals(result).items()}
        made_from = {"system": system.name, "predictions": fingerprint(predictions)}
        write_json(whole, {**made_from, **result.to_dict(), "intervals": found})
        write_rows(rows, result.samples)
        write_statistics(statistics, result.statistics)

    settings = used.caption_conventions() if task == "mol2cap" else {"invalid": run.params.invalid}
    run.step(
        f"score {system.name} {task}",
        make,
        outputs=[whole, rows, statistics],
        params={**settings, "postprocess": rule_of(run, system)},
        inputs={"predictions": predictions},
        say=_only_news,
    )


def _only_news(line: str) -> None:
    if not line.endswith("up to date"):
        print(line)
