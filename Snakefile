# One rule per notebook. `make reproduce` runs it; `lmolt reproduce --per-system` trains each system in a job of its
# own first (for clusters; see profiles of snakemake-executor-plugin-slurm), and the notebooks then only show it.
#
# A rule runs when its notebook, the package files it imports, the parameters it lists or an earlier notebook's
# files changed; Snakemake prints the reason. Its output is a receipt: the hashes of the files it wrote.
import sys

from lmolt_utils.notebook import NOTEBOOKS, notebook_path
from lmolt_utils.runner import AFTER, notebook_params, package_sources, receipt_path
from lmolt_utils.systems import load_systems

PROFILE = config.get("profile", "cpu")
PER_SYSTEM = str(config.get("per_system", False)) == "True"
MAKERS = {system.name: system.notebook for system in load_systems() if system.init != "baseline"}  # no job of seconds
LMOLT = f"{sys.executable} -m lmolt_utils.cli"


def receipt(notebook):
    return str(receipt_path(PROFILE, notebook))


def needs(notebook):
    """Its source, the package files it uses, what it reads; its systems where each is a job of its own."""
    files = [str(notebook_path(notebook)), *package_sources(notebook), *map(receipt, AFTER[notebook])]
    if PER_SYSTEM:
        files += [receipt(f"{name}.system") for name, maker in MAKERS.items() if maker == notebook]
    return files


def uses(notebook):
    return notebook_params(notebook, PROFILE)


rule all:
    input:
        receipt("08_figures"),


# The longest notebooks first, so that two cores end together.
for notebook, priority in zip(NOTEBOOKS, (0, 0, 1, 2, 3, 4, 0, 0)):

    rule:
        name:
            f"nb{notebook}"
        input:
            needs(notebook),
        output:
            receipt(notebook),
        params:
            name=notebook,
            values=uses(notebook),
        priority: priority
        threads: 1
        shell:
            f"{LMOLT} notebook {{params.name}} --profile {PROFILE}"


rule system:
    input:
        lambda wildcards: needs_system(wildcards.system),
    output:
        receipt("{system}.system"),
    params:
        maker=lambda wildcards: MAKERS[wildcards.system],
        values=lambda wildcards: uses(MAKERS[wildcards.system]),
    threads: 1
    shell:
        f"{LMOLT} notebook {{params.maker}} --profile {PROFILE} --systems {{wildcards.system}}"


def needs_system(name):
    notebook = MAKERS[name]
    return [str(notebook_path(notebook)), *package_sources(notebook), *map(receipt, AFTER[notebook])]
