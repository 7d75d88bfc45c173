"""``logs/runs.jsonl`` of a run: one line per execution of a notebook or of ``lmolt reproduce``, and how it ended."""

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmolt_utils.errors import exit_status


def note(folder: Path, what: str, began: float, error: BaseException | None = None, **facts: Any) -> None:
    """Add a line: ``status`` is done, failed or interrupted; ``exit`` the status that the command line would have."""
    code = 0 if error is None else exit_status(error)
    line = {"what": what, "status": {0: "done", 130: "interrupted"}.get(code, "failed"), "exit": code, **facts}
    line["error"] = None if error is None else f"{type(error).__name__}: {error}".splitlines()[0][:500]
    line["began"] = datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds")
    line["seconds"] = round(time.time() - began, 1)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with open(folder / "logs" / "runs.jsonl", "a+b") as file:
        file.seek(max(file.tell() - 1, 0))
        torn = file.read() not in (b"", b"\n")  # a full disk or a kill left half a line
        file.write((b"\n" if torn else b"") + json.dumps(line, ensure_ascii=False).encode() + b"\n")


def notes(folder: Path, since: float = 0.0) -> list[dict[str, Any]]:
    """The lines about executions that began at ``since`` or later; not those that a kill or a full disk cut short."""
    path, first = folder / "logs" / "runs.jsonl", datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with suppress(ValueError):
            found.append(json.loads(line))
    return [one for one in found if one["began"] >= first]
