"""The parameters of a run: typed, each with its unit and where its value comes from.

A profile (``params/<profile>.yaml``) gives every one of them; a wrong one stops the run before any work.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from lmolt_utils.config.prompts import Template
from lmolt_utils.config.reading import ParameterError, Strict, explain, nearest, read_yaml
from lmolt_utils.config.switches import check_choices
from lmolt_utils.paths import root


def _p(meaning: str, source: str, unit: str = "", **limits: Any) -> Any:
    return Field(description=meaning, json_schema_extra={"source": source, "unit": unit}, **limits)


class Params(Strict):
    """All parameters of the companion. ``L4M`` is Less for More, ``code`` the papers' released code."""

    profile: str = _p("name of the profile, and of its folder below runs/", "ours", pattern=r"^[A-Za-z0-9_-]+$")
    seed: int = _p("seed of every random choice", "ours; the released code sets none", ge=0)
    threads: int = _p("CPU threads of one notebook", "ours", "threads", ge=1)
    ablation_jobs: int = _p("parallel jobs that make 06's systems; 1: the notebook makes them", "ours", "jobs", ge=1)
    device: Literal["cpu", "cuda"] = _p("where models run", "ours; the papers do not say which GPU")
    redo_below_s: float = _p("shorter steps are made again when only code changed", "ours", "seconds", ge=0)
    figures_dir: str = _p("folder that 08_figures writes to, from the repository root", "ours")

    # ---- data ----
    corpus: str = _p("molecules and captions: 'embedded', a local path, or a hub id[@revision]", "L4M §4.1: L+M-24")
    corpus_rows: int = _p("molecules of the embedded corpus", "ours", "molecules", ge=100)
    corpus_seed: int = _p("seed of the embedded corpus, and of captions and splits that a corpus lacks", "ours", ge=0)
    sample_share: float = _p("share of the training split used for alignment", "L4M §4.1", gt=0, le=1)
    sample_pools: Literal["shared", "independent"] = _p(
        "one sample for both tasks, or one for each", "L4M §4.1: shared; code: independent; audit D23"
    )
    test_set: Literal["test", "validation", "withheld_combos", "extra_valid", "extra_train"] = _p(
        "what is tested: held-out molecules, property combinations withheld from training, or re-captioned molecules",
        "ours; L4M App. D: extra_train or extra_valid; audit D21",
    )
    test_corpus: str | None = _p(
        "further captions for extra_...: a local path or a hub id[@revision]; null: L+M-24's, or the grammar's", "ours"
    )
    test_rows: int = _p("molecules in the test set", "L4M §4.1: 3k", "molecules", ge=2)
    property_tree: str | None = _p("nested_props.json; null: the embedded corpus's kinds, or one category", "L+M-24")
    withheld_combinations: str | None = _p("train_withheld_combos.txt; null: the embedded pairs, or none", "L+M-24")

    # ---- models: a folder, embedded:NAME or a hub id[@revision] ----
    base_model: str = _p("model that both per-task models were fine-tuned from; TIES needs it", "not stated; audit D40")
    cap2mol_model: str = _p("per-task model, caption to molecule", "L4M App. J")
    mol2cap_model: str = _p("per-task model, molecule to caption", "L4M App. J")
    negatives_mol2cap_model: str = _p("negative generator: writes rejected captions", "code: create_negative.py")
    negatives_cap2mol_model: str = _p("negative generator: writes rejected molecules", "code: create_negative.py")
    nli_model: str = _p("NLI classifier", "L4M fn. 5")
    txtchem_model: str | None = _p(
        "the tables' TxtChem-T5, an encoder-decoder; null: not run", "code: Text+Chem T5, base-standard; audit D14"
    )
    chemllm_model: str | None = _p("the tables' Chem-LLM, a causal model; null: not run", "not stated; audit D14")
    remote_code: list[str] = _p("models whose own Python code may run when they are loaded", "ours: none")
    quantize: Literal["none", "nf4"] = _p("the trained model's weights in memory", "L4M Fig. 13: nf64; audit D6")
    dtype: Literal["float32", "bfloat16"] = _p("compute type", "L4M Fig. 13: bfloat16; CPU: float32")

    # ---- negatives ----
    negatives: Literal["translator", "shuffled", "nearest"] = _p(
        "where rejected answers come from: a negative generator, or other rows' references",
        "L4M §4.1: MolT5; the others ours (audit D24)",
    )
    drop_equal: bool = _p("leave out pairs whose rejected answer equals the chosen one", "ours; code: false; audit D24")
    negatives_shard_rows: int = _p("generated answers kept at a time: what a killed run loses", "ours", "rows", ge=1)

    # ---- training ----
    semantics: Literal["as_printed", "as_released", "corrected"] = _p(
        "what every switch follows: the papers' text, their code, or the repaired form (lmolt switches)", "ours"
    )
    switches: Annotated[dict[str, str], AfterValidator(check_choices)] = _p(
        "single switches that differ from semantics, such as {sft_eos: as_released}", "ours"
    )
    seeds: list[Annotated[int, Field(ge=0)]] = _p(
        "seeds of the tables' trained systems: `seed`, then one for each <system>@seed<k>", "L4M: one run", min_length=1
    )
    train_prompt: Template = _p("prompt template in training (white space)", "L4M App. F; audit D10, D13")
    test_prompt: Template = _p("prompt template at test time", "L4M App. F; audit D10")
    baseline_prompt: Literal["native", "released"] = _p("TxtChem-T5's prompt: its own or the code's", "audit D14")
    save_steps: int = _p("steps between two checkpoints: what a killed training loses", "ours", "steps", ge=1)
    stop_above: float = _p("a training stops at a loss of so many times its early ones", "ours", "times", gt=1)
    epochs: float = _p("epochs over the training pairs", "L4M Fig. 14", "epochs", gt=0)
    effective_batch: int = _p("rows per optimiser step", "L4M Fig. 14: batch 1 x accumulation 64", "rows", ge=2)
    micro_batch: int = _p("rows per forward pass; divides effective_batch", "ours", "rows", ge=2, multiple_of=2)
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
    kto_format: Literal["plain", "chatml"] = _p("prompts as for the others, or ChatML", "L4M App. F; audit D17")
    sft_eos: Literal["append", "none"] = _p("end-of-text token after the answer in SFT", "ours; audit D15")
    sft_loss_on: Literal["answer", "all"] = _p("tokens that SFT learns", "L4M Eq. 2; code: all")
    lora_rank: int = _p("LoRA rank", "L4M Fig. 15", ge=1)
    lora_alpha: int = _p("LoRA alpha", "L4M Fig. 15", ge=1)
    lora_dropout: float = _p("LoRA dropout (TRL switches it off in DPO, CPO and KTO)", "L4M Fig. 15", ge=0, lt=1)
    dora: bool = _p("DoRA instead of LoRA", "L4M Fig. 15: LoRA; audit D5")
    max_length: int = _p("longest prompt plus answer", "ours", "tokens", ge=16)

    # ---- merging ----
    mol2cap_share: float = _p("share of mol2cap in SLERP, NuSLERP and soup", "L4M App. J: 1:18, so 1/19", ge=0, le=1)
    ties_density: float = _p("share of each task vector that the TIES rules keep", "L4M §3.2.1: top 20 %", gt=0, le=1)
    merge_dtype: Literal["float32", "bfloat16"] = _p("type that merges are written in", "L+M-24's models: float32")
    ratio_grid: list[Annotated[float, Field(gt=0, lt=1)]] = _p(
        "further mol2cap shares of the SLERP+CPO sweep, beside the systems table's", "ours; L4M Fig. 4 names 1:18 alone"
    )
    keep_merges: bool = _p("keep the weights of a sweep's merges once their predictions are made", "ours; disk space")

    # ---- generation and scoring ----
    max_new_tokens: int = _p("longest generated answer", "code: 300", "tokens", ge=1)
    generation_batch: int = _p("prompts generated together", "ours", "rows", ge=1)
    generation_engine: Literal["static", "continuous"] = _p(
        "how the systems' answers are batched: generation_batch at a time, or a prompt for each answer done", "ours"
    )
    caption_tokenizer: str = _p("tokenizer of BLEU and METEOR: 'auto', a folder, a vocabulary or a hub id", "L+M-24")
    postprocess: Literal["clean", "as_released", "none"] = _p("raw outputs before they are scored", "ours; audit D27")
    invalid: Literal["lpm24", "molt5"] = _p("invalid molecules count as 0, or are left out", "L+M-24")
    nli_batch_tokens: int = _p("tokens per forward pass of the NLI model, padding included", "ours", "tokens", ge=64)
    nli_code: Literal["ours", "as_released"] = _p(
        "NLI labels, decomposer_model's prompt and parser, corpus mean: ours or cross-nli's", "ours; audit D31 to D32b"
    )
    decomposer: Literal["rules", "llm"] = _p(
        "what splits captions into atomic facts: the grammar, or decomposer_model", "L4M App. E: llm; audit D32"
    )
    decomposer_model: str | None = _p(
        "causal model whose atomic facts 07 compares with the grammar's; null: none", "L4M App. E: Meta-Llama-3-8B"
    )
    decomposer_new_tokens: int = _p("longest answer of decomposer_model", "ours", "tokens", ge=1)
    word_cuts: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)] = _p(
        "words of the reference from which a caption is long (Fig. 7) and extreme (Fig. 10)", "L4M: 50 and 70", "words"
    )
    author_scores: str | None = _p("the authors' smiles2caption.txt; null: not drawn", "ALMol Fig. 1")

    @model_validator(mode="after")
    def _fit_each_other(self) -> "Params":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: a seed comes twice, which would be the same training again")
        if self.effective_batch % self.micro_batch:
            raise ValueError(f"effective_batch {self.effective_batch} is no multiple of micro_batch {self.micro_batch}")
        if self.scheduler == "constant" and self.warmup_share:
            raise ValueError("scheduler: constant has no warm-up: set warmup_share: 0, or another scheduler")
        if self.decomposer == "llm" and self.decomposer_model is None:
            raise ValueError("decomposer: llm needs a model: name one in decomposer_model, or set decomposer: rules")
        return self


_HEADLINE = """
01_data: corpus corpus_rows corpus_seed sample_share sample_pools test_set test_corpus test_rows property_tree
    withheld_combinations seed
02_negatives: negatives drop_equal negatives_mol2cap_model negatives_cap2mol_model generation_batch max_new_tokens
    sample_share semantics switches seed
03_sft: cap2mol_model mol2cap_model quantize epochs effective_batch learning_rate scheduler lora_rank lora_alpha
    lora_dropout sft_loss_on sft_eos switches
04_alignment: cap2mol_model quantize epochs effective_batch learning_rate beta cpo_alpha cpo_nll dpo_loss dpo_alpha
    kto_format lora_rank switches
05_merging: base_model cap2mol_model mol2cap_model mol2cap_share ties_density merge_dtype epochs learning_rate beta
    cpo_alpha switches seeds
06_ablation: semantics switches mol2cap_share ratio_grid keep_merges epochs learning_rate beta cpo_alpha dpo_alpha
    max_new_tokens seeds
07_nli_evaluation: nli_model nli_code decomposer decomposer_model caption_tokenizer postprocess invalid word_cuts
    test_set test_rows switches dtype seed
08_figures: test_set semantics switches seeds mol2cap_share word_cuts author_scores figures_dir
"""
#: Per notebook, the parameters that decide its numbers: what a reader looks at first.
HEADLINE: dict[str, list[str]] = {name: text.split() for name, text in yaml.safe_load(_HEADLINE).items()}


def describe(name: str) -> dict[str, str]:
    field = Params.model_fields[name]
    extra: Any = field.json_schema_extra
    return {"meaning": field.description or "", **extra}


def profiles() -> list[str]:
    others = {"systems", "published", "official", "released", "claims", "switches"}
    return sorted({path.stem for path in (root() / "params").glob("*.yaml")} - others)


def load(profile: str, overrides: Mapping[str, Any] | None = None) -> Params:
    """The parameters of ``profile`` with ``overrides`` on top; raises :class:`ParameterError`.

    Numbers may come as text, as ``papermill -p learning_rate 1e-3`` passes them on.
    """
    path, known = root() / "params" / f"{profile}.yaml", profiles()
    if profile not in known:
        raise ParameterError(f"no profile {profile!r}{nearest(profile, known)} (there are: {', '.join(known)})")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ParameterError(f"{path} is empty or no mapping of names to values")
    if values.get("profile", profile) != profile:  # its files would go to another profile's folder
        raise ParameterError(f"{path} says 'profile: {values['profile']}': write 'profile: {profile}' there")
    return check({**values, **(overrides or {})})


def check(values: Mapping[str, Any]) -> Params:
    """Validate plain values; raises :class:`ParameterError` with one line per problem."""
    try:
        return Params.model_validate({name: _number(name, value) for name, value in values.items()})
    except ValidationError as error:
        raise ParameterError(explain(error, Params, "parameter")) from None


def _number(name: str, value: Any) -> Any:
    field = Params.model_fields.get(name)
    if isinstance(value, str) and field is not None and field.annotation in (int, float):
        with suppress(ValueError):
            return field.annotation(value)
    return value
