"""The same test molecules in other SMILES: does a system caption the molecule, or its spelling?

AMORE (Ganeeva et al. 2024) asks it of embeddings; here it is asked of captions.
"""

from pathlib import Path

from rdkit import Chem

from lmolt_utils.config.prompts import prompt
from lmolt_utils.config.systems import System
from lmolt_utils.data.molecules import molecule, parse
from lmolt_utils.data.sample import TEST_COLUMNS
from lmolt_utils.files import read_rows, write_rows
from lmolt_utils.merging.merges import with_weights
from lmolt_utils.models.generation import generate
from lmolt_utils.models.loading import model_identity
from lmolt_utils.models.postprocess import clean
from lmolt_utils.models.predictions import PREDICTION_COLUMNS, prediction_path
from lmolt_utils.run.notebook import Run
from lmolt_utils.training.adapters import load_trained
from lmolt_utils.training.experiment import Say, initial_model, plan

#: Random walks through a molecule that are tried for another SMILES of it.
TRIES = 10


def rewritten(smiles: str, seed: int) -> str:
    """A random SMILES of the same molecule; ``smiles`` where no other is found (methane has none)."""
    if (mol := parse(smiles)) is None:
        return smiles
    same = Chem.MolToSmiles(mol)
    for number in range(TRIES):
        (text,) = Chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed * TRIES + number + 1)
        found = molecule(text)
        if text != smiles and found is not None and found.canonical == same:
            return str(text)
    return smiles


def caption_rewritten(run: Run, system: System, say: Say = print) -> Path:
    """Captions of ``system``, which has been made, for the test molecules rewritten: ``<system>.rewritten.mol2cap``."""
    todo, name = plan(run, system), f"{system.name}.rewritten"
    initial = initial_model(run, todo, "mol2cap", lambda _: None)
    adapter = run.path("models", system.adapter_of) if system.method != "none" else None
    test, output, params = run.path("data", "test.jsonl"), prediction_path(run, name, "mol2cap"), todo.params
    machine = {each: getattr(params, each) for each in ("device", "dtype", "quantize")}
    sizes = {"max_new_tokens": params.max_new_tokens, "batch_size": params.generation_batch}

    def make(_: Path) -> None:
        model, tokenizer = load_trained(with_weights(todo.merge, initial), adapter, kind="causal", **machine)
        rows = read_rows(test, TEST_COLUMNS)
        sources = [rewritten(text, params.seed) for text in rows["molecule"]]
        asked = [prompt("mol2cap", text, params.test_prompt) for text in sources]
        raw = generate(model, tokenizer, asked, title=name, **sizes)
        frame = rows.assign(task="mol2cap", source=sources, reference=rows["caption"], raw=raw)
        write_rows(output, frame.assign(prediction=[clean(text) for text in raw])[list(PREDICTION_COLUMNS)])

    run.step(
        f"predict {name}",
        make,
        outputs=[output],
        params={"seed": params.seed, "tries": TRIES, "prompt": params.test_prompt, **sizes, **machine},
        inputs={"test": test, "initial": model_identity(initial)} | ({"adapter": adapter} if adapter else {}),
        say=say,
    )
    return output
