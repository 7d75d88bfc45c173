"""The papers' instruction for both tasks (Less for More, Appendix F), in every white space it was used with.

``printed`` is the papers' text, and what the embedded models were made with; ``card`` that of Meditron's model cards;
the others have the indentation of the released scripts (audit D10, D13). An answer begins with a space: if the prompt
ended in it, their tokens would run into each other.
"""

from typing import Literal, get_args

Task = Literal["mol2cap", "cap2mol"]
TASKS: tuple[Task, ...] = get_args(Task)
#: Columns of a data set that are source and answer of each task.
SIDES: dict[Task, tuple[str, str]] = {"mol2cap": ("molecule", "caption"), "cap2mol": ("caption", "molecule")}
Template = Literal["printed", "card", "train12", "kto16", "sft", "infer20"]
TEMPLATES: tuple[Template, ...] = get_args(Template)

_WORDS: dict[Task, tuple[str, str, str, str]] = {
    "mol2cap": (
        "You can come up captions based on your existing knowledge.",
        "Captions are given against the following input. You should be as detailed as possible.",
        "Molecule: ",
        "In that molecule, could you formulate a caption about?",
    ),
    "cap2mol": (
        "You can come up molecule smile strings based on your existing knowledge.",
        "Molecule smile strings are given against the following input. You should be as detailed as possible.",
        "Caption: ",
        "In that caption, could you generate a molecule smile string?",
    ),
}
_IN12, _IN16, _IN20 = ("\n" + " " * width for width in (12, 16, 20))


def _indented(line: str, after_source: str) -> dict[Task, tuple[str, ...]]:
    """The alignment scripts' white space; ``line``: a line end with their indentation."""
    captions = (line, f"\n\n{line}", f"\n{line}", line, f"\n\n{line}", f"\n{line}", after_source, f"\n\n\n{line}")
    molecules = (*captions[:3], f" {line}", captions[4], "\n", f" \n{line}", captions[7])
    return {"mol2cap": captions, "cap2mol": molecules}


#: White space, in order: after the first sentence, before and after "### Instruction:", before the sentence on what is
#: given, before and after "### Input:", after the source, before "### Response:".
_GAPS: dict[Template, dict[Task, tuple[str, ...]]] = {
    "printed": dict.fromkeys(TASKS, (" ", "\n\n", "\n", "\n", "\n\n", "\n", "\n", "\n\n\n")),
    "card": {
        "mol2cap": (" ", "\n\n", "\n ", " ", "\n\n", "\n", " \n", "\n\n\n"),
        "cap2mol": (" ", "\n\n", "\n", " \n", "\n\n", "\n", " \n", "\n\n\n"),
    },
    "train12": _indented(_IN12, f" \n{_IN12}"),
    "kto16": _indented(_IN16, f" \n\n{_IN16}"),
    "sft": dict.fromkeys(
        TASKS,
        (_IN12, f"\n\n{_IN12}", f"\n{_IN12}", _IN16, f"\n\n {_IN12}", f"\n{_IN12}", f" \n{_IN16}", f"\n\n\n {_IN12}"),
    ),
    "infer20": {
        "mol2cap": (_IN20, f"\n\n{_IN20}", "\n ", " ", f"\n\n{_IN20}", "\n", " \n", "\n\n\n"),
        "cap2mol": (f" {_IN20}", f"\n\n{_IN20}", "\n", f" {_IN20}", f"\n\n{_IN20}", "\n", " \n", "\n\n\n"),
    },
}
#: What stands between the prompt and the answer in training: the released alignment scripts glue them together.
_BEFORE_ANSWER: dict[Template, str] = {"printed": " ", "card": " ", "sft": "\n" + _IN12}
_WRITE_SMILES = "Write in SMILES the described molecule: {}"
#: Prompts of the tables' published baselines, by init. TxtChem-T5: its README's, or the released code's, which the
#: model never saw (audit D14). Chem-LLM: the dialogue form of its model card around our prompt.
_BASELINES: dict[str, dict[str, dict[Task, str]]] = {
    "txtchem": {
        "native": {"mol2cap": "Caption the following SMILES: {}", "cap2mol": _WRITE_SMILES},
        "released": {
            "mol2cap": "Translate the following molecule smile string to a descriptive caption: {}",
            "cap2mol": _WRITE_SMILES,
        },
    },
    "chemllm": {"native": dict.fromkeys(TASKS, "<|user|>:\n{}\n<|Bot|>:\n")},
}


def baseline_prompt(init: str, form: str, task: Task, source: str) -> str:
    """What a published baseline (``init``) is asked, in its ``native`` or its ``released`` form."""
    forms = _BASELINES[init]
    text = source if init == "txtchem" else prompt(task, source)
    return forms.get(form, forms["native"])[task].format(text)


def _segments(task: Task, template: Template) -> tuple[str, str]:
    """Text before and after the source."""
    known, given, source, question = _WORDS[task]
    gaps = _GAPS[template][task]
    before = (
        "Below is an instruction that describes a task, paired with an input that provides further context."
        f"{gaps[0]}Write a response that appropriately completes the request.{gaps[1]}### Instruction:{gaps[2]}"
        f"You are a researcher. {known}{gaps[3]}{given}{gaps[4]}### Input:{gaps[5]}{source}"
    )
    return before, f"{gaps[6]}{question}{gaps[7]}### Response:"


#: Text before and after the source, per task, as printed: single tokens of the embedded tokenizer.
SEGMENTS: dict[Task, tuple[str, str]] = {task: _segments(task, "printed") for task in TASKS}


def prompt(task: Task, source: str, template: Template = "printed") -> str:
    """The instruction for ``task`` about ``source``, a SMILES or a caption."""
    before, after = _segments(task, template)
    return f"{before}{source}{after}"


def answer(target: str, template: Template = "printed") -> str:
    """``target`` as it follows the prompt in training; the tokenizer adds EOS."""
    return _BEFORE_ANSWER.get(template, "") + target
