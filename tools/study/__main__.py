"""``make study``: the study from the data set's release to its verdicts; each part goes on where it was stopped.

    python -m tools.study [backbones curve models learned baselines errors run variants rates rare costs report figures]

Without names all parts are made, in this order.
``report`` needs nothing but what the others left below ``runs/``; ``python -m tools.study check`` needs nothing but
what is committed: it decides every claim again from ``figures/study/numbers.npz``.
"""

import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from lmolt_utils.config.params import load
from lmolt_utils.data.captioner import knowledge
from lmolt_utils.data.sources import Source
from lmolt_utils.errors import CompanionError, exit_status, remedy
from lmolt_utils.files import atomic
from lmolt_utils.metrics.captions import caption_tokenizer
from lmolt_utils.paths import root
from lmolt_utils.run.reproduce import reproduce
from tools.study import backbones, baselines, errors, figures, models, rare, report, variants

#: Where L+M-24's release and SciBERT's vocabulary are to be had.
ORIGINS = {
    "DATA": "additional_data.zip, from github.com/language-plus-molecules/LPM-24-Dataset",
    "SCIBERT": "vocab.txt, from huggingface.co/allenai/scibert_scivocab_uncased",
}


def take_files() -> None:
    """Read what ``DATA`` and ``SCIBERT`` (environment) name, or what is in place already; copy it once it is read.

    Raises :class:`CompanionError`, naming the file, before anything is trained or overwritten.
    """
    params = load("study")
    for name, place in (("DATA", params.corpus), ("SCIBERT", params.caption_tokenizer)):
        target, given = root() / place, os.environ.get(name) or ""
        path = Path(given).expanduser() if given else target
        if not path.is_file():
            raise CompanionError(f"{name}: no file {path}. Give {ORIGINS[name]}: make study {name}=FILE")
        if name == "SCIBERT":
            try:
                caption_tokenizer(str(path))
            except ValueError as error:
                raise CompanionError(f"{name}: {error}: give {ORIGINS[name]}") from None
        elif not zipfile.is_zipfile(path) or not knowledge(Source(str(path.resolve()))).tree:
            raise CompanionError(f"{name}: {path} is no zip that holds nested_props.json: give {ORIGINS[name]}")
        if path.resolve() != target.resolve():
            with atomic(target) as part:
                shutil.copyfile(path, part)


def _run() -> None:
    if reproduce("study", 2):
        raise CompanionError("the notebooks did not end well: see runs/study/logs, then run the same command again")


PARTS: dict[str, Callable[[], object]] = {
    "backbones": backbones.build,
    "curve": lambda: backbones.build(backbones.CURVE),
    "models": models.main,
    "learned": models.curve,
    "baselines": baselines.main,
    "errors": errors.main,
    "run": _run,
    "variants": variants.main,
    "rates": variants.rates,
    "rare": rare.main,
    "costs": models.costs,
    "report": report.main,
    "figures": figures.main,
}

#: Parts that need only what others made.
READS_NO_FILES = {"costs", "report", "figures"}

if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        sys.exit(report.check())
    unknown = [name for name in sys.argv[1:] if name not in PARTS]
    if unknown:
        sys.exit(f"no part {unknown[0]!r}: give some of {', '.join(PARTS)}, or check")
    try:
        if set(sys.argv[1:] or PARTS) - READS_NO_FILES:
            take_files()
        for part in sys.argv[1:] or PARTS:
            print(f"== {part}", flush=True)
            PARTS[part]()
    except CompanionError as error:
        print(f"make study: {remedy(error)}", file=sys.stderr)
        sys.exit(exit_status(error))
