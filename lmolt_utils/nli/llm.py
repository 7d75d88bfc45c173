"""Atomic facts by a language model, as in Less for More (App. E, Fig. 11), held against the grammar's exact ones.

The paper asks Meta-Llama-3-8B and prints the prompt, but neither how the answer is read nor how often it is right. The
authors' package cross-nli 0.1.0 asks and reads in another way (audit D32, switch ``nli``).
"""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lmolt_utils.config.systems import System
from lmolt_utils.data.captioner import kept_tree, reader
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import fingerprint, read_json, read_kept, write_json
from lmolt_utils.grammar.decompose import Atom, Decomposer, sentences
from lmolt_utils.models.generation import stream
from lmolt_utils.models.loading import load_model, load_tokenizer, model_identity
from lmolt_utils.models.predictions import prediction_path, rule_of, scored_answers
from lmolt_utils.nli.cross_nli import texts_and_rules
from lmolt_utils.run.notebook import Run
from lmolt_utils.run.resume import answered

_REQUEST = """### User:
Please breakdown the following text into independent facts:
{{{text}}}

**
IMPORTANT: No words or explanation is needed. Only include truths that are factual. You should NOT include any prior \
knowledge, and take the text at face value when extracting facts.
**
### Assistant:
"""
#: A longer caption is not asked about and counts as unanswered; L+M-24's longest has fewer than 1,000 characters.
LONGEST_CAPTION = 4096
#: Fig. 11's one example and its answer.
_EXAMPLE = (
    "It impacts both atherosclerosis and cardiovascular disease. The molecule is a nutrient, thyroxine treatment, fat "
    "storage that impacts pancreatitis and metabolic syndrome."
)
_EXAMPLE_FACTS = (
    *("impacts atherosclerosis", "impacts cardiovascular disease", "is a nutrient", "is a thyroxine treatment"),
    *("impacts pancreatitis", "impacts metabolic syndrome", "is involved in fat storage"),
)
_ANSWERED = _REQUEST.format(text=_EXAMPLE) + "".join(f"- The molecule {fact}.\n" for fact in _EXAMPLE_FACTS)

#: cross-nli 0.1.0 (MIT), a user's turn of a chat, white space included.
_RELEASED = """Break down the following text into independent atomic text units: 
                **
                IMPORTANT: 
                 - Extract only factual truths from the text.
                 - Do not include any prior knowledge or interpretations.
                 - Take the text at face value when extracting facts.
                 - Ensure each unit is concise and represents the smallest possible factual statement.
                 - Do not include any introductory or explanatory text. Only output the numbered list of atomic units.
                **
         {text}"""

_NEXT_TURN = re.compile(r"^\s*(?:#{2,}|\*\*\s*$|(?:User|Assistant|Human)\s*:)", re.MULTILINE | re.IGNORECASE)
_BULLET = re.compile(r"(?:^|(?<=[.!?:\n]))\s*(?:[-*•–]|\(?\d{1,2}[.)])\s+(?=\S)", re.MULTILINE)
_ABOUT_IT = re.compile(r"(?:the|this) (?:\S+ )?molecule\b|it\b|when heated\b", re.IGNORECASE)
_NO_FACT = re.compile(r"(?:none|n/a|no (?:other |further )?facts?\b.*)\.?$|.*:$", re.IGNORECASE)


class LlmAnswerError(CompanionError):
    """A language model that named no fact of any caption, or was not asked about one."""


def prompt(caption: str) -> str:
    """The prompt of Fig. 11 for a caption: its example with the answer, then the request."""
    return f"{_ANSWERED}\n{_REQUEST.format(text=caption)}"


def released_prompt(caption: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """cross-nli's: the model's chat template with no opened answer. Raises :class:`LlmAnswerError` without one."""
    if not tokenizer.chat_template:
        raise LlmAnswerError(f"{tokenizer.name_or_path} has no chat template: choose a chat model, or nli_code: ours")
    turn = [{"role": "user", "content": _RELEASED.format(text=caption)}]
    try:
        text = str(tokenizer.apply_chat_template(turn, tokenize=False))  # Transformers runs templates in a sandbox
    except TemplateError as error:
        raise LlmAnswerError(f"{tokenizer.name_or_path}: its chat template fails ({error}): choose another") from None
    start = tokenizer("").input_ids[:1]  # some tokenizers add the token that the template begins with
    return text.removeprefix(str(tokenizer.bos_token)) if start == [tokenizer.bos_token_id] else text


def facts(answer: str) -> list[str]:
    """The facts of an answer: its bulleted or numbered items, else its sentences about the molecule.

    A next turn that the model made up is dropped, as are introductions and "none".
    """
    turn = _NEXT_TURN.search(answer.lstrip())
    answer = answer.lstrip()[: turn.start()] if turn else answer
    before, *items = _BULLET.split(answer)
    if not items:
        items = [sentence for sentence in sentences(before) if _ABOUT_IT.match(sentence)]
    # Only an item's first paragraph is the fact: what comes after an empty line is a closing remark.
    texts = (" ".join(re.split(r"\n\s*\n", item)[0].replace("**", "").split()).strip("\"' ") for item in items)
    return [text for text in texts if text and not _NO_FACT.match(text)]


def numbered(answer: str) -> list[str]:
    """The facts of an answer as cross-nli reads them: a number, a dot, one white space, and the rest of the line."""
    return re.findall(r"\d+\.\s(.*)", answer)


class LlmDecomposer:
    """Captions to atomic facts by a language model's answers, each with the property that ``rules`` read in it."""

    def __init__(self, answers: Mapping[str, str], rules: Decomposer, *, as_released: bool = False) -> None:
        self.answers = answers
        self.rules = rules
        self.as_released = as_released
        self.read = numbered if as_released else facts

    def __call__(self, caption: str) -> list[Atom]:
        """The facts of an answer, in its order; raises :class:`LlmAnswerError` for a caption that has no answer."""
        if not caption.strip():
            return []
        if caption not in self.answers:
            raise LlmAnswerError(f"no answer about {caption[:80]!r}: ask the language model about all captions again")
        atoms: list[Atom] = []
        for text in self.read(self.answers[caption]):
            named = [atom for atom in self.rules(text) if atom.property is not None]
            if len(named) == 1:  # in the model's words
                atoms.append(Atom(text, named[0].property, named[0].verb))
            else:  # a list of facts in one item is taken apart; an item that names no property stays whole
                atoms += named or [Atom(text, None, "")]
        return atoms

    def units(self, caption: str) -> list[str]:
        """What cross-NLI compares: the facts in canonical words (as released: as the model put them); without any the
        sentences, so that no silent model turns a caption into an empty one."""
        if self.as_released:
            return numbered(self.answers[caption]) or sentences(caption)
        return [self.rules.canonical(atom) for atom in self(caption)] or sentences(caption)

    def unanswered(self, captions: Iterable[str]) -> list[str]:
        """The distinct captions, empty ones apart, whose answers hold no fact."""
        return [text for text in dict.fromkeys(captions) if text.strip() and not self(text)]


def fact_set(atoms: Iterable[Atom]) -> set[str]:
    """What two decompositions are compared by: properties, and the words of a fact that has none."""
    return {atom.property or atom.text.casefold().strip(" .") for atom in atoms}


def agreement(model: LlmDecomposer, texts: Iterable[str]) -> dict[str, float]:
    """Of a model's facts with the rules', means over captions; NaN over none.

    exact: equal sets. precision: the model's facts that the rules have too, where the model named one. recall: the
    rules' facts that the model has too, where the rules found one.
    """
    lines = []
    for text in texts:
        ours, theirs = fact_set(model.rules(text)), fact_set(model(text))
        shares = (len(ours & theirs) / len(side) if side else math.nan for side in (theirs, ours))
        lines.append((float(ours == theirs), *shares))
    return dict(pd.DataFrame(lines, columns=["exact", "precision", "recall"]).mean())


# ---- in a run ----


def decomposer(run: Run) -> Decomposer:
    """The rules, with L+M-24's property tree where the run has one."""
    return reader(kept_tree(run.path("data")))


def answers_path(run: Run) -> Path:
    return run.path("scores", "decomposition.json")


def captions(run: Run, systems: Sequence[System]) -> dict[str, list[str]]:
    """The distinct captions of the references and of each system, empty ones left out."""
    found: dict[str, list[str]] = {"references": []}
    for system in systems:
        texts, _ = texts_and_rules(scored_answers(run, system, "mol2cap"))
        found["references"] += [reference for reference, _ in texts]
        found[system.name] = [output for _, output in texts]
    return {name: [text for text in dict.fromkeys(texts) if text.strip()] for name, texts in found.items()}


def ask_language_model(run: Run, systems: Sequence[System]) -> None:
    """Ask ``decomposer_model`` about every distinct caption once; a system added later costs its new captions only."""
    if run.params.decomposer_model is None:
        print("facts by a language model: not run: no model (parameter decomposer_model)")
        return
    reference, new_tokens = str(run.params.decomposer_model), run.params.decomposer_new_tokens
    as_released = run.params.nli_code == "as_released"
    loading: dict[str, Any] = {"dtype": run.params.dtype, "quantize": run.params.quantize, "device": run.params.device}
    batch, output, found = run.params.generation_batch, answers_path(run), model_identity(reference)
    made_from = {
        "model": reference,
        "revision": found if isinstance(found, str) else fingerprint(found),
        "prompt": hashlib.sha256((_RELEASED if as_released else prompt("")).encode()).hexdigest(),
        "new_tokens": new_tokens,
        "precision": " ".join(map(str, loading.values())),
    }

    def ask(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
        tokenizer = load_tokenizer(reference)
        model = load_model(reference, "causal", **loading)
        prompts = [released_prompt(text, tokenizer) if as_released else prompt(text) for text in texts]
        yield from stream(model, tokenizer, prompts, max_new_tokens=new_tokens, batch_size=batch)

    def make(work: Path) -> None:
        wanted = sorted({text for texts in captions(run, systems).values() for text in texts})
        before = read_kept(output) or {}
        known: dict[str, str] = before["answers"] if before.get("made_from") == made_from else {}
        new = [text for text in wanted if text not in known and len(text) <= LONGEST_CAPTION]
        answers = known | dict(zip(new, answered(new, ask, work, batch, "asking for facts"), strict=True))
        kept = {text: answers.get(text, "") for text in wanted}
        write_json(output, {"made_from": made_from, "asked": len(new), "answers": kept})

    rules = {system.name: rule_of(run, system) for system in systems}
    run.step(
        "facts by a language model",
        make,
        outputs=[output],
        params={"new_tokens": new_tokens, **loading, "nli_code": run.params.nli_code, "postprocess": rules},
        inputs={**{system.name: prediction_path(run, system.name, "mol2cap") for system in systems}, "model": found},
    )


def kept_decomposer(run: Run) -> LlmDecomposer:
    """The language model's decomposer by the answers that :func:`ask_language_model` kept."""
    answers = read_json(answers_path(run))["answers"]
    return LlmDecomposer(answers, decomposer(run), as_released=run.params.nli_code == "as_released")


def agreement_table(run: Run, systems: Sequence[System]) -> pd.DataFrame:
    """The model's facts against the rules', over distinct captions.

    Columns: captions, no answer (empty ones), no fact (text without any), and those of :func:`agreement`.
    """
    model = kept_decomposer(run)
    lines = {}
    for name, texts in {**captions(run, systems), "all, each once": list(model.answers)}.items():
        if texts:
            silent = sum(not model.answers[text].strip() for text in texts)
            counts = {"no answer": silent, "no fact": len(model.unanswered(texts)) - silent}
            lines[name] = {"captions": len(texts), **counts, **agreement(model, texts)}
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("of")


def differences(run: Run) -> pd.DataFrame:
    """Five captions on which the two differ, answered ones first."""
    model = kept_decomposer(run)
    lines = []
    for text in model.answers:
        ours, theirs = fact_set(model.rules(text)), fact_set(model(text))
        if ours != theirs:
            lines.append((not theirs, text, "; ".join(sorted(ours - theirs)), "; ".join(sorted(theirs - ours))))
    table = pd.DataFrame(lines, columns=["silent", "caption", "rules only", "model only"])
    return table.sort_values("silent", kind="stable", ignore_index=True).drop(columns="silent").head(5)
