"""The parameters of a run: typed, each with its unit and where its value comes from.

A profile (``params/<profile>.yaml``) gives every one of them. Anything unknown, missing or of the wrong type
stops the run before any work; the message names the key and the nearest right one.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from lmolt_utils.config.prompts import Layout
from lmolt_utils.config.switches import check_choices
from lmolt_utils.errors import CompanionError
from lmolt_utils.paths import root


class ParameterError(CompanionError):
    """A parameter that is unknown, missing or of the wrong type."""


def _p(meaning: str, source: str, unit: str = "", **limits: Any) -> Any:
    """A required parameter: its meaning, the source of its value and its unit."""
    return Field(description=meaning, json_schema_extra={"source": source, "unit": unit}, **limits)


_Share = Annotated[float, Field(ge=0, le=1)]


class Params(BaseModel):
    """All parameters of the companion. ``L4M`` is Less for More, ``code`` the papers' released code."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    profile: str = _p("name of the profile, and of its folder below runs/", "ours", pattern=r"^[A-Za-z0-9_-]+$")
    seed: int = _p("seed of every random choice", "ours; the released code sets none", ge=0)
    threads: int = _p("CPU threads of one notebook", "ours", "threads", ge=1)
    ablation_jobs: int = _p(
        "jobs that make 06's systems side by side before it shows them; 1: the notebook makes them itself",
        "ours",
        "jobs",
        ge=1,
    )
    device: Literal["cpu", "cuda"] = _p("where models run", "ours; the papers do not say which GPU")
    redo_below_s: float = _p(
        "a step is made again for a change of code alone if it took less than this; longer ones are kept and marked",
        "ours",
        "seconds",
        ge=0,
    )
    figures_dir: str = _p("folder that 08_figures writes to, from the repository root", "ours")

    corpus: str = _p("'embedded', or a local file or folder, or hub id, of molecules and captions", "L4M §4.1: L+M-24")
    corpus_revision: str | None = _p("revision of a hub corpus; null: the newest, whose commit is kept", "ours")
    corpus_rows: int = _p("molecules of the embedded corpus", "ours", "molecules", ge=100)
    corpus_seed: int = _p("seed of the embedded corpus, and of captions and splits that a corpus lacks", "ours", ge=0)
    max_bad_share: float = _p("share of malformed rows above which loading stops", "ours", ge=0, lt=1)
    sample_share: float = _p("share of the training split used for alignment", "L4M §4.1", gt=0, le=1)
    sample_pools: Literal["shared", "independent"] = _p(
        "one sample for both tasks, or one for each", "L4M §4.1: shared; code: independent; audit D23"
    )
    test_set: Literal[
        "test", "validation", "withheld_combos", "extra_valid", "extra_train", "eval_official", "chebi20"
    ] = _p(
        "what is tested: held-out molecules, property combinations absent from training, re-captioned ones, other sets",
        "ours; L4M App. D: extra_train or extra_valid; audit D21",
    )
    test_corpus: str | None = _p(
        "a copy of the test set's data; null: the hub's, or the corpus captioned again", "ours"
    )
    test_corpus_revision: str | None = _p("revision of a hub test set; null: as for the corpus", "ours")
    test_rows: int = _p("molecules in the test set", "L4M §4.1: 3k", "molecules", ge=2)

    base_model: str = _p(
        "model that both per-task models were fine-tuned from (TIES needs it); any model: folder or hub id[@revision]",
        "not stated; audit D40",
    )
    cap2mol_model: str = _p("per-task model, caption to molecule", "L4M App. J")
    mol2cap_model: str = _p("per-task model, molecule to caption", "L4M App. J")
    negatives: Literal["translator", "shuffled", "random", "property_edited", "nearest"] = _p(
        "where rejected answers come from: a translator, or references and edits drawn from the corpus",
        "L4M §4.1: MolT5; the others ours (audit D24)",
    )
    drop_equal: bool = _p(
        "leave out pairs whose rejected answer equals the chosen one; false: as released", "ours; audit D24"
    )
    negatives_shard_rows: int = _p(
        "answers of a translator kept at a time: what a killed run loses at most", "ours", "rows", ge=1
    )
    negatives_mol2cap_model: str = _p("translator that writes rejected captions", "code: create_negative.py")
    negatives_cap2mol_model: str = _p("translator that writes rejected molecules", "code: create_negative.py")
    nli_model: str = _p("NLI classifier (folder or hub id)", "L4M fn. 5")
    txtchem_model: str | None = _p(
        "the tables' TxtChem-T5, an encoder-decoder; null: not run", "code: Text+Chem T5, base-standard; audit D14"
    )
    chemllm_model: str | None = _p("the tables' Chem-LLM, a causal model; null: not run", "not stated; audit D14")
    baseline_prompt: Literal["native", "released"] = _p(
        "prompt of TxtChem-T5: its own, or the one of the released code", "its README; audit D14"
    )
    remote_code: list[str] = _p(
        "models whose own Python code may run when they are loaded, as named here", "ours: none"
    )
    quantize: Literal["none", "nf4"] = _p(
        "weights of the trained model in memory", "L4M Fig. 13 (prints nf64; audit D6)"
    )
    dtype: Literal["float32", "bfloat16"] = _p("compute type", "L4M Fig. 13: bfloat16; CPU: float32")

    semantics: Literal["as_printed", "as_released", "corrected"] = _p(
        "which of the papers' text, their code and the repaired one every switch follows (lmolt switches)", "ours"
    )
    switches: dict[str, str] = _p("single switches that differ from semantics, such as {sft_eos: as_released}", "ours")
    seeds: list[Annotated[int, Field(ge=0)]] = _p(
        "seeds of the tables' trained systems: the first is `seed`, each other one makes <system>@seed<k>",
        "ours; the papers report one run",
        min_length=1,
    )
    train_prompt: Layout = _p("white space of the prompt in training", "L4M App. F; audit D10, D13")
    test_prompt: Layout = _p("white space of the prompt at test time", "L4M App. F; audit D10")
    save_steps: int = _p("steps between two checkpoints of a training (it goes on after a kill)", "ours", "steps", ge=1)
    stop_above: float = _p(
        "a training stops when its loss, over a tenth of its steps, exceeds so many times its largest early loss",
        "ours",
        "times",
        gt=1,
    )

    epochs: float = _p("passes over the training pairs", "L4M Fig. 14", "epochs", gt=0)
    effective_batch: int = _p("rows per optimiser step", "L4M Fig. 14: batch 1 x accumulation 64", "rows", ge=2)
    micro_batch: int = _p(
        "rows per forward pass, a divisor of effective_batch (even: KTO pairs chosen with rejected answers)",
        "ours; gradients accumulate",
        "rows",
        ge=2,
        multiple_of=2,
    )
    learning_rate: float = _p("peak learning rate", "L4M Fig. 14: 5.0e-5 at 7B", gt=0)
    scheduler: Literal["cosine", "linear", "constant"] = _p("learning-rate schedule", "L4M Fig. 14: cosine")
    warmup_share: float = _p("share of the steps spent warming up", "L4M Fig. 14", ge=0, lt=1)
    max_grad_norm: float = _p("gradient clipping", "L4M Fig. 14", gt=0)
    weight_decay: float = _p("AdamW's weight decay", "library default; code: 0.001 in SFT alone", ge=0)
    beta: float = _p("strength of the preference term", "code: 0.1; L4M App. C: 0.1 to 0.5", gt=0)
    cpo_alpha: float = _p("weight of CPO's SFT term", "TRL default; L4M Eq. 4", ge=0)
    cpo_nll: Literal["sum", "row_mean"] = _p(
        "SFT term of CPO (and of DPO with dpo_alpha): the answer's log-likelihood, or that per token",
        "L4M Eq. 4: sum; code: row_mean; audit D9",
    )
    dpo_loss: Literal["sigmoid", "kto_pair"] = _p("DPO's loss", "L4M Eq. 3; code: kto_pair")
    dpo_alpha: float = _p("weight of an SFT term in DPO (0: none)", "L4M Eq. 3 has none", ge=0)
    kto_format: Literal["plain", "chatml"] = _p(
        "prompts as for the others, or ChatML with tokens that are never trained", "L4M App. F; audit D17"
    )
    kto_desirable: float = _p("weight of chosen answers in KTO (lambda_w)", "code: 1", ge=0)
    kto_undesirable: float = _p("weight of rejected answers in KTO (lambda_l)", "code: 1", ge=0)
    sft_eos: Literal["append", "none"] = _p("end-of-text token after the answer in SFT", "ours; audit D15")
    sft_loss_on: Literal["answer", "all"] = _p("tokens that SFT learns", "L4M Eq. 2; code: all")
    lora_rank: int = _p("LoRA rank", "L4M Fig. 15", ge=1)
    lora_alpha: int = _p("LoRA alpha", "L4M Fig. 15", ge=1)
    lora_dropout: float = _p("LoRA dropout (TRL switches it off in DPO, CPO and KTO)", "L4M Fig. 15", ge=0, lt=1)
    dora: bool = _p("DoRA instead of LoRA", "L4M Fig. 15: LoRA; audit D5")
    max_length: int = _p("longest prompt plus answer", "ours", "tokens", ge=16)

    mol2cap_share: float = _p(
        "share of mol2cap in SLERP, NuSLERP, soup and task arithmetic", "L4M App. J: 1:18, so 1/19", ge=0, le=1
    )
    ties_density: float = _p("share of each task vector that the TIES rules keep", "L4M §3.2.1: top 20 %", gt=0, le=1)
    ties_mol2cap_share: float = _p(
        "mol2cap's share of the weights of the two task vectors in the TIES rules",
        "L4M §3.2.1: half the sum",
        ge=0,
        le=1,
    )
    merge_scale: float = _p(
        "factor λ on the merged task vector (TIES rules, task arithmetic)", "mergekit default; L4M prints none", gt=0
    )
    merge_filters: dict[str, _Share | list[_Share]] = _p(
        "part of a tensor's name -> mol2cap's share there, or a list of shares over the layers; the first that fits",
        "ours; L4M §4.2.2 blends all layers alike",
    )
    merge_dtype: Literal["float32", "bfloat16"] = _p(
        "type that merged weights are written in (computed in float32)", "L+M-24's models: float32"
    )
    ratio_grid: list[Annotated[float, Field(gt=0, lt=1)]] = _p(
        "further mol2cap shares of the SLERP+CPO sweep, each between 0 and 1, beside those of the systems table",
        "ours; L4M Fig. 4 names 1:18 alone",
    )
    keep_merges: bool = _p(
        "keep the weights of a sweep's merge after its predictions are made (else only its recipe)", "ours; disk space"
    )

    max_new_tokens: int = _p("longest generated answer", "code: 300", "tokens", ge=1)
    generation_batch: int = _p("prompts generated together", "ours", "rows", ge=1)
    caption_tokenizer: str = _p(
        "tokenizer of BLEU and METEOR: 'auto', a folder, a vocabulary file or a hub id", "L+M-24"
    )
    postprocess: Literal["clean", "as_released", "none"] = _p(
        "what is done to raw outputs before they are scored", "ours; as_released: code, audit D27"
    )
    property_tree: str | None = _p(
        "L+M-24's nested_props.json; null: the embedded corpus's kinds, or one category", "L+M-24"
    )
    withheld_combinations: str | None = _p(
        "L+M-24's train_withheld_combos.txt; null: the embedded corpus's pairs, or none", "L+M-24"
    )
    invalid: Literal["lpm24", "molt5"] = _p("invalid molecules count as 0, or are left out", "L+M-24")
    nli_batch_tokens: int = _p(
        "premise and hypothesis tokens per forward pass of the NLI model, padding included", "ours", "tokens", ge=64
    )
    decomposer: Literal["rules", "llm"] = _p(
        "who cuts captions into the facts that atomic cross-NLI compares: the grammar, or decomposer_model",
        "L4M App. E: a language model; audit D32",
    )
    decomposer_model: str | None = _p(
        "instruction-tuned causal model (folder or hub id) whose facts 07 compares with the grammar's; null: none",
        "L4M App. E: Meta-Llama-3-8B",
    )
    decomposer_new_tokens: int = _p("longest answer of decomposer_model", "ours", "tokens", ge=1)
    word_cuts: list[Annotated[int, Field(ge=1)]] = _p(
        "words of the reference from which a caption is long (Fig. 7) and extreme (Fig. 10)",
        "L4M §4.2.3: 50; App. B: 70",
        "words",
        min_length=2,
        max_length=2,
    )
    author_scores: str | None = _p(
        "file of the authors' per-caption scores (smiles2caption.txt of their repository); null: not drawn",
        "ALMol Fig. 1",
    )

    @field_validator("switches")
    @classmethod
    def _known_switches(cls, value: dict[str, str]) -> dict[str, str]:
        return check_choices(value)

    @field_validator("seeds")
    @classmethod
    def _different_seeds(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError("a seed comes twice, which would be the same training again")
        return value

    @field_validator("micro_batch")
    @classmethod
    def _whole_steps(cls, value: int, info: ValidationInfo) -> int:
        rows = info.data.get("effective_batch", value)
        if rows % value:
            fitting = [size for size in range(2, min(rows, value) + 1, 2) if rows % size == 0]
            hint = f": {max(fitting)} would do" if fitting else ": make effective_batch even"
            raise ValueError(f"effective_batch {rows} is no multiple of micro_batch {value}{hint}")
        return value

    @field_validator("decomposer_model")
    @classmethod
    def _somebody_decomposes(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("decomposer") == "llm":
            raise ValueError("decomposer: llm needs a model; name one, or set decomposer: rules")
        return value


def describe(name: str) -> dict[str, str]:
    """Meaning, unit and source of one parameter."""
    field = Params.model_fields[name]
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return {"meaning": field.description or "", "unit": str(extra["unit"]), "source": str(extra["source"])}


def nearest(name: str, known: list[str]) -> str:
    """The known names closest to ``name``, as an ending for an error message."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def profile_path(profile: str) -> Path:
    """The YAML file of a profile; raises :class:`ParameterError` naming the nearest one if there is none."""
    path = root() / "params" / f"{profile}.yaml"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", profile) or not path.is_file():
        known = profiles()
        raise ParameterError(
            f"no profile {profile!r} in {path.parent}{nearest(profile, known)} (there are: {', '.join(known)})"
        )
    return path


def profiles() -> list[str]:
    """Names of the profiles in ``params/``."""
    others = {"systems", "published", "claims", "effects"}
    return sorted(path.stem for path in (root() / "params").glob("*.yaml") if path.stem not in others)


class _EachKeyOnce(yaml.SafeLoader):
    """PyYAML's safe loader, which by itself lets the last of two equal keys win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is there twice", key.start_mark)
            seen.add(name)
        return dict(super().construct_mapping(node, deep))


def read_yaml(path: Path) -> Any:
    """Safe-loaded YAML; raises :class:`ParameterError` with the line when it cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is not readable YAML: {error}") from None


def load(profile: str, overrides: Mapping[str, Any] | None = None) -> Params:
    """The parameters of ``profile`` with ``overrides`` on top; raises :class:`ParameterError`."""
    values = read_yaml(profile_path(profile))
    if not isinstance(values, dict):
        raise ParameterError(f"{profile_path(profile)} is empty or no mapping of names to values")
    if values.get("profile", profile) != profile:
        raise ParameterError(
            f"{profile_path(profile)} says 'profile: {values['profile']}': write 'profile: {profile}' there, so that "
            "its files go to a folder of their own"
        )
    return check({**values, **(overrides or {})})


def check(values: Mapping[str, Any]) -> Params:
    """Validate plain values; raises :class:`ParameterError` with one line per problem."""
    try:
        return Params.model_validate(_floats(values))
    except ValidationError as error:
        raise ParameterError("\n".join(_explain(problem) for problem in error.errors())) from None


def _floats(values: Mapping[str, Any]) -> dict[str, Any]:
    """Whole numbers are welcome where a float is meant (``epochs: 3``); nothing else is converted."""
    out = dict(values)
    for name, field in Params.model_fields.items():
        value = out.get(name)
        if field.annotation is float and isinstance(value, int) and not isinstance(value, bool):
            out[name] = float(value)
    return out


def _explain(problem: Any) -> str:
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return f"unknown parameter {name!r}{nearest(name, list(Params.model_fields))}"
    if problem["type"] == "missing":
        return f"parameter {name!r} has no value: {describe(name)['meaning']}"
    hint = ""
    if problem["type"] == "float_type" and isinstance(problem["input"], str):
        hint = "; YAML reads 1e-5 as text, write 1.0e-5"
    return f"parameter {name!r} = {problem['input']!r}: {problem['msg']}{hint} ({describe(name)['meaning']})"
