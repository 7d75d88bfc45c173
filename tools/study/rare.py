"""What models answer where a table knows little: ``python -m tools.study.rare``.

Their predictions on each test set that was run (``runs/study`` and its variants), scored as the baselines are: over all
rows, over one molecule of each property set, and over the rows whose property set is rare in training. Writes
``figures/study/rare.csv``.
"""

import pandas as pd

from lmolt_utils.config.params import load
from lmolt_utils.config.prompts import TASKS
from lmolt_utils.config.systems import load_systems
from lmolt_utils.data.captioner import kept_tree, reader
from lmolt_utils.data.molecules import molecules
from lmolt_utils.files import read_rows
from lmolt_utils.models.predictions import PREDICTION_COLUMNS, prediction_path
from lmolt_utils.paths import run_folder
from lmolt_utils.run.notebook import Run
from tools.study import save_table
from tools.study.backbones import corpus
from tools.study.baselines import COLUMNS, TEST_SETS, Measure, views


def main() -> None:
    params, frame = load("study"), corpus()
    training, measure = frame[frame["split"] == "train"], Measure(reader(kept_tree(run_folder("study", {}) / "data")))
    seen, found = {one.canonical for one in molecules(training["molecule"])}, []
    for test_set in TEST_SETS:
        overrides = {} if test_set == params.test_set else {"test_set": test_set}
        run = Run("07_nli_evaluation", run_folder("study", overrides), params)
        if not (path := run.path("data", "test.jsonl")).exists():
            continue
        tested = read_rows(path, ("id", "molecule", "caption", "properties"))
        masks = views(tested, training["properties"])
        for system in load_systems():
            for task in TASKS:
                if system.init == "baseline" or not (path := prediction_path(run, system.name, task)).exists():
                    continue
                answers = read_rows(path, PREDICTION_COLUMNS).set_index("id")["prediction"].loc[tested["id"]]
                for view, mask in masks.items():
                    rows = tested[mask].reset_index(drop=True)
                    scored = measure(task, rows, answers[mask].astype(str).tolist(), seen)
                    found.append(scored.assign(test_set=test_set, rows=view, system=system.name, task=task))
                print(f"{test_set}, {system.name}, {task}: done", flush=True)
    save_table("rare", pd.concat(found)[[name for name in COLUMNS if name != "sample_share"]])


if __name__ == "__main__":
    main()
