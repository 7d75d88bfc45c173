"""The ``lmolt`` command. Each subcommand is one call into the package; errors end in one clear message."""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmolt_utils.errors import CompanionError, exit_status, remedy
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.vocabulary import Vocabulary

STATUS = """exit status: 0 done; 1 a step failed; 2 something asked for or given is wrong; 3 (claims) a verdict changed;
75 try again later, as the hub or the machine was away; 130 interrupted: the same command goes on"""


def _reproduce(arguments: argparse.Namespace) -> int:
    from lmolt_utils.run.reproduce import reproduce

    if arguments.redo:
        os.environ["LMOLT_REDO"] = arguments.redo
    return reproduce(arguments.profile, arguments.cores, per_system=arguments.per_system, extra=arguments.snakemake)


def _plan(arguments: argparse.Namespace) -> int:
    from lmolt_utils.run.plan import plan

    return plan(arguments.profile, arguments.tokens_per_s)


def _check(arguments: argparse.Namespace) -> int:
    from lmolt_utils.run.plan import check

    return check(arguments.profile)


def _lab(arguments: argparse.Namespace) -> int:
    from lmolt_utils.paths import root
    from lmolt_utils.run.copies import lab_copies

    folder = lab_copies(arguments.profile).resolve()
    top = os.path.commonpath([root().resolve(), folder])  # the repository, unless LMOLT_RUNS lies elsewhere
    first = (folder / "01_data.ipynb").relative_to(top).as_posix()
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={top}"]
    os.execv(sys.executable, [*command, f"--LabApp.default_url=/lab/tree/{first}", *arguments.jupyter])


def _params(arguments: argparse.Namespace) -> int:
    from lmolt_utils.config.params import Params, describe, load

    values = load(arguments.profile)
    for name in Params.model_fields:
        facts = describe(name)
        unit = f" {facts['unit']}" if facts["unit"] else ""
        print(f"{name} = {getattr(values, name)}{unit}\n    {facts['meaning']} [{facts['source']}]")
    return 0


def _systems(_: argparse.Namespace) -> int:
    from lmolt_utils.config.systems import load_systems

    for row in load_systems():
        rows = ", ".join(f"{table} {label!r}" for table, label in row.rows.items()) or "figures only"
        print(f"{row.name:16} {row.notebook:13} init {row.init:9} method {row.method:5} -> {rows}")
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from lmolt_utils.metrics.prediction_files import score_file

    return score_file(arguments)


def _claims(arguments: argparse.Namespace) -> int:
    from lmolt_utils.figures.claims import decide

    return decide(arguments.profile)


def _report(arguments: argparse.Namespace) -> int:
    from lmolt_utils.figures.report import report

    return report(arguments.profile)


def _why(arguments: argparse.Namespace) -> int:
    from lmolt_utils.run.why import why

    return why(arguments.table, arguments.row, arguments.metric)


def _crate(arguments: argparse.Namespace) -> int:
    from lmolt_utils.run.crate import write_crate

    return write_crate(Path(arguments.run), Path(arguments.out))


def _switches(_: argparse.Namespace) -> int:
    from lmolt_utils.config.switches import shown, switches

    for name, switch in switches().items():
        print(f"{name} [audit {switch.audit}]: {switch.text}")
        print(f"    as_printed   {shown(switch.as_printed)}\n    as_released  {shown(switch.as_released)}")
        print("    corrected    the profile's")
    return 0


def _atoms(arguments: argparse.Namespace) -> int:
    from lmolt_utils.metrics.prediction_files import read_captions, refuse_molecules

    decompose, captions = _rules(arguments.vocabulary), read_captions(arguments.file)
    refuse_molecules(captions, arguments.file)
    for caption in captions:
        rows = [{"text": atom.text, "property": atom.property} for atom in decompose(caption)]
        print(json.dumps({"caption": caption, "atoms": rows}, ensure_ascii=False))
    return 0


def _nli(arguments: argparse.Namespace) -> int:
    import torch

    from lmolt_utils.nli.command import judge

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise CompanionError("--device cuda is not to be had here: leave it out, for the CPU")
    return judge(arguments, _rules(arguments.vocabulary))


def _rules(vocabulary: str | None) -> Decomposer:
    """With a vocabulary file: its names only. Without: the shipped names, and any phrase in a name's place."""
    names = Vocabulary.embedded() if vocabulary is None else Vocabulary.read(Path(vocabulary))
    return Decomposer(names, open_vocabulary=vocabulary is None)


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few: 1 or more")
    return number


def _parser() -> argparse.ArgumentParser:
    about = "The reproducible companion to Less for More and its two predecessors."
    parser = argparse.ArgumentParser(prog="lmolt", description=about, epilog=STATUS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, do: Callable[[argparse.Namespace], int], text: str) -> Any:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(do=do)
        return sub

    def profile(sub: Any) -> None:
        sub.add_argument("--profile", default="cpu", help="params/PROFILE.yaml (default: cpu)")

    sub = command("reproduce", _reproduce, "run what is not done yet of the eight notebooks")
    profile(sub)
    cores = min(4, os.cpu_count() or 1)
    sub.add_argument("--cores", type=_count, default=cores, help="notebooks side by side (default: %(default)s)")
    sub.add_argument("--per-system", action="store_true", help="train each system in a job of its own (clusters)")
    redo = "make steps again that older code made, however long they took: all, or a pattern such as 'train*'"
    sub.add_argument("--redo", nargs="?", const="1", metavar="STEPS", help=redo)
    sub.add_argument("snakemake", nargs="*", help="further arguments for Snakemake, after --")
    sub = command("plan", _plan, "what a profile downloads and costs per system, and whether this machine can run it")
    profile(sub)
    sub.add_argument("--tokens-per-s", type=float, metavar="N", help="of a 7B training, by python -m benchmarks.gpu")
    profile(command("check", _check, "whether this machine can run a profile: device, memory, disk, models, login"))
    sub = command("lab", _lab, "open a profile's own copies of the notebooks in JupyterLab (runs/PROFILE/lab)")
    profile(sub)
    sub.add_argument("jupyter", nargs="*", help="further arguments for JupyterLab, after --")
    profile(command("params", _params, "list every parameter of a profile: value, unit, meaning, source"))
    command("systems", _systems, "list the systems table")
    profile(command("claims", _claims, "decide the papers' claims by a finished run; exit status 3: a verdict changed"))
    profile(command("report", _report, "make the one-page report again from a run's tables, figures and records"))
    sub = command("why", _why, "walk from a cell of a table back to its corpus: files, steps, parameters, commits")
    for name, example in (("table", "figures/table_T2.csv"), ("row", "CPO"), ("metric", "BLEU-2")):
        sub.add_argument(name, help=f"such as {example}")
    sub = command("crate", _crate, "export a run, with its provenance, as a Workflow Run RO-Crate")
    sub.add_argument("run", help="a run's folder, such as runs/cpu")
    sub.add_argument("out", help="a new folder, or a .zip")
    command("switches", _switches, "list where the papers' text and code disagree, and what each choice sets")
    sub = command("score", _score, "score one predictions file: a table, and JSON where asked")
    sub.add_argument("file", help="JSON lines, a table or a submission, gzipped or zipped or not; - for standard input")
    sub.add_argument("--task", choices=("mol2cap", "cap2mol"), help="only where the file does not say it")
    sub.add_argument("--reference", help="file with the references, where FILE has outputs only")
    sub.add_argument("--invalid", choices=("lpm24", "molt5"), default="lpm24", help="default: %(default)s")
    tokenizers = "of BLEU and METEOR: auto, regex, a folder, a vocab.txt or a hub id"
    sub.add_argument("--tokenizer", default="auto", help=tokenizers)
    sub.add_argument("--meteor", choices=("auto", "wordnet", "exact+stem"), default="auto", help="METEOR's matching")
    rules = ("clean", "as_released", "none")
    sub.add_argument("--postprocess", choices=rules, help="of the raw outputs (default: none, as given)")
    sub.add_argument("--json", metavar="OUT", help="write metrics and conventions")
    sub = command("atoms", _atoms, "split captions, one per line, into atomic facts: one JSON object per line")
    sub.add_argument("file", help="one caption per line, or predictions as for lmolt score; - for standard input")
    names = "property names: L+M-24's nested_props.json, or one a line; no others count (default: any)"
    sub.add_argument("--vocabulary", metavar="FILE", help=names)
    sub = command("nli", _nli, "hallucination, coverage and unsupported rate of a file of captions, and baselines")
    sub.add_argument("file", help="JSON lines, a table or a submission, as for lmolt score")
    sub.add_argument("--reference", help="file with the references, where FILE has outputs only")
    sub.add_argument("--model", default="embedded:nli", help="folder or hub id (default: %(default)s)")
    sub.add_argument("--vocabulary", metavar="FILE", help="property names, as for lmolt atoms")
    sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s")
    sub.add_argument("--batch-tokens", type=_count, default=4096, help="tokens per forward pass (default: %(default)s)")
    released = "labels by index and the corpus mean as the authors' cross-nli 0.1.0 has them (lmolt switches: nli)"
    sub.add_argument("--as-released", action="store_true", help=released)
    sub.add_argument("--json", metavar="OUT", help="write rows, means and counts")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status (:data:`STATUS`)."""
    arguments = _parser().parse_args(argv)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # end in order, as Ctrl-C does
            # A script's background (&) ignores SIGINT, and so would Snakemake; nohup's SIGHUP is ignored on purpose.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
    try:
        return int(arguments.do(arguments))
    except KeyboardInterrupt:
        print("interrupted: what was finished stays; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is it told at exit
        return 141
    except (ValueError, RuntimeError, OSError) as error:
        print(f"lmolt: {remedy(error)}", file=sys.stderr)
        return exit_status(error)


if __name__ == "__main__":
    sys.exit(main())
