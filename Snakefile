# One rule per notebook: the shell line is papermill, its output is the executed notebook. Snakemake decides when a
# notebook is executed; what is done again inside it is decided by its steps (lmolt_utils/run/steps.py).
#
# `lmolt reproduce` starts this with profiles/default or profiles/gpu, in the run's folder (--directory). Resources by
# rule name (nb01_data to nb08_figures, part; docs/cluster.md) are in profiles/*/config.yaml. 06 makes as many systems
# as 03 to 05 together: where the profile's ablation_jobs says so, executions narrowed to some of its systems run side
# by side before it (rule part); `--per-system` gives every system of every notebook one, for clusters.
import shlex
import sys

from lmolt_utils.config.params import load
from lmolt_utils.paths import root
from lmolt_utils.run.notebooks import AFTER, NOTEBOOKS, depends_on, notebook_path, package_hash, parts, rows_of

PROFILE = config.get("profile", "cpu")
PARAMS = load(PROFILE)
PARTS = parts(PROFILE, per_system=str(config.get("per_system", False)) == "True")
# exec: a signal sent to the job reaches papermill itself (lmolt_utils/run/execute.py), which passes it to its kernel.
CODE = package_hash()
PAPERMILL = f"exec {shlex.quote(sys.executable)} -m lmolt_utils.run.execute"
OPTIONS = f"--cwd {shlex.quote(str(root()))} --log-output --no-progress-bar -p profile {PROFILE}"


def executed(notebooks):
    return [f"notebooks/{notebook}.ipynb" for notebook in notebooks]


def made_from(notebook):
    """What its files depend on besides files: when one of these changes it runs again."""
    rows = [row.model_dump() for row in rows_of(notebook, PARAMS)]
    return {**depends_on(notebook, PARAMS), "systems": rows, "seeds": PARAMS.seeds if rows else [], "code": CODE}


rule all:
    input:
        executed(NOTEBOOKS),


for notebook in NOTEBOOKS:

    rule:
        name:
            f"nb{notebook}"
        input:
            executed(AFTER[notebook]),
            executed(f"parts/{part}" for part, (maker, _) in PARTS.items() if maker == notebook),
            source=str(notebook_path(notebook)),
        output:
            executed([notebook]),
        log:
            f"logs/{notebook}.log",
        priority: 2  # before the parts of 06: what those differ from is there then, and no execution waits for another
        params:
            made_from=made_from(notebook),
        shell:
            f"{PAPERMILL} {{input.source:q}} {{output}} {OPTIONS} >{{log}} 2>&1"


rule part:
    input:
        lambda wildcards: executed(AFTER[PARTS[wildcards.part][0]]),
        source=lambda wildcards: str(notebook_path(PARTS[wildcards.part][0])),
    output:
        "notebooks/parts/{part}.ipynb",
    priority: 1
    log:
        "logs/{part}.log",
    params:
        made_from=lambda wildcards: made_from(PARTS[wildcards.part][0]),
        systems=lambda wildcards: shlex.quote(",".join(PARTS[wildcards.part][1])),
    shell:
        f"{PAPERMILL} {{input.source:q}} {{output}} {OPTIONS} -p systems {{params.systems}} >{{log}} 2>&1"
