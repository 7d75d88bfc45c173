"""From raw output to prediction: spaces around it and nothing else.

The released code's cleaning removed every ``#`` (triple bonds) and kept stray ``\\n`` (audit D27): raw outputs
are kept beside the cleaned ones, and cleaning never rewrites an answer.
"""


def clean(raw: str) -> str:
    """``raw`` without surrounding white space."""
    return raw.strip()
