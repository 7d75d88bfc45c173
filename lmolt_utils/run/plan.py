"""``lmolt plan`` and ``lmolt check``: what a profile costs, and whether this machine can run it, before it is spent.

No model is loaded. Sizes are those of the files that are here, else the stated ones of :data:`STATED`; memory and
hours are estimates by the rules below, said to be so. They follow a Llama of 7B (32 layers of width 4,096).
"""

import ctypes
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lmolt_utils.config.params import ParameterError, Params, load
from lmolt_utils.config.prompts import TASKS
from lmolt_utils.config.systems import MERGES, PUBLISHED, planned
from lmolt_utils.errors import CompanionError, TryAgainError
from lmolt_utils.paths import from_root, run_folder, shown
from lmolt_utils.run.hub import LPM24, LPM24_EXTRA, answers, snapshot
from lmolt_utils.run.notebooks import with_data_switches
from lmolt_utils.run.steps import records

GIB = 2**30
#: Where a profile names what may have to be downloaded, and the notebooks that read it.
NAMES = {
    "corpus": "01", "test_corpus": "01", "base_model": "05 06", "cap2mol_model": "01 03 04 05 06",
    "mol2cap_model": "03 05 06", "negatives_mol2cap_model": "02", "negatives_cap2mol_model": "02", "nli_model": "07",
    "txtchem_model": "03 06", "chemllm_model": "03 06", "caption_tokenizer": "07", "decomposer_model": "07",
}  # fmt: skip
#: 10^9 weights and bytes per weight on the hub, from the models' configurations (not asked of the hub).
STATED = {
    "epfl-llm/meditron-7b": (6.74, 2), "language-plus-molecules/Meditron7b-caption2smiles-LPM24": (6.74, 4),
    "language-plus-molecules/Meditron7b-smiles2caption-LPM24": (6.74, 4),
    "language-plus-molecules/molt5-large-smiles2caption-LPM24": (0.78, 4),
    "language-plus-molecules/molt5-large-caption2smiles-LPM24": (0.78, 4),
    "MoritzLaurer/DeBERTa-v3-large-mnli-fever-anli-ling-wanli": (0.44, 2),
    "GT4SD/multitask-text-and-chemistry-t5-base-standard": (0.25, 4), "AI4Chem/ChemLLM-7B-Chat": (7.74, 2),
    "meta-llama/Meta-Llama-3-8B-Instruct": (8.03, 2), LPM24: (0.02, 1), LPM24_EXTRA: (0.02, 1),
    "allenai/scibert_scivocab_uncased": (0.02, 1),
}  # fmt: skip
#: Parameters that name no model, and what the hub calls what they name.
_DATA = {"corpus": "dataset", "test_corpus": "dataset", "caption_tokenizer": "vocabulary"}
#: Owners whose models need a login and their consent.
GATED = ("meta-llama/",)
#: Tokens of a pair of L+M-24's lengths (python -m benchmarks.gpu --tiny prints them), and pairs in a 10 % sample.
PAIR_TOKENS, PAIRS = {"sft": 252, "dpo": 329, "cpo": 329, "kto": 509}, 25_372
#: Tokens per second of a 7B QLoRA training: Qwen-7B's README at 1,024 and 2,048 tokens on an A100 80 GB. Not ours.
TOKENS_PER_S = 2341.0
#: Assumed seconds per generated token of a whole batch: for 7B in NF4, and the least for smaller models. An answer is
#: taken to be half of max_new_tokens.
STEP_S, LEAST_STEP_S = 0.07, 0.03


@dataclass(frozen=True)
class Needed:
    """Something that a parameter names: 10^9 weights (0: data), GiB of its files, and whether they are here."""

    parameter: str
    reference: str
    billions: float | None
    gib: float | None
    place: str

    @property
    def missing(self) -> bool:
        return self.place in ("to download", "not here")


def gpus() -> list[float]:
    """GiB of each CUDA device that this process may use: asked of the driver, as importing torch takes seconds."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, device, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    sizes = []
    for index in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        sizes.append(size.value / GIB)
    return sizes


def needed(params: Params, notebook: str = "", run: Path | None = None) -> Iterator[Needed]:
    """What the profile (or one notebook of it) names of models and data, but for those that come with the package.

    A corpus that the ``run`` (its folder; default: the profile's) has loaded is needed no more.
    """
    loaded = ((run or run_folder(params.profile)) / "data" / "corpus.manifest.json").exists()
    for parameter, readers in NAMES.items():
        reference = getattr(params, parameter)
        if parameter == "test_corpus" and params.test_set.startswith("extra_") and params.corpus.split("@")[0] == LPM24:
            reference = reference or LPM24_EXTRA  # as lmolt_utils.data.sample has it
        unused = params.negatives != "translator" and parameter.startswith("negatives_")
        unused |= loaded and parameter in ("corpus", "test_corpus")
        if reference is None or reference in ("embedded", "auto", "regex") or reference.startswith("embedded:"):
            continue
        if unused or (notebook and notebook[:2] not in readers):
            continue
        folder, place = Path(from_root(reference)).expanduser(), "local"
        if not folder.exists():
            if reference.startswith(("/", ".", "~")) or reference.count("/") != 1:
                yield Needed(parameter, reference, None, None, "not here")
                continue
            kind = _DATA.get(parameter)
            place = "hub's cache" if (cached := snapshot(reference, kind or "model")) else "to download"
            folder = cached or folder
        billions, size = STATED.get(reference.partition("@")[0], (None, 0))
        gib = None if billions is None else billions * 1e9 * size / GIB
        if place != "to download":
            files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else [folder]
            gib = sum(path.stat().st_size for path in files) / GIB
            billions = gib * GIB / 4e9 if billions is None else billions  # float32, if nobody says otherwise
        billions = 0.0 if parameter in _DATA else billions
        yield Needed(parameter, reference, billions, gib, place)


def _gpu_gib(params: Params, billions: float, method: str) -> float:
    """Most memory of a training or, by ``none``, of generating: weights, adapter with Adam, activations or KV cache."""
    byte = 0.65 if params.quantize == "nf4" else 2 if params.dtype == "bfloat16" else 4  # embeddings stay float32
    share, weights = billions / 6.74, billions * 1e9 * byte / GIB
    cache = params.generation_batch * (params.max_new_tokens + 512) * 0.5 * share / 1024  # 0.5 MiB a token
    if method == "none":
        return 1 + weights + cache
    adapter = 0.024 * params.lora_rank / 64 * billions * 1e9 * 16 / GIB  # float32 weight, gradient, two moments
    tokens = params.micro_batch * (1 if method == "sft" else 2) * params.max_length
    return 1 + weights + max(adapter + tokens * 0.6 * share / 1024, cache)  # 0.6 MiB a token


@dataclass(frozen=True)
class Row:
    """What one system (or a notebook's own work) takes; ``hours``: ``None`` where nobody knows."""

    notebook: str
    name: str
    disk: float
    gpu: float | None
    hours: float | None
    done: str


def rows(params: Params, wanted: Sequence[Needed], rate: float = TOKENS_PER_S) -> list[Row]:
    """The negatives, every system that needs a model, and the facts of a language model, with what is done of each."""
    made = {record["step"]: record["wall_s"] for record in records(run_folder(params.profile)).values()}
    size = {one.parameter: one.billions or 0.0 for one in wanted}
    known = params.device == "cuda" and any(size.values())
    pairs = PAIRS * params.sample_share / 0.1

    def answers_h(texts: float, tokens: int, billions: float) -> float:
        step = max(LEAST_STEP_S, STEP_S * billions / 6.74)
        return texts / params.generation_batch * tokens / 2 * step / 3600

    def row(notebook: str, name: str, disk: float, gpu: float, hours: float, steps: Sequence[str]) -> Row:
        took = [made[step] for step in steps if step in made]
        done = f"in {sum(took) / 60:.1f} min" if len(took) == len(steps) else f"{len(took)} of {len(steps)} steps"
        left = 0.0 if len(took) == len(steps) else hours if known else None
        return Row(notebook, name, 0.0 if left == 0 else disk, gpu if known else None, left, done)

    found, merges = [], set[Any]()
    if params.negatives == "translator":
        largest = max(size.get(f"negatives_{task}_model", 0.0) for task in TASKS)
        gpu, hours = _gpu_gib(params, largest, "none"), answers_h(pairs, params.max_new_tokens, largest)
        found.append(row("02_negatives", "negatives", 0.0, gpu, hours, [f"negatives {task}" for task in TASKS]))
    for system in (one for one in planned(params) if one.init != "baseline"):
        own, trained = system.params(params), system.method != "none" and system.adapter_of == system.name
        billions = size.get(PUBLISHED.get(system.init, "cap2mol_model"), 0.0)
        disk = 0.024 * own.lora_rank / 64 * billions * 4e9 / GIB if trained else 0.0
        if system.init in MERGES:
            brief = system.notebook == "06_ablation" and not params.keep_merges  # one at a time
            merge = brief or (system.init, own.mol2cap_share, own.ties_density)
            disk += 0.0 if merge in merges else billions * 1e9 * (4 if params.merge_dtype == "float32" else 2) / GIB
            merges.add(merge)
        hours = pairs * own.epochs * PAIR_TOKENS[system.method] * billions / 6.74 / rate / 3600 if trained else 0.0
        hours += answers_h(2 * params.test_rows, params.max_new_tokens, billions)
        steps = [f"train {system.name}"] * trained + [f"predict {system.name} {task}" for task in TASKS]
        found.append(row(system.notebook, system.name, disk, _gpu_gib(own, billions, system.method), hours, steps))
    if params.decomposer_model:
        billions, name = size.get("decomposer_model", 0.0), "facts by a language model"
        hours = answers_h(params.test_rows * len(found), params.decomposer_new_tokens, billions)  # if no two are equal
        found.append(row("07_nli_evaluation", name, 0.0, _gpu_gib(params, billions, "none"), hours, [name]))
    return found


def problems(
    params: Params, notebook: str = "", run: Path | None = None, *, here: bool = True, network: bool = True
) -> list[CompanionError]:
    """What keeps the profile, or one notebook of it, from running.

    ``here``: on this machine, not on a cluster's; ``network``: ask whether the hub answers, if something must come
    from it.
    """
    found: list[CompanionError] = []
    wanted, named = list(needed(params, notebook, run)), f"profile {params.profile!r}"
    table = rows(params, wanted) if here and (wanted or not notebook) else []
    if here and params.device == "cuda" and notebook[:2] not in ("01", "08"):
        sizes, most = gpus(), max((row.gpu or 0 for row in table), default=0.0)
        if not sizes:
            told = "needs a CUDA device and there is none here: use a machine that has one, or profile cpu"
            found.append(CompanionError(f"{named} {told}"))
        elif max(sizes) < most:
            told = f"about {most:.0f} GiB of GPU memory are needed and the largest has {max(sizes):.0f}"
            found.append(CompanionError(f"{named}: {told}: lower micro_batch, generation_batch or max_length"))
    memory, least = psutil.virtual_memory().total / GIB, 1 + 2 * max((one.billions or 0 for one in wanted), default=0)
    if here and memory < least:
        found.append(CompanionError(f"{named}: about {least:.0f} GiB of memory are needed, {memory:.0f} are here"))
    for one in wanted:
        said = f"{one.parameter} = {one.reference}"
        if one.place == "not here":
            found.append(CompanionError(f"{said}: no such file or folder (relative ones: from the repository's root)"))
        elif one.place == "to download" and one.reference.startswith(GATED):
            from huggingface_hub import get_token

            if not get_token():
                told = "its owner must agree first: ask on its page, then hf auth login; or name another, or null"
                found.append(CompanionError(f"{said}: {told}"))
    absent = [f"{one.parameter} = {one.reference}" for one in wanted if one.place == "to download"]
    if network and absent and not answers():
        told = "the hub does not answer, and its cache here lacks " + ", ".join(absent)
        copy = "hf download ID --local-dir FOLDER (a data set: --repo-type dataset)"
        found.append(TryAgainError(f"{told}. Where there is a network: {copy}; then give FOLDER as the parameter"))
    if here and not notebook:
        left = sum(row.disk for row in table) + sum(one.gib or 0 for one in wanted if one.missing)
        free = shutil.disk_usage(next(path for path in run_folder(params.profile).parents if path.exists())).free / GIB
        if left > free:
            told = f"about {left:.0f} GiB of disk are needed and {free:.0f} are free"
            found.append(CompanionError(f"{named}: {told}: free some, or set LMOLT_RUNS and HF_HOME"))
    return found


def stop_if(found: Sequence[CompanionError]) -> None:
    """Raise all of ``found`` as one error: :class:`TryAgainError` where each of them is one."""
    if found:
        kind = TryAgainError if all(isinstance(error, TryAgainError) for error in found) else CompanionError
        raise kind("\n  ".join(map(str, found)))


def check(profile: str, *, network: bool = True) -> int:
    """``lmolt check``: 0, or an error that names all that is missing."""
    params = with_data_switches(load(profile))
    stop_if(problems(params, network=network))
    print(f"profile {profile}: this machine can run it")
    return 0


def plan(profile: str, rate: float | None = None) -> int:
    """``lmolt plan``: print what the profile downloads and costs, and what is done; 0, or what :func:`check` says."""
    if rate is not None and not 0 < rate < float("inf"):
        raise ParameterError(f"--tokens-per-s {rate:g} is no rate: give tokens per second, such as 2341")
    params = with_data_switches(load(profile))
    wanted = list(needed(params))
    table = rows(params, wanted, rate or TOKENS_PER_S)
    print(f"profile {profile}, files in {shown(run_folder(profile))}\n\n{'GiB':>7}  models and data")
    for one in wanted:
        print(f"{_number(one.gib)}  {one.parameter} = {one.reference}: {one.place}")
    print(f"{'':7}  {'all others come' if wanted else 'all come'} with the package")
    print(f"\n{'notebook':17} {'what':25} {'disk GiB':>8} {'GPU GiB':>7} {'hours':>7}  done")
    for row in table:
        print(f"{row.notebook:17} {row.name:25} {row.disk:8.1f} {_number(row.gpu)} {_number(row.hours)}  {row.done}")
    fetched = sum(one.gib or 0 for one in wanted if one.missing)
    hours = [row.hours for row in table]
    whole = "not known (README: Larger scales)" if None in hours else f"{sum(filter(None, hours)):.0f} hours"
    print(
        f"\nstill to come: {fetched:.0f} GiB of downloads, {sum(row.disk for row in table):.0f} GiB of models, {whole}"
    )
    if wanted and rate is None:
        told = f"{TOKENS_PER_S:,.0f} tokens/s, as Qwen-7B's README has for QLoRA on an A100 with 80 GB"
        print(f"estimated, not measured: trainings at {told}; answers at {STEP_S} s per token of a batch;")
        print("facts of a language model if no two captions are equal; without scoring and NLI")
        print("python -m benchmarks.gpu measures this GPU; lmolt plan --tokens-per-s N counts with it")
    return check(profile, network=False)


def _number(value: float | None) -> str:
    return f"{'?' if value is None else '< 0.1' if 0 < value < 0.05 else format(value, '.1f'):>7}"
