"""From raw output to prediction: spaces around it and nothing else.

The released code's cleaning removed every ``#`` (triple bonds) and kept stray ``\\n`` (audit D27): raw outputs
are kept beside the cleaned ones, and cleaning never rewrites an answer.
"""


def clean(raw: str) -> str:
    """``raw`` without surrounding white space."""
    return raw.strip()


def as_released(raw: str) -> str:
    """What the released scripts make of ``raw``: saved as a one-element list's ``repr``, then stripped of brackets,
    of every ``#`` and of written-out line ends (audit D27).

    Doubled backslashes stay, and so does the bracket of a text with an apostrophe, whose ``repr`` has other quotes.
    """
    text = repr([raw])
    for mark in ("['", "']", "#", "\\n"):
        text = text.replace(mark, "")
    return text.strip()


RULES = {"clean": clean, "as_released": as_released}
