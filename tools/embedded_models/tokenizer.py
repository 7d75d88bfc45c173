"""The embedded models' tokenizer: byte-level BPE learned from the corpus.

Words are split at spaces and final punctuation only, so that whole stretches of a SMILES become one token, and
the fixed parts of the papers' instruction are single tokens: the prompt then costs a handful of tokens instead of
ninety.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lmolt_utils.config.prompts import SEGMENTS
from lmolt_utils.grammar.rules import vocabulary

VOCABULARY = 1024
PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"

#: How each architecture frames its input, as its full-size relatives do: Llama puts BOS first, T5 puts EOS
#: last, a cross-encoder marks both texts. TRL's four trainers agree on BOS only when the template has it.
Framing = Literal["llama", "t5", "cross-encoder"]
_FRAMES: dict[Framing, tuple[str, str | None]] = {
    "llama": (f"{BOS} $A", None),
    "t5": (f"$A {EOS}", None),
    "cross-encoder": (f"{BOS} $A {EOS}", f"{BOS} $A {EOS} $B:1 {EOS}:1"),
}


def train_bpe(texts: Iterable[str], entries: int = VOCABULARY) -> Tokenizer:
    """Learn a vocabulary of ``entries`` from ``texts``; deterministic in their order."""
    bpe = Tokenizer(models.BPE(unk_token=UNK))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # A property is the same word before a comma and before a full stop.
            pre_tokenizers.Split(Regex(r"[,.](?= |$)"), behavior="isolated"),
            pre_tokenizers.Split(" ", behavior="merged_with_next"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    segments = [text for pair in SEGMENTS.values() for text in pair]
    trainer = trainers.BpeTrainer(
        vocab_size=entries - len(segments),
        special_tokens=[PAD, BOS, EOS, UNK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_tokens([AddedToken(text, normalized=False) for text in segments])
    return bpe


def framed(bpe: Tokenizer, framing: Framing, names: Sequence[str] | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer with ``framing``'s begin and end tokens, ready for ``save_pretrained``.

    For the cross-encoder every property name (``names``; the embedded ones unless given) is one token: two layers learn
    to compare tokens, not spellings.
    """
    copy = Tokenizer.from_str(bpe.to_str())
    if framing == "cross-encoder":
        copy.add_tokens(
            [AddedToken(name, normalized=False, lstrip=True, single_word=True) for name in names or vocabulary()]
        )
    single, pair = _FRAMES[framing]
    ids = [(token, bpe.token_to_id(token)) for token in (BOS, EOS)]
    copy.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=copy,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        model_max_length=512,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
