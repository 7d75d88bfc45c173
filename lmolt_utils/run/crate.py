"""``lmolt crate RUN_FOLDER OUT``: a run as a Workflow Run RO-Crate 0.5, made from its provenance records.

The whole run is one action of the Snakefile; each step is an action of the notebook that it belongs to.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmolt_utils.errors import CompanionError
from lmolt_utils.files import fingerprint
from lmolt_utils.paths import root, shown
from lmolt_utils.run.notebook import read_notebook_record
from lmolt_utils.run.notebooks import NOTEBOOKS, notebook_path
from lmolt_utils.run.steps import output_path, record_path, records

_PROFILES = [f"https://w3id.org/ro/wfrun/{name}/0.5" for name in ("process", "workflow")]
_PROFILES.append("https://w3id.org/workflowhub/workflow-ro-crate/1.0")
_LICENCE = "https://spdx.org/licenses/Apache-2.0"


def write_crate(folder: Path, out: Path) -> int:
    """Copy a run with its metadata to ``out``, a new folder or a ``.zip``; what is missing or changed is named."""
    try:
        from rocrate.model.contextentity import ContextEntity
        from rocrate.rocrate import ROCrate
    except ImportError:
        raise CompanionError("lmolt crate needs rocrate: pip install -e '.[crate]'") from None
    steps = records(folder)
    if not steps:
        raise CompanionError(f"{folder} has no provenance records: name the folder of a run, such as runs/cpu")
    if out.exists():
        raise CompanionError(f"{out} is there already: name a new folder or .zip")
    finished = [read_notebook_record(folder, name) for name in NOTEBOOKS]
    doubts: list[str] = []
    crate = ROCrate(version="1.1")  # what the profiles build on
    crate.metadata.extra_terms["sha256"] = "https://w3id.org/ro/terms/workflow-run#sha256"  # 1.1 has no such term

    def entity(kind: str, identifier: str, **facts: Any) -> Any:
        return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **facts}))

    def kept(path: Path, name: str, digest: str) -> list[Any]:
        """The entity of a file or folder; none, and a doubt, where it is not there."""
        if not path.exists():
            doubts.append(f"missing: {name}")
            return []
        if fingerprint(path) != digest:
            doubts.append(f"changed after it was made: {name}")
        if (known := crate.get(name + ("/" if path.is_dir() else ""))) is not None:
            return [known]
        add = crate.add_directory if path.is_dir() else crate.add_file
        return [add(path, name, properties={"name": name, "sha256": digest})]

    commits = sorted({record["code"]["commit"] for record in steps.values()})
    workflow = crate.add_workflow(root() / "Snakefile", "Snakefile", main=True, lang="snakemake")
    workflow["version"] = commits
    code = {"@type": ["File", "SoftwareSourceCode"], "programmingLanguage": "Python"}
    sources = {
        name: crate.add_file(notebook_path(name), f"notebooks/{name}.ipynb", properties={"name": name, **code})
        for name in NOTEBOOKS
    }
    made: dict[str, list[Any]] = {}
    for first, record in steps.items():
        for name, digest in record["outputs"].items():
            path = output_path(first, name)
            made[digest] = kept(path, f"run/{path.relative_to(folder).as_posix()}", digest)
    for first, record in steps.items():
        ended = record_path(first).stat().st_mtime
        action = entity(
            "CreateAction",
            f"#{record['step'].replace(' ', '-')}",
            name=record["step"],
            description=f"code: {record['code']['module']} at {record['code']['commit']}; {record['peak_mb']} MB",
            startTime=_time(ended - record["wall_s"]),
            endTime=_time(ended),
            actionStatus="http://schema.org/CompletedActionStatus",
        )
        action["instrument"] = sources.get(record["notebook"], workflow)
        action["result"] = [one for digest in record["outputs"].values() for one in made[digest]]
        settings = [
            entity("PropertyValue", f"{action.id}-{name}", name=name, value=str(value))
            for name, value in record["key"]["params"].items()
        ]
        action["object"] = settings + [
            one for digest in record["key"]["inputs"].values() for one in made.get(digest, [])
        ]
    profile = folder.name.partition("+")[0]
    figures = (finished[-1] or {"files": {}})["files"]
    whole = entity("CreateAction", "#run", name=f"lmolt reproduce --profile {profile}")
    whole["instrument"] = workflow
    whole["object"] = [crate.add_file(root() / "params" / f"{profile}.yaml", f"params/{profile}.yaml")]
    found = {name: folder / name if (folder / name).exists() else root() / name for name in figures}
    whole["result"] = [one for name, digest in figures.items() for one in kept(found[name], name, digest)]
    times = [record_path(first).stat().st_mtime for first in steps]
    whole["startTime"], whole["endTime"] = _time(min(times)), _time(max(times))
    missing = [name for name, record in zip(NOTEBOOKS, finished, strict=True) if record is None]
    doubts += [f"not run: {name}" for name in missing]
    whole["actionStatus"] = f"http://schema.org/{'Failed' if missing else 'Completed'}ActionStatus"
    root_set = crate.root_dataset
    root_set["name"] = f"Run of profile {profile}"
    root_set["description"] = "; ".join(doubts) or "Complete: every file is what its step wrote."
    root_set["license"] = entity("CreativeWork", _LICENCE, name="Apache-2.0", description="Apache License 2.0")
    uris = [(uri, *uri.split("/")[-2:]) for uri in _PROFILES]
    root_set["conformsTo"] = [entity("CreativeWork", uri, name=name, version=version) for uri, name, version in uris]
    root_set["mentions"] = [one for one in crate.contextual_entities if one.type == "CreateAction"]
    (crate.write_zip if out.suffix == ".zip" else crate.write)(out)
    print(f"{shown(out)}: {len(steps)} steps, {len(list(crate.data_entities))} files and folders", *doubts, sep="\n  ")
    return 0


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
