"""Facts of a run's captions by a language model, as the paper has them, beside the grammar's (Less for More, App. E).

The paper shows five captions and says nothing of how often its decomposer is right (audit D32). L+M-24's captions come
from templates, so the grammar's facts are exact and the model can be held against them.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from lmolt_utils.config.systems import System
from lmolt_utils.data.captioner import kept_tree, reader
from lmolt_utils.files import fingerprint, read_json, read_kept, write_json
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.models.loading import model_identity
from lmolt_utils.models.predictions import prediction_path, rule_of, scored_answers
from lmolt_utils.nli.cross_nli import texts_of
from lmolt_utils.nli.llm import LONGEST_CAPTION, LlmDecomposer, agreement, asker, fact_set, prompt
from lmolt_utils.run.notebook import Run
from lmolt_utils.run.resume import answered


def decomposer(run: Run) -> Decomposer:
    """Reads captions with L+M-24's property tree where the run has one, else with the shipped names and others."""
    return reader(kept_tree(run.path("data")))


def answers_path(run: Run) -> Path:
    """Where the language model's answers are: ``scores/decomposition.json``."""
    return Path(run.path("scores", "decomposition.json"))


def captions(run: Run, systems: Sequence[System]) -> dict[str, list[str]]:
    """The distinct captions of the references and of each system, empty ones left out."""
    found: dict[str, list[str]] = {"references": []}
    for system in systems:
        texts = texts_of(scored_answers(run, system, "mol2cap"))
        found["references"] += [reference for reference, _ in texts]
        found[system.name] = [output for _, output in texts]
    return {name: [text for text in dict.fromkeys(texts) if text.strip()] for name, texts in found.items()}


def ask_language_model(run: Run, systems: Sequence[System]) -> None:
    """Ask ``decomposer_model`` about every distinct caption once; says so where there is no model.

    The answers are kept as they come: a killed run goes on, and a system added later costs its new captions only.
    """
    if run.params.decomposer_model is None:
        print("facts by a language model: not run: no model (parameter decomposer_model)")
        return
    output = answers_path(run)
    found = model_identity(run.params.decomposer_model)
    made_from = {
        "model": run.params.decomposer_model,
        "revision": found if isinstance(found, str) else fingerprint(found),
        "prompt": _hash(prompt("")),
        "new_tokens": run.params.decomposer_new_tokens,
        "precision": f"{run.params.dtype} {run.params.quantize} {run.params.device}",
    }

    def make(work: Path) -> None:
        wanted = sorted({text for texts in captions(run, systems).values() for text in texts})
        before = read_kept(output) or {}
        known: dict[str, str] = before["answers"] if before.get("made_from") == made_from else {}
        new = [text for text in wanted if text not in known and len(text) <= LONGEST_CAPTION]
        ask = asker(
            str(run.params.decomposer_model),
            device=run.params.device,
            dtype=run.params.dtype,
            quantize=run.params.quantize,
            max_new_tokens=run.params.decomposer_new_tokens,
            batch_size=run.params.generation_batch,
        )
        given = dict(zip(new, answered(new, ask, work, run.params.generation_batch, "asking for facts"), strict=True))
        answers = {text: given[text] if text in given else known.get(text, "") for text in wanted}
        write_json(output, {"made_from": made_from, "asked": len(new), "answers": answers})

    run.step(
        "facts by a language model",
        make,
        outputs=[output],
        params={
            "new_tokens": run.params.decomposer_new_tokens,
            "dtype": run.params.dtype,
            "quantize": run.params.quantize,
            "device": run.params.device,
            "postprocess": {system.name: rule_of(run, system) for system in systems},
        },
        inputs={**{system.name: prediction_path(run, system.name, "mol2cap") for system in systems}, "model": found},
    )


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def language_model(run: Run, decompose: Decomposer) -> LlmDecomposer:
    """The decomposer of the kept answers.

    Raises :class:`~lmolt_utils.nli.llm.LlmAnswerError` when no caption got a fact: such a model evaluates nothing.
    """
    answers: Mapping[str, str] = read_json(answers_path(run))["answers"]
    return LlmDecomposer(answers, decompose).checked(str(run.params.decomposer_model))


def agreement_table(run: Run, systems: Sequence[System]) -> pd.DataFrame | None:
    """The model's facts against the rules', over distinct captions: of the references, of each system, of all.

    Columns: captions, no answer (empty ones), no fact (text without any), and the exact, precision and recall of
    :class:`~lmolt_utils.nli.llm.Agreement`. None where no model was asked.
    """
    if run.params.decomposer_model is None:
        return None
    answers: Mapping[str, str] = read_json(answers_path(run))["answers"]
    rules, model = _fact_sets(answers, decomposer(run))
    groups = captions(run, systems)
    groups["all, each once"] = list(answers)
    lines = []
    for name, texts in groups.items():
        if texts:
            found = asdict(agreement([rules[text] for text in texts], [model[text] for text in texts]))
            silent = sum(not answers[text].strip() for text in texts)
            counts = {"captions": len(texts), "no answer": silent, "no fact": found["unanswered"] - silent}
            lines.append({"of": name, **counts, **{key: found[key] for key in ("exact", "precision", "recall")}})
    return pd.DataFrame(lines).set_index("of")


def differences(run: Run, most: int = 5) -> pd.DataFrame | None:
    """Captions on which the two differ: what only the rules and what only the model found; answered ones first.

    None where no model was asked.
    """
    if run.params.decomposer_model is None:
        return None
    answers: Mapping[str, str] = read_json(answers_path(run))["answers"]
    rules, model = _fact_sets(answers, decomposer(run))
    differing = sorted((text for text in answers if rules[text] != model[text]), key=lambda text: not model[text])
    lines = [
        (text, _listed(rules[text] - model[text]), _listed(model[text] - rules[text])) for text in differing[:most]
    ]
    return pd.DataFrame(lines, columns=["caption", "rules only", "model only"])


def _fact_sets(texts: Mapping[str, str], decompose: Decomposer) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    model = LlmDecomposer(texts, decompose)
    return {text: fact_set(decompose(text)) for text in texts}, {text: fact_set(model(text)) for text in texts}


def _listed(found: Iterable[str]) -> str:
    return "; ".join(sorted(found))
