"""The papers' side of every table and figure: ``params/published.yaml``, and which way each metric is better."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self

from pydantic import ValidationError, model_validator

from lmolt_utils.config.prompts import Task
from lmolt_utils.config.reading import ParameterError, Strict, explain, nearest, read_yaml
from lmolt_utils.paths import root

#: Half a step of the last printed digit of a table cell: what rounding may have hidden.
CELL_ROUNDING = 0.005
#: The system that the tables test the others against.
REFERENCE = "meditron"

_PRINTED = re.compile(r"[+-]?\d+(?:\.(?P<decimals>\d+))?(?P<percent>%)?")


@dataclass(frozen=True)
class Metric:
    """A metric of the papers: its task, the better direction, and its unit ('' for a share of 1)."""

    name: str
    task: Task
    better: Literal["higher", "lower"] = "higher"
    unit: str = ""

    @property
    def within_0_and_1(self) -> bool:
        return not self.unit

    @property
    def arrow(self) -> str:
        return "↑" if self.better == "higher" else "↓"


_METRICS = [
    *[Metric(name, "mol2cap") for name in ("BLEU-2", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR")],
    Metric("BLEU", "cap2mol"),
    Metric("Exact", "cap2mol"),
    Metric("Levenshtein", "cap2mol", better="lower", unit="character edits"),
    *[Metric(name, "cap2mol") for name in ("MACCS", "RDK", "Morgan")],
    Metric("FCD", "cap2mol", better="lower", unit="Fréchet distance"),
    Metric("Validity", "cap2mol"),
]
#: Every metric of the papers by name, in the papers' order (L4M, Appendix H; arrows of Tables 2 to 5).
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}


def metric(name: str) -> Metric:
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}{nearest(name, METRICS)}")
    return METRICS[name]


class PrintedDelta(NamedTuple):
    """A delta as the paper prints it: ``+7.33%`` is value 7.33, 2 decimals, with a per cent sign."""

    value: float
    decimals: int
    percent: bool


def parse_printed(text: str) -> PrintedDelta:
    match = _PRINTED.fullmatch(text)
    if match is None:
        raise ValueError(f"printed delta {text!r} is not a signed number such as '+7.33%' or '-0.01'")
    return PrintedDelta(float(text.rstrip("%")), len(match["decimals"] or ""), match["percent"] is not None)


class RowRef(Strict):
    """One row of one published table."""

    table: str
    row: str

    def __str__(self) -> str:
        return f"{self.row} ({self.table})"


class PublishedDelta(Strict):
    """A row of differences: ``of`` minus ``over``, one printed text (or None) per metric of its table."""

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

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        for name in self.metrics:
            if metric(name).task != self.task:
                raise ValueError(f"table {self.id}: metric {name!r} belongs to {metric(name).task}")
        lengths = {label: len(values) for label, values in self.rows.items()}
        lengths |= {f"delta {delta.label}": len(delta.printed) for delta in self.deltas}
        for label, length in lengths.items():
            if length != len(self.metrics):
                raise ValueError(f"table {self.id}, {label}: {length} values for {len(self.metrics)} metrics")
        for text in (text for delta in self.deltas for text in delta.printed if text is not None):
            parse_printed(text)
        return self

    def value(self, row: str, name: str) -> float | None:
        """The printed value of a row and metric; None if there is no such row, column or number."""
        if row not in self.rows or name not in self.metrics:
            return None
        return self.rows[row][self.metrics.index(name)]


class Fact(Strict):
    """A number that a paper's text states about a figure: as printed, and as a value to plot."""

    printed: str
    value: float
    meaning: str
    source: str


class Published(Strict):
    """Everything in ``params/published.yaml``."""

    tables: list[PublishedTable]
    facts: dict[str, Fact]

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        ids = [table.id for table in self.tables]
        if len(set(ids)) < len(ids):
            raise ValueError(f"a table id occurs twice: {', '.join(ids)}")
        for table in self.tables:
            for delta in table.deltas:
                for ref in (delta.of, delta.over):
                    if ref.row not in self.table(ref.table).rows:
                        raise ValueError(f"table {table.id}, delta {delta.label}: there is no row {ref}")
        return self

    def table(self, table_id: str) -> PublishedTable:
        known = {table.id: table for table in self.tables}
        if table_id not in known:
            raise ValueError(f"there is no published table {table_id!r} (there are: {', '.join(known)})")
        return known[table_id]

    def fact(self, name: str) -> Fact:
        if name not in self.facts:
            raise ValueError(f"unknown fact {name!r}{nearest(name, self.facts)}")
        return self.facts[name]


def load_published(path: Path | None = None) -> Published:
    """The published values, by default this repository's; raises ParameterError where rows or references do not fit."""
    path = path or root() / "params" / "published.yaml"
    try:
        return Published.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ParameterError(f"{path}: {explain(error, Published, 'field')}") from None


class SystemRow(Protocol):
    """What tables need of a system: ``rows`` has its row per table id; a row that the paper lacks is a control."""

    name: str
    label: str
    rows: dict[str, str]


def systems_by_row(table: PublishedTable, systems: Sequence[SystemRow]) -> dict[str, SystemRow]:
    """The system behind each row of ``table``, controls last, in the systems' order.

    Raises ValueError when two systems claim one row, or when a row is a published one misspelt.
    """
    placed: dict[str, SystemRow] = {}
    known = {_plain(row): row for row in table.rows}
    for system in systems:
        row = system.rows.get(table.id)
        if row is None:
            continue
        meant = known.get(_plain(row), row)
        if meant != row:
            raise ValueError(f"system {system.name!r}: table {table.id} has no row {row!r}; did you mean {meant!r}?")
        if row in placed:
            raise ValueError(f"{placed[row].name!r} and {system.name!r} both claim row {row!r} of table {table.id}")
        placed[row] = system
    return placed


def _plain(label: str) -> str:
    """A label without case, spaces and punctuation, to tell a misspelt row from a control."""
    return "".join(character for character in label.casefold() if character.isalnum())


def pairs_to_test(systems: Sequence[SystemRow], task: Task, *, reference: str = REFERENCE) -> list[tuple[str, str]]:
    """The pairs of systems that the tables of ``task`` compare: each with ``reference``, and each delta's two."""
    tables = {table.id: table for table in load_published().tables if table.task == task}
    placed = {name: systems_by_row(table, systems) for name, table in tables.items()}
    pairs = [(system.name, reference) for system in systems]
    for table in tables.values():
        for delta in table.deltas:
            of, over = (placed[ref.table].get(ref.row) for ref in (delta.of, delta.over))
            if of is not None and over is not None:
                pairs.append((of.name, over.name))
    known = {system.name for system in systems}
    return [pair for pair in dict.fromkeys(pairs) if set(pair) <= known and pair[0] != pair[1]]
