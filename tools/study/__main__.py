"""``make study``: the study from the data set's release to its verdicts; each part goes on where it was stopped.

    python -m tools.study [backbones curve models baselines errors run variants costs report figures]

Without names all parts are made, in this order.
``report`` needs nothing but what the others left below ``runs/``; ``python -m tools.study check`` needs nothing but
what is committed: it decides every claim again from ``figures/study/numbers.npz``.
"""

import sys
from collections.abc import Callable

from lmolt_utils.errors import CompanionError
from lmolt_utils.run.reproduce import reproduce
from tools.study import backbones, baselines, errors, figures, models, report, variants


def _run() -> None:
    if reproduce("study", 2):
        raise CompanionError("the notebooks did not end well: see runs/study/logs, then run the same command again")


PARTS: dict[str, Callable[[], object]] = {
    "backbones": backbones.build,
    "curve": lambda: backbones.build(backbones.CURVE),
    "models": models.main,
    "baselines": baselines.main,
    "errors": errors.main,
    "run": _run,
    "variants": variants.main,
    "costs": models.costs,
    "report": report.main,
    "figures": figures.main,
}

if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        sys.exit(report.check())
    unknown = [name for name in sys.argv[1:] if name not in PARTS]
    if unknown:
        sys.exit(f"no part {unknown[0]!r}: give some of {', '.join(PARTS)}, or check")
    for part in sys.argv[1:] or PARTS:
        print(f"== {part}", flush=True)
        PARTS[part]()
