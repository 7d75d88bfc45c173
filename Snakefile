# One rule per notebook. `make reproduce` runs it. 06 makes as many systems as 03 to 05 together: where the
# profile's ablation_jobs says so, jobs side by side make them before it, and it only shows them; with
# `lmolt reproduce --per-system` every system of every notebook has a job of its own (for clusters; see profiles of
# snakemake-executor-plugin-slurm).
#
# A rule runs when its notebook, the package files it imports, the parameters it lists or an earlier notebook's
# files changed; Snakemake prints the reason. Its output is a receipt, in the run's folder (Snakemake's --directory):
# the hashes of the files it wrote and of what they were made from (which a copied or moved run is checked by).
# On a GPU one notebook runs at a time (`--resources gpu=1`): a 7B model fills it.
import shlex
import sys

from lmolt_utils.run.notebook_files import AFTER, NOTEBOOKS, notebook_params, notebook_path, package_sources
from lmolt_utils.run.runner import jobs_of_systems

PROFILE = config.get("profile", "cpu")
PER_SYSTEM = str(config.get("per_system", False)) == "True"
# exec: a signal sent to the job reaches Python itself, and Python sees it when Snakemake is killed.
LMOLT = f"exec {shlex.quote(sys.executable)} -m lmolt_utils.cli"


def receipt(notebook):
    return f"receipts/{notebook}.json"


JOBS = jobs_of_systems(PROFILE, per_system=PER_SYSTEM)


def sources(notebook):
    """Its source, the package files it uses, and what it reads."""
    return [str(notebook_path(notebook)), *package_sources(notebook), *map(receipt, AFTER[notebook])]


def made_before(notebook):
    """Receipts of its systems that jobs of their own make."""
    return [receipt(f"{name}.system") for maker, names in JOBS.values() if maker == notebook for name in names]


def uses(notebook):
    return notebook_params(notebook, PROFILE)


# Every one, not the last alone: Snakemake does not miss a file in the middle as long as the later ones are there.
rule all:
    input:
        map(receipt, NOTEBOOKS),


# The longest notebooks first, so that two cores end together.
for notebook, priority in zip(NOTEBOOKS, (0, 0, 1, 2, 3, 4, 0, 0)):

    rule:
        name:
            f"nb{notebook}"
        input:
            sources(notebook),
            made_before(notebook),
        output:
            receipt(notebook),
        params:
            name=notebook,
            values=uses(notebook),
        priority: priority
        threads: 1
        resources:
            gpu=1,
        shell:
            f"{LMOLT} notebook {{params.name}} --profile {PROFILE} --end-with-parent"


for job, (notebook, names) in JOBS.items():

    rule:
        name:
            f"made{job}"
        input:
            sources(notebook),
        output:
            [receipt(f"{name}.system") for name in names],
        params:
            notebook=notebook,
            names=names,
            values=uses(notebook),
        priority: 5
        threads: 1
        resources:
            gpu=1,
        shell:
            f"{LMOLT} notebook {{params.notebook}} --profile {PROFILE} --end-with-parent --systems {{params.names}}"
