"""Made-up inputs, the same at every run, through every loader: each is read, or refused in one clear message.

820 examples in all. What is not a CompanionError that names the file, or takes longer than ten seconds, fails.
"""

import gzip
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lmolt_utils.cli import main
from lmolt_utils.config.params import load
from lmolt_utils.config.published import load_published
from lmolt_utils.config.switches import switches
from lmolt_utils.config.systems import load_systems
from lmolt_utils.data.rows import load as load_corpus
from lmolt_utils.data.rows import read_rows_of
from lmolt_utils.data.sources import Source
from lmolt_utils.errors import CompanionError
from lmolt_utils.figures.claims import load_claims
from lmolt_utils.figures.nli import read_author_scores
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.metrics.prediction_files import read_captions, read_predictions
from lmolt_utils.paths import root


def examples(number: int) -> settings:
    """The same ``number`` of examples at every run, ten seconds for each."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=timedelta(seconds=10),
        suppress_health_check=quiet,
        phases=[Phase.generate, Phase.shrink],
    )


#: What a damaged or foreign file may hold anywhere.
ODD = [
    b"\0", b"\r", b"\n", b"\n\n", b'"', b"'", b"\t", b",", b";", b"|", b"\\", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800",
    b"\xef\xbb\xbf", b"\x1f\x8b", b"PK\x03\x04", b"NaN", b"1e999", b"null", b"true", b"-1", b"[1]", b"{}", b"[" * 3000,
    b"{'a': " * 300, b"9" * 5000, "é\u2028".encode(), b"<script>", b"${x}", b"../../x", b"C" * 6000, b"&a *a",
    b"!!int ", b": ", b"- ",
]  # fmt: skip
change = st.tuples(
    st.sampled_from(["cut", "drop", "put", "flip", "repeat"]), st.integers(0, 4000), st.sampled_from(ODD)
)


def changed(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """A good file after some accidents."""
    for kind, place, odd in changes:
        at = place % (len(data) + 1)
        if kind == "cut":
            data = data[:at]
        elif kind == "drop":
            data = data[:at] + data[at + len(odd) :]
        elif kind == "put":
            data = data[:at] + odd + data[at:]
        elif kind == "repeat":
            data = data[:at] + data[max(0, at - 40) : at] * 3 + data[at:]
        elif at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << len(odd) % 8]) + data[at + 1 :]
    return data


def accidents(*good: tuple[str, bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
    """A name and what the file of this name holds: one of the ``good`` ones, changed one to four times."""
    one = st.tuples(st.sampled_from(good), st.lists(change, min_size=1, max_size=4))
    return one.map(lambda drawn: (drawn[0][0], changed(drawn[0][1], drawn[1])))


def zipped(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return packed.getvalue()


def tables(*rows: dict[str, str]) -> list[tuple[str, bytes]]:
    """The same rows in every format that is read."""
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    tsv, csv = ("\n".join(mark.join(row) for row in cells).encode() for mark in "\t,")
    files = [("a.jsonl", lines), ("a.json", json.dumps(rows).encode()), ("a.csv", csv), ("a.tsv", tsv), ("a.txt", tsv)]
    return [*files, ("a.csv.gz", gzip.compress(csv, mtime=0)), ("a.zip", zipped("a.tsv", tsv))]


text = st.text(max_size=30) | st.sampled_from(
    ["CCO", "c1ccccc1O", "It is sweet.", "", "mol2cap", "train", "['a', 'b']"]
)
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


def objects(*names: str) -> st.SearchStrategy[tuple[str, bytes]]:
    """JSON lines and arrays whose known names hold anything."""
    rows = st.lists(st.dictionaries(st.sampled_from(names) | text, value, max_size=5), max_size=5)
    lines = rows.map(lambda found: ("a.jsonl", "\n".join(map(json.dumps, found)).encode()))
    return lines | rows.map(lambda found: ("a.json", json.dumps(found).encode()))


ENDINGS = ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.parquet", "a.zip", "a.csv.gz", "train_props.txt", "a"]
anything = st.tuples(st.sampled_from(ENDINGS), st.binary(max_size=60) | st.text(max_size=60).map(str.encode))


def refused_or_read(read: Callable[[Path], Any], folder: Path, file: tuple[str, bytes]) -> None:
    path = folder / file[0]
    path.write_bytes(file[1])
    told = ""
    try:
        read(path)
    except CompanionError as error:
        told = str(error)
    places = path.name in told or told.startswith(("parameter", "unknown parameter"))
    assert places or not told, f"the message does not say where: {told}"
    assert max(map(len, told.split("\n"))) < 1500, "the message shows the whole input"


PREDICTIONS = accidents(
    *tables(
        {"id": "1", "task": "mol2cap", "reference": "It is sweet.", "prediction": "It is a drug."},
        {"id": "2", "task": "mol2cap", "reference": "It is a dye.", "prediction": "It is é, sweet."},
    ),
    *tables({"SMILES": "CCO", "ground truth": "It is sweet.", "output": "It is sweet."}),
)
PREDICTION_OBJECTS = objects("id", "task", "reference", "raw", "prediction", "output", "smiles")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made up")


@examples(60)
@given(file=PREDICTIONS | PREDICTION_OBJECTS, task=st.sampled_from(["mol2cap", "cap2mol"]))
def test_score_ends_in_a_number_or_in_a_message(folder: Path, file: tuple[str, bytes], task: str) -> None:
    path = folder / file[0]
    path.write_bytes(file[1])
    assert main(["score", str(path), "--task", task]) in (0, 2)


CORPORA = accidents(
    *tables(
        {"molecule": "CCO", "caption": "It is sweet.", "properties": "sweet|dye", "split": "train"},
        {"molecule": "CCN", "caption": "It is a dye.", "properties": "dye", "split": "test"},
    ),
    *tables({"smiles": "CCO", "description": "It is sweet."}),
    ("train_props.txt", b"CCO\t['sweet', 'dye']\nCCN\t['dye']\n"),
    ("additional_data.zip", zipped("molecule_properties.txt", b"CCO\t{'sweet', 'dye'}\nCCN\t{'dye'}\n")),
)


VOCABULARY = b'{"biomedical": {"antis": ["anti viral"], "drug": {}}, "other": ["dye", "sweet"]}'
SCORES = b"score,length,group\n0.5,3,Meditron\n0.25,-1,CPO-Meditron_Lan\n"
#: Examples, files and the loaders that read them.
LOADERS: dict[str, tuple[int, Any, list[Callable[[Path], Any]]]] = {
    "predictions": (200, PREDICTIONS | PREDICTION_OBJECTS, [read_predictions, read_captions]),
    "corpora": (
        200,
        CORPORA | objects("molecule", "smiles", "caption", "properties", "split"),
        [read_rows_of, lambda path: load_corpus(Source(str(path)))],
    ),
    "vocabularies": (
        60,
        accidents(("nested_props.json", VOCABULARY), ("names.txt", b"dye\nsweet\n")) | objects("drug", "dye"),
        [Vocabulary.read],
    ),
    "author scores": (60, accidents(("smiles2caption.txt", SCORES)), [read_author_scores]),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_file_is_read_or_refused(folder: Path, name: str) -> None:
    number, files, loaders = LOADERS[name]

    @examples(number)
    @given(file=files | anything)
    def one(file: tuple[str, bytes]) -> None:
        for read in loaders:
            refused_or_read(read, folder, file)

    one()


@pytest.fixture(scope="module")
def repository(folder: Path) -> Iterator[Path]:
    """A repository that has params/ alone."""
    switches()  # of the real one
    shutil.copytree(root() / "params", folder / "params")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMOLT_ROOT", str(folder))
        yield folder / "params"


def with_values(written: Any, places: list[int], values: list[Any]) -> Any:
    """A YAML file's content with ``values`` in place of some of its own, wherever they are."""
    for place, value in zip(places, values, strict=False):
        inner = written
        while isinstance(inner, (dict, list)) and inner:
            keys = list(inner) if isinstance(inner, dict) else range(len(inner))
            outer, key = inner, keys[place % len(keys)]
            inner, place = inner[key], place // len(keys)
        outer[key] = value
    return written


def yaml_files(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
    """A file of params/ after accidents, or with other values."""
    good = (root() / "params" / f"{name}.yaml").read_bytes()
    written = yaml.safe_load(good)
    few = json.dumps(written[:8] if isinstance(written, list) else written)  # JSON is YAML, and soon read
    drawn = st.tuples(st.lists(st.integers(0, 10**6), min_size=1, max_size=3), st.lists(value, min_size=3, max_size=3))
    other = drawn.map(lambda two: json.dumps(with_values(json.loads(few), *two)).encode())
    return accidents((f"{name}.yaml", good[:4000])) | other.map(lambda data: (f"{name}.yaml", data))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("smoke", lambda _: load("smoke")),
        ("systems", load_systems),
        ("claims", lambda _: load_claims()),
        ("published", lambda _: load_published()),
    ],
)
def test_files_of_params(repository: Path, name: str, read: Callable[[Path], Any]) -> None:
    good = (repository / f"{name}.yaml").read_bytes()

    @examples(60)
    @given(file=yaml_files(name))
    def one(file: tuple[str, bytes]) -> None:
        refused_or_read(read, repository, file)

    try:
        one()
    finally:
        (repository / f"{name}.yaml").write_bytes(good)
