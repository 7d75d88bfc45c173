"""The papers' instruction for both tasks (Less for More, Appendix F).

A prompt ends on ``:`` and the answer begins with a space: a prompt ending in a space would share its last
token with the answer, and the loss would start one token late.
"""

from typing import Literal, get_args

Task = Literal["mol2cap", "cap2mol"]
TASKS: tuple[Task, ...] = get_args(Task)

_REQUEST = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\nYou are a researcher. "
)
#: Text before and after the source, per task.
SEGMENTS: dict[Task, tuple[str, str]] = {
    "mol2cap": (
        _REQUEST + "You can come up captions based on your existing knowledge.\nCaptions are given against the "
        "following input. You should be as detailed as possible.\n\n### Input:\nMolecule: ",
        "\nIn that molecule, could you formulate a caption about?\n\n\n### Response:",
    ),
    "cap2mol": (
        _REQUEST + "You can come up molecule smile strings based on your existing knowledge.\nMolecule smile "
        "strings are given against the following input. You should be as detailed as possible.\n\n"
        "### Input:\nCaption: ",
        "\nIn that caption, could you generate a molecule smile string?\n\n\n### Response:",
    ),
}


def prompt(task: Task, source: str) -> str:
    """The instruction for ``task`` with ``source`` (a SMILES or a caption) filled in."""
    before, after = SEGMENTS[task]
    return f"{before}{source}{after}"


def answer(target: str) -> str:
    """``target`` as it follows the prompt: one space, then the text; EOS is the tokenizer's business."""
    return f" {target}"
