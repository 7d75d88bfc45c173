"""Atomic facts by a language model, as in Less for More (Fig. 11), and how far they agree with the grammar's.

The paper asks Meta-Llama-3-8B and prints the prompt, not how the answer is read; here the reader takes bulleted,
numbered and plain answers, drops chatter, and says which captions got no fact at all.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from lmolt_utils.errors import CompanionError
from lmolt_utils.grammar.decompose import Atom, Decomposer, sentences
from lmolt_utils.models.generation import stream
from lmolt_utils.models.loading import load_model, load_tokenizer
from lmolt_utils.run.resume import Ask

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

_NEXT_TURN = re.compile(r"^\s*(?:#{2,}|\*\*\s*$|(?:User|Assistant|Human)\s*:)", re.MULTILINE | re.IGNORECASE)
_BULLET = re.compile(r"(?:^|(?<=[.!?:\n]))\s*(?:[-*•–]|\(?\d{1,2}[.)])\s+(?=\S)", re.MULTILINE)
_ABOUT_IT = re.compile(r"(?:the|this) (?:\S+ )?molecule\b|it\b|when heated\b", re.IGNORECASE)
_NO_FACT = re.compile(r"(?:none|n/a|no (?:other |further )?facts?\b.*)\.?$|.*:$", re.IGNORECASE)


class LlmAnswerError(CompanionError):
    """A language model whose answers cannot stand for the captions: no fact of any, or a caption it was not asked."""


@dataclass(frozen=True)
class Agreement:
    """Of two sets of facts per caption, the rules' and the model's: how far they agree, means over captions.

    exact: share of captions with equal sets. precision: share of the model's facts that the rules have too, over
    captions where the model named one. recall: share of the rules' facts that the model has too, over captions where
    the rules found one. NaN over no caption. unanswered: captions without a fact by the model: nowhere in
    precision, 0 in recall, unequal to any fact of the rules.
    """

    captions: int
    unanswered: int
    exact: float
    precision: float
    recall: float

    def __str__(self) -> str:
        shares = f"exact {self.exact:.3f}, precision {self.precision:.3f}, recall {self.recall:.3f}"
        return f"agreement with the rules over {self.captions} captions ({self.unanswered} without a fact): {shares}"


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


def asker(
    reference: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    quantize: str = "none",
    max_new_tokens: int = 256,
    batch_size: int = 8,
) -> Ask:
    """Greedy answers of a causal model (a folder, a hub id or ``embedded:NAME``) to captions, batched by length.

    The model is loaded at the first question. Raises :class:`~lmolt_utils.models.loading.ModelError` where it cannot
    be.
    """

    def ask(captions: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
        tokenizer = load_tokenizer(reference)
        model = load_model(reference, "causal", device=device, dtype=dtype, quantize=quantize)
        prompts = [prompt(text) for text in captions]
        yield from stream(model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)

    return ask


class LlmDecomposer:
    """Captions to facts by a language model's answers, each with the property that ``decompose`` reads in it.

    answers: caption to answer; an empty caption needs none. A fact that names no property the rules know keeps its
    text and has none. Raises :class:`LlmAnswerError` for a caption that was not asked about.
    """

    def __init__(self, answers: Mapping[str, str], decompose: Decomposer) -> None:
        self.answers = answers
        self._decompose = decompose

    def __call__(self, caption: str) -> list[Atom]:
        """The facts of an answer, in its order; empty where it holds none."""
        if not caption.strip():
            return []
        if caption not in self.answers:
            raise LlmAnswerError(f"no answer about {caption[:80]!r}: ask the language model about all captions again")
        return self._atoms(facts(self.answers[caption]))

    def units(self, caption: str) -> list[str]:
        """What cross-NLI compares: the facts in canonical words.

        A caption that got no fact is its sentences, as one that the grammar cannot read is: a silent model must not
        turn a caption into an empty one. :meth:`unanswered` counts them.
        """
        return [self._decompose.canonical(atom) for atom in self(caption)] or sentences(caption)

    def unanswered(self, captions: Iterable[str]) -> list[str]:
        """The distinct captions, empty ones apart, whose answers hold no fact."""
        return [text for text in dict.fromkeys(captions) if text.strip() and not self(text)]

    def checked(self, model: str) -> "LlmDecomposer":
        """Itself; raises :class:`LlmAnswerError` when no caption got a fact: such a ``model`` evaluates nothing."""
        if self.answers and len(self.unanswered(self.answers)) == len(self.answers):
            raise LlmAnswerError(
                f"{model} named no fact of any of {len(self.answers)} captions (first answer: "
                f"{next(iter(self.answers.values()))[:80]!r}); choose an instruction-tuned model, or let "
                "the rules cut captions (in a profile, decomposer: rules)"
            )
        return self

    def _atoms(self, texts: Sequence[str]) -> list[Atom]:
        atoms: list[Atom] = []
        for text in texts:
            named = [atom for atom in self._decompose(text) if atom.property is not None]
            # One fact keeps the model's words; a list it left whole is taken apart; a free fact stays.
            atoms += (
                [Atom(text, named[0].property, named[0].verb)] if len(named) == 1 else named or [Atom(text, None, "")]
            )
        return atoms


def decomposer_by_model(
    reference: str, captions: Iterable[str], decompose: Decomposer, *, device: str = "cpu", dtype: str = "float32"
) -> LlmDecomposer:
    """Ask a causal model about every distinct caption, with a progress bar.

    Raises :class:`~lmolt_utils.models.loading.ModelError` where it cannot be loaded, :class:`LlmAnswerError` where it
    names no fact at all.
    """
    answers = dict.fromkeys((text for text in captions if text.strip()), "")
    asked = [text for text in answers if len(text) <= LONGEST_CAPTION]
    with tqdm(total=len(asked), desc="asking for facts", unit="caption") as bar:
        for batch in asker(reference, device=device, dtype=dtype)(asked):
            for place, answer in batch:
                answers[asked[place]] = answer
            bar.update(len(batch))
    return LlmDecomposer(answers, decompose).checked(reference)


def agreement_with_rules(model: LlmDecomposer, decompose: Decomposer) -> Agreement:
    """Of a model's facts with the rules', over the distinct captions it was asked about."""
    texts = list(model.answers)
    return agreement([fact_set(decompose(text)) for text in texts], [fact_set(model(text)) for text in texts])


def fact_set(atoms: Iterable[Atom]) -> set[str]:
    """What two decompositions are compared by: properties, and the words of a fact that has none."""
    return {atom.property or atom.text.casefold().strip(" .") for atom in atoms}


def agreement(rules: Sequence[set[str]], model: Sequence[set[str]]) -> Agreement:
    """How far the model's sets of facts agree with the rules', caption by caption.

    Raises ``ValueError`` when there are none, or not equally many.
    """
    if not rules or len(rules) != len(model):
        raise ValueError(
            f"agreement needs as many sets of either kind, and one at least: {len(rules)} and {len(model)}"
        )
    pairs = list(zip(rules, model, strict=True))
    return Agreement(
        captions=len(pairs),
        unanswered=sum(not theirs for _, theirs in pairs),
        exact=_mean([float(ours == theirs) for ours, theirs in pairs]),
        precision=_mean([len(ours & theirs) / len(theirs) for ours, theirs in pairs if theirs]),
        recall=_mean([len(ours & theirs) / len(ours) for ours, theirs in pairs if ours]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
