"""What all figures share: one look, the words for what did not run, and the saver.

A drawing function returns the figure and a frame of exactly what it plots. A system without a score is drawn as "not
run" or named in the figure's note, never left out. Colours always come with a second cue (marker, line style or hatch).
"""

import functools
import math
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from lmolt_utils.config.prompts import Task
from lmolt_utils.files import atomic, write_text
from lmolt_utils.metrics.results import NOT_RUN
from lmolt_utils.run.notebook import Run

# Loading the backend switches interactive drawing on where a notebook wants it. Done inside a style's context, as the
# first figure would, it is switched off again at its end, and no later cell shows its plot.
plt.switch_backend(plt.get_backend())

STYLE = Path(__file__).with_name("companion.mplstyle")
#: Widths of a column and of the text block in inches (ACL's two-column style, which Less for More uses).
ONE_COLUMN = 3.03
TWO_COLUMNS = 6.30
MUTED = "0.45"
#: How a notebook shows a long table: each row one small line.
SMALL: dict[str, Any] = {"white-space": "nowrap", "font-size": "80%", "padding": "1px 6px"}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":")

TASK_TITLES: dict[Task, str] = {"mol2cap": "Molecule to caption", "cap2mol": "Caption to molecule"}
#: The one metric per task that overviews show; both lie between 0 and 1.
HEADLINE: dict[Task, str] = {"mol2cap": "BLEU-2", "cap2mol": "MACCS"}
UNDEFINED = "undefined"  # it ran, but the number does not exist (FCD without a valid molecule)

Drawn = tuple[Figure, pd.DataFrame]
_P = ParamSpec("_P")


def styled(draw: Callable[_P, Drawn]) -> Callable[_P, Drawn]:
    """Draw in the companion's style; close the figure so that a notebook shows it once.

    The first line of the function's docstring becomes the figure's label: its text for those who cannot see it.
    """

    @functools.wraps(draw)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> Drawn:
        with plt.style.context(STYLE):
            figure, data = draw(*args, **kwargs)
            plt.close(figure)
        figure.set_label(str(draw.__doc__).partition("\n")[0])
        for text in figure.findobj(Text):  # a system's label is text, also with "${" in it
            text.set_parse_math("$" not in text.get_text())
        return figure, data

    return wrapped


def colour_of(index: int) -> str:
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    return str(colours[index % len(colours)])


def line_of(index: int) -> Any:
    """A line style that changes with every series: outlines of histograms have no markers."""
    return _LINES[index % len(_LINES)]


def look_of(index: int) -> dict[str, Any]:
    """Colour, marker and line style of the ``index``-th series; 28 differ, seven in colour and marker."""
    return {"color": colour_of(index), "marker": _MARKERS[index % len(_MARKERS)], "linestyle": line_of(index)}


def add_note(figure: Figure, text: str) -> None:
    wrapped = textwrap.fill(text, width=int(19.5 * figure.get_figwidth()))
    figure.supxlabel(wrapped, x=0.01, ha="left", fontsize=6.5, color=MUTED)


def mark_empty(axes: Axes, text: str = NOT_RUN) -> None:
    """Say inside an empty panel why it is empty."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)


def number_or_word(value: float) -> float | str:
    """The number to draw, or the word for none (NaN) and for an undefined one (infinity)."""
    return NOT_RUN if math.isnan(value) else UNDEFINED if math.isinf(value) else value


def not_run_note(labels: Iterable[str]) -> str:
    missing = list(dict.fromkeys(labels))
    return f"Not run: {', '.join(missing)}." if missing else ""


def save_figure(run: Run, name: str, drawn: Drawn) -> Figure:
    """Write a figure to the run's figures, as :func:`write_figure`; returns it."""
    write_figure(run.figures, name, drawn)
    run.wrote(*(run.figures / f"{name}.{ending}" for ending in ("pdf", "png", "csv")))
    return drawn[0]


def write_figure(folder: Path, name: str, drawn: Drawn) -> None:
    """Write ``name.pdf``, ``name.png`` and ``name.csv`` (what is plotted) into ``folder``.

    The same figure gives the same bytes: no dates are written. The figure's label goes into both files' metadata.
    """
    figure, data = drawn
    alt = figure.get_label()
    metadata = {
        "pdf": {"CreationDate": None, "Title": name, "Subject": alt},
        "png": {"Title": name, "Description": alt},
    }
    with plt.style.context(STYLE):
        for ending, facts in metadata.items():
            with atomic(folder / f"{name}.{ending}") as part:
                figure.savefig(part, format=ending, metadata=facts)
    write_text(folder / f"{name}.csv", data.to_csv(index=False, lineterminator="\n", float_format="%.10g"))
