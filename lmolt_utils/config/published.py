"""The papers' side of every table and figure: ``params/published.yaml``, and which way each metric is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

from lmolt_utils.config.prompts import Task
from lmolt_utils.config.reading import Strict, read_as
from lmolt_utils.paths import root

#: Half a step of the last printed digit of a table cell: what rounding may have hidden.
CELL_ROUNDING = 0.005
#: The system that the tables test the others against.
REFERENCE = "meditron"


@dataclass(frozen=True)
class Metric:
    """A metric of the papers: its task, the better direction, and whether it is a share."""

    name: str
    task: Task
    better: Literal["higher", "lower"] = "higher"
    within_0_and_1: bool = True

    @property
    def arrow(self) -> str:
        return "↑" if self.better == "higher" else "↓"


_METRICS = [
    *[Metric(name, "mol2cap") for name in ("BLEU-2", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR")],
    *[Metric(name, "cap2mol") for name in ("BLEU", "Exact")],
    Metric("Levenshtein", "cap2mol", better="lower", within_0_and_1=False),
    *[Metric(name, "cap2mol") for name in ("MACCS", "RDK", "Morgan")],
    Metric("FCD", "cap2mol", better="lower", within_0_and_1=False),
    Metric("Validity", "cap2mol"),
]
#: Every metric of the papers by name, in the papers' order (L4M, Appendix H; arrows of Tables 2 to 5).
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}


class RowRef(Strict):
    table: str
    row: str

    def __str__(self) -> str:
        return f"{self.row} ({self.table})"


class PublishedDelta(Strict):
    """A row of differences: ``of`` minus ``over``, one printed text (or none) per metric of its table."""

    label: str
    of: RowRef
    over: RowRef
    printed: list[str | None]


class PublishedTable(Strict):
    """One table as printed: per row one value (or None where the paper leaves a blank) per metric."""

    id: str
    title: str
    source: str
    task: Task
    metrics: list[str]
    rows: dict[str, list[float | None]]
    deltas: list[PublishedDelta]

    def value(self, row: str, name: str) -> float | None:
        """The printed value of a row and metric; None if there is no such row, column or number."""
        return dict(zip(self.metrics, self.rows.get(row, ()), strict=False)).get(name)


class Fact(Strict):
    """A number that a paper's text states about a figure: as printed, and as a value to plot."""

    printed: str
    value: float
    meaning: str
    source: str


class Published(Strict):
    tables: list[PublishedTable]
    facts: dict[str, Fact]

    def table(self, name: str) -> PublishedTable:
        return next(table for table in self.tables if table.id == name)

    def printed(self, rows: Mapping[str, str], metric: str) -> float | None:
        """What the papers' newest table prints for a system that is ``rows`` (table -> row label); None: nothing."""
        values = [self.table(table).value(label, metric) for table, label in rows.items()]
        return next((value for value in values if value is not None), None)


def load_published() -> Published:
    return _published(root() / "params" / "published.yaml")


@cache  # asked for at every number
def _published(path: Path) -> Published:
    return read_as(path, Published)


class SystemRow(Protocol):
    """What tables need of a system: ``rows`` has its row per table id; a row that the paper lacks is a control."""

    name: str
    label: str
    rows: dict[str, str]


def systems_by_row(table: PublishedTable, systems: Sequence[SystemRow]) -> dict[str, SystemRow]:
    """The system behind each row of ``table``; ValueError for a row claimed twice or misspelt."""
    placed: dict[str, SystemRow] = {}
    known = {_plain(row): row for row in table.rows}
    for system in (system for system in systems if table.id in system.rows):
        row = system.rows[table.id]
        meant = known.get(_plain(row), row)
        if meant != row:
            raise ValueError(f"system {system.name!r}: table {table.id} has no row {row!r}; did you mean {meant!r}?")
        if row in placed:
            raise ValueError(f"{placed[row].name!r} and {system.name!r} both claim row {row!r} of table {table.id}")
        placed[row] = system
    return placed


def _plain(label: str) -> str:
    """A label without case and punctuation, to tell a misspelt row from a control."""
    return "".join(character for character in label.casefold() if character.isalnum())


def pairs_to_test(systems: Sequence[SystemRow], task: Task, *, reference: str = REFERENCE) -> list[tuple[str, str]]:
    """The pairs of systems that the tables of ``task`` compare: each with ``reference``, and each delta's two."""
    tables = {table.id: table for table in load_published().tables if table.task == task}
    placed = {name: systems_by_row(table, systems) for name, table in tables.items()}
    names = [system.name for system in systems]
    pairs = [(name, reference) for name in names if name != reference and reference in names]
    for delta in (delta for table in tables.values() for delta in table.deltas):
        of, over = (placed[ref.table].get(ref.row) for ref in (delta.of, delta.over))
        if of is not None and over is not None:
            pairs.append((of.name, over.name))
    return list(dict.fromkeys(pairs))


def load_official() -> dict[str, dict[Task, dict[str, float]]]:
    """The shared task's official scores (``params/official.yaml``): submission -> task -> metric -> score."""
    return read_as(root() / "params" / "official.yaml", dict[str, dict[Task, dict[str, float]]])
