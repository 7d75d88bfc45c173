"""Atomic facts by a language model, as in Less for More (Fig. 11), and how far they agree with the grammar's.

The paper asks Meta-Llama-3-8B and prints the prompt, not how the answer is read; here the reader takes bulleted,
numbered and plain answers, drops chatter, and says which captions got no fact at all.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmolt_utils.errors import CompanionError
from lmolt_utils.generation import generate
from lmolt_utils.grammar.decompose import Atom, Decomposer, sentences
from lmolt_utils.models import load_model, load_tokenizer

#: Texts to answers, one each and in order.
Answerer = Callable[[list[str]], list[str]]

_REQUEST = """### User:
Please breakdown the following text into independent facts:
{{{text}}}

**
IMPORTANT: No words or explanation is needed. Only include truths that are factual. You should NOT include any prior \
knowledge, and take the text at face value when extracting facts.
**
### Assistant:
"""
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

_NEXT_TURN = re.compile(r"^\s*(?:#{2,}|\*\*\s*$|(?:User|Assistant|Human)\s*:)", re.MULTILINE | re.IGNORECASE)
_BULLET = re.compile(r"(?:^|(?<=[.!?:\n]))\s*(?:[-*•–]|\(?\d{1,2}[.)])\s+(?=\S)", re.MULTILINE)
_ABOUT_IT = re.compile(r"(?:the|this) (?:\S+ )?molecule\b|it\b|when heated\b", re.IGNORECASE)
_NO_FACT = re.compile(r"(?:none|n/a|no (?:other |further )?facts?\b.*)\.?$|.*:$", re.IGNORECASE)


class LlmAnswerError(CompanionError):
    """A language model whose answers hold no fact for any caption."""


@dataclass(frozen=True)
class LlmAtoms:
    """``atoms``: the facts of each caption, in order; ``unanswered``: the places of captions that got none."""

    atoms: list[list[Atom]]
    unanswered: list[int]


@dataclass(frozen=True)
class Agreement:
    """Of two decompositions of the same captions: mean Jaccard index of their sets, and the share of equal ones."""

    jaccard: float
    exact: float


def prompt(caption: str) -> str:
    """The prompt of Fig. 11 for a caption: its example with the answer, then the request."""
    return f"{_ANSWERED}\n{_REQUEST.format(text=caption)}"


def facts(answer: str) -> list[str]:
    """The facts of an answer: its bulleted or numbered items, else its sentences about the molecule.

    Whatever follows the answer (a next turn that the model made up) is dropped, as are introductions and "none".
    """
    turn = _NEXT_TURN.search(answer.lstrip())
    answer = answer.lstrip()[: turn.start()] if turn else answer
    before, *items = _BULLET.split(answer)
    if not items:
        items = [sentence for sentence in sentences(before) if _ABOUT_IT.match(sentence)]
    # Only an item's first paragraph is the fact: what comes after an empty line is a closing remark.
    texts = (" ".join(re.split(r"\n\s*\n", item)[0].replace("**", "").split()).strip("\"' ") for item in items)
    return [text for text in texts if text and not _NO_FACT.match(text)]


def answerer(
    reference: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    quantize: str = "none",
    max_new_tokens: int = 256,
    batch_size: int = 8,
) -> Answerer:
    """Greedy answers of a causal model (a folder, a hub id or ``embedded:NAME``), batched by length.

    Raises :class:`~lmolt_utils.models.ModelError` for a model that cannot be loaded.
    """
    tokenizer = load_tokenizer(reference)
    model = load_model(reference, "causal", device=device, dtype=dtype, quantize=quantize)

    def answer(prompts: list[str]) -> list[str]:
        return generate(
            model,
            tokenizer,
            prompts,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            title="asking for facts",
        )

    return answer


def llm_decompose(captions: Sequence[str], answer: Answerer, decompose: Decomposer) -> LlmAtoms:
    """The facts that a language model finds in each caption; equal captions are asked about once.

    ``decompose`` gives each fact its property: None for a fact that names none it knows. Empty captions are not asked
    about. Raises :class:`LlmAnswerError` when no caption got a fact: such a model cannot be an evaluation.
    """
    asked = [text for text in dict.fromkeys(captions) if text.strip()]
    answers = answer([prompt(text) for text in asked]) if asked else []
    found = {text: _atoms(facts(reply), decompose) for text, reply in zip(asked, answers, strict=True)}
    if asked and not any(found.values()):
        raise LlmAnswerError(
            f"the language model named no fact of any of {len(asked)} captions (first answer: "
            f"{answers[0][:80]!r}); choose an instruction-tuned model, or the grammar's decomposer"
        )
    atoms = [list(found.get(text, [])) for text in captions]
    unanswered = [place for place, text in enumerate(captions) if text.strip() and not found[text]]
    return LlmAtoms(atoms, unanswered)


def _atoms(texts: Sequence[str], decompose: Decomposer) -> list[Atom]:
    atoms: list[Atom] = []
    for text in texts:
        named = [atom for atom in decompose(text) if atom.property is not None]
        # One fact keeps the model's words; a list it left whole is taken apart; a free fact stays.
        atoms += [Atom(text, named[0].property, named[0].verb)] if len(named) == 1 else named or [Atom(text, None, "")]
    return atoms


def agreement(ours: Sequence[set[str]], theirs: Sequence[set[str]]) -> Agreement:
    """How far two decompositions of the same captions agree; two empty sets agree.

    Raises ``ValueError`` when there are none, or not equally many.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(
            f"agreement needs as many sets of either kind, and one at least: {len(ours)} and {len(theirs)}"
        )
    jaccard = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in zip(ours, theirs, strict=True)]
    exact = [a == b for a, b in zip(ours, theirs, strict=True)]
    return Agreement(sum(jaccard) / len(jaccard), sum(exact) / len(exact))
