"""``lmolt atoms``: the atomic facts of a file of captions, as JSON lines."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from lmolt_utils.grammar.decompose import Atom, Decomposer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.metrics.prediction_files import read_captions


def decomposer_for(vocabulary: str | None) -> Decomposer:
    """With a vocabulary file: its names only. Without: the shipped names, and any phrase in a name's place."""
    if vocabulary is None:
        return Decomposer(Vocabulary.embedded(), open_vocabulary=True)
    return Decomposer(Vocabulary.read(Path(vocabulary)))


def print_atoms(
    file: str, vocabulary: str | None, model: str | None = None, device: str = "cpu", dtype: str = "float32"
) -> int:
    """Print ``{"caption": ..., "atoms": [{"text": ..., "property": ...}, ...]}`` for every caption, empty ones too.

    With a ``model`` the facts are those that it names; their agreement with the rules' goes to standard error.
    """
    rules = decomposer_for(vocabulary)
    captions, notes = read_captions(file)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    decompose: Callable[[str], list[Atom]] = rules
    if model is not None:
        from lmolt_utils.nli.llm import agreement, decomposer_by_model  # seconds that the rules do not need

        decompose = by_model = decomposer_by_model(model, captions, rules, device=device, dtype=dtype)
        print(agreement(by_model), file=sys.stderr)
    atoms = unknown = 0
    for caption in captions:
        found = decompose(caption)
        atoms += len(found)
        unknown += sum(atom.property is None for atom in found)
        rows = [{"text": atom.text, "property": atom.property} for atom in found]
        print(json.dumps({"caption": caption, "atoms": rows}, ensure_ascii=False))
    print(f"{len(captions)} captions, {atoms} atoms, {unknown} of them without a known property", file=sys.stderr)
    return 0
