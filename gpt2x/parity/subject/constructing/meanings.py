"""What the names mean that people use for the sizes and options of a GPT-2, and the values that GPT-2 has for them."""

import difflib
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import cache
from typing import Any

import torch

from gpt2x.model.config import GPT2Config


class Meaning(StrEnum):
    VOCABULARY = "vocab_size"
    POSITIONS = "n_positions"
    WIDTH = "n_embd"
    HEADS = "n_head"
    LAYERS = "n_layer"
    HEAD_WIDTH = "width of a head"
    INNER = "width of the MLP"
    RATIO = "width of the MLP divided by n_embd"
    EPSILON = "layer_norm_epsilon"
    DROPOUT = "dropout"
    USES_DROPOUT = "whether there is dropout"
    BIAS = "bias"
    HEAD_BIAS = "bias of the head"
    TIED = "whether the head is tied"
    CAUSAL = "whether attention is causal"
    LOGITS = "whether it answers with logits"
    RANK = "rank of LoRA, or what its product is scaled with"
    ROTARY = "base of rotary positions"
    OPTION = "an option that GPT-2 does not have"
    DEVICE = "device"
    DTYPE = "dtype"
    ACTIVATION = "activation"
    PADDING = "id of padding"
    END = "id of the end of text"
    BATCH = "batch size"
    DEVIATION = "standard deviation of new weights"
    KIND = "name of the architecture"


SIZES = (Meaning.VOCABULARY, Meaning.POSITIONS, Meaning.WIDTH, Meaning.HEADS, Meaning.LAYERS)
"""Those that make up a GPT2Config."""
DERIVED = (Meaning.HEAD_WIDTH, Meaning.INNER)
"""Those that are computed from the sizes."""
OVER_DEFAULTS = (*SIZES, *DERIVED, Meaning.DROPOUT, Meaning.USES_DROPOUT, Meaning.BIAS)
"""Those for which the value of GPT-2 replaces a default of the user's code; all others keep theirs."""

_DIM = r"(dims?|dimensions?|size|width|len|sz)"
_LENGTH = r"(len|lens|length|size|sz|width)"
_NUMBER = r"(n|num|no|number|nof|nb|numberof|numof)?(of)?"
_EMBEDDING = r"(emb|embd|embed|embeds|embedd?ings?|embbeding)"
# One regular expression in parts per meaning, for a name in lower case without underscores. The first match counts.
_PATTERNS: dict[Meaning, tuple[str, ...]] = {
    Meaning.HEAD_WIDTH: (
        rf"(attn|attention|per)?heads?{_DIM}",
        rf"({_DIM}|d)(per|of)?head",
        r"d(k|q|v|h|qk)|keydim|nembdperhead",
    ),
    Meaning.HEAD_BIAS: (r"(lm|out|output|final)headbias", r"(out|output|unembed)bias"),
    Meaning.BIAS: (
        r"(use|has|with|add|enable|include)?(qkv|attn|attention|mlp|ffn?|linear|ln|norm|layernorm|proj|fc|conv)*bias(es)?",
    ),
    Meaning.USES_DROPOUT: (r"(use|has|with|enable)\w*drop(out)?",),
    Meaning.DROPOUT: (r"\w*(dropout|pdrop|droprate|dropprob)\w*", r"\w*drop"),
    Meaning.TIED: (r"\w*(tie|tied|tying|share|shared)\w*",),
    Meaning.VOCABULARY: (
        rf"(n|num|d|max|padded|input|output|gpt2|model|size|len)?vocab(ulary)?({_LENGTH}|dim|n)?",
        r"(n|num)?words|(n|num)?tokentypes|(n|num)tokens?|voc(size)?|vocabsize\w*",
    ),
    Meaning.POSITIONS: (
        rf"(max|maximum|model)?(block|context|ctx|window|chunk|seq|sequence|input|position)s?{_LENGTH}(max)?",
        rf"(n|num|max|maximum)?(ctx|context|window|positions|positionembeddings|pos|sequence|seq){_LENGTH}?",
        rf"(n|num)block{_LENGTH}|lencontext|modelmaxlength|maxtokens?|(n|num|max)?timesteps?|tmax|maxt",
        r"(context|ctx|attention|attn)window",
        rf"max(imum)?(seq|sequence|context|token|position|pos|target|input|block|ctx)?s?({_LENGTH}|embeddings|tokens)",
    ),
    Meaning.HEADS: (
        rf"{_NUMBER}(attn|attention|selfattention|self|sa|q|query|transformer)?heads?(count|num)?",
        r"nh|(num|n)mha",
    ),
    Meaning.RATIO: (
        r"(mlp|ffn?|feedforward|hidden|inner|widen|fc)(ratio|mult|multiplier|multiple|factor|expansion|scaling|expand|scale)",
        r"(expansion|widen(ing)?)(factor|ratio|rate)?|(hidden|dim)multiplier",
    ),
    Meaning.INNER: (
        r"(d|n|dim|num)?(ff|ffn|fnn|ffd|mlp|inner|feedforward|feedfwd|intermediate|fc|ffwd|innerlayer|linear)"
        rf"(hidden|inner)?({_DIM}|d|embd|units|hidden|n)?",
    ),
    Meaning.WIDTH: (
        rf"(n|d|num|dim|model|token|tok|input|word|vocab|size)?{_EMBEDDING}{_DIM}?",
        rf"(model|hidden|channel|state|residual|feature|transformer)s?{_DIM}",
        r"d(im)?(model|emb|resid)|(n|d)hidden|hidden|dims?|width|channels|modeld",
        r"nstate|nchannels?|(n|num)features|nunits|nmodel",
    ),
    Meaning.LAYERS: (
        rf"{_NUMBER}(hidden|decoder|transformer|attn|attention|gpt|trf|encoder)?(layers?|blocks?|decoders?)(num|count)?",
        r"depth|numtransformers",
    ),
    Meaning.EPSILON: (r"(layer|ln|rms)?(norm)?(alization)?(layer)?eps(ilon)?",),
    Meaning.CAUSAL: (r"(is|use)?(causal|autoregressive)(mask)?", r"decoder(only)?|prenorm|normfirst|applymask|masked"),
    Meaning.LOGITS: (r"(return|output|use)?logits",),
    Meaning.DEVICE: (r"device(type|name)?",),
    Meaning.DTYPE: (r"(torch|param|model|weight)?dtype",),
    Meaning.ACTIVATION: (r"(hidden|mlp|ffn?)?(act|activation|nonlinearity|actfn)(func|fn|function|type|name)?",),
    Meaning.PADDING: (r"(pad|padding)(token)?(id|idx|index|token)?", r"ignoreindex"),
    Meaning.END: (r"(eos|bos|eot|endoftext|unk|sos)(token)?(id|idx|index)?",),
    Meaning.BATCH: (r"(n|micro|mini|train|max|eval)?batch(size|sz)?|bs",),
    Meaning.DEVIATION: (r"(init|initializer|weightinit)\w*(range|std|scale|sd)", r"std|initializer"),
    Meaning.KIND: (r"(model|arch|architecture)(type|name|variant|kind)", r"modelid|name"),
    Meaning.RANK: (r"(lora)?(rank|alpha)|lora(r|scaling|scale)",),
    Meaning.ROTARY: (
        r"(rope|rotary)?(theta|base|basefreq|frequency|freqbase|thetabase)|(rope|rotary)(frequency|freq)",
    ),
    Meaning.OPTION: (
        r"(use|is|enable|with|has|do|apply|return|output|add|should|flash|compile|gradient|grad|kv|cache)\w*",
        r"(verbose|debug|lora|moe|rope|rotary|swiglu|gqa|group|sliding|alibi|rms)\w*",
        r"\w*(flash|checkpointing|cache|compile|compiled|verbose|quiet)",
    ),
}
_OF_GLOBALS = re.compile(r"[gGmMkK]_\w{2}")
"""Names with the letter that some put in front of global variables, members or constants."""
_KV_HEADS = re.compile(r"(n|num)?(of)?(kv|keyvalue|key|value)s?heads?|n?(num)?(query|kv)?groups")
_LETTERS = {"V": Meaning.VOCABULARY, "T": Meaning.POSITIONS, "C": Meaning.WIDTH, "D": Meaning.WIDTH, "E": Meaning.WIDTH}
_LETTERS |= {"d": Meaning.WIDTH, "H": Meaning.HEADS, "h": Meaning.HEADS, "L": Meaning.LAYERS, "N": Meaning.LAYERS}
_LETTERS |= {"B": Meaning.BATCH, "l": Meaning.LAYERS, "n": Meaning.POSITIONS, "S": Meaning.POSITIONS}
_LETTERS |= {"p": Meaning.DROPOUT}
# Spellings from which a misspelt name may differ by a letter or two; short ones are like too many other words.
_SPELLINGS = {
    **dict.fromkeys(("vocabsize", "vocabularysize"), Meaning.VOCABULARY),
    **dict.fromkeys(("contextlength", "blocksize", "maxseqlen", "sequencelength", "npositions"), Meaning.POSITIONS),
    **dict.fromkeys(("embeddingdim", "embeddingdimension", "embeddingsize", "hiddensize", "embeddim"), Meaning.WIDTH),
    **dict.fromkeys(("numheads", "attentionheads"), Meaning.HEADS),
    **dict.fromkeys(("numlayers", "numblocks"), Meaning.LAYERS),
    **dict.fromkeys(("intermediatesize", "feedforwarddim"), Meaning.INNER),
    **dict.fromkeys(("layernormepsilon",), Meaning.EPSILON),
    **dict.fromkeys(("dropoutrate",), Meaning.DROPOUT),
}
# Names that mean the width of the MLP, or the size of the vocabulary, where another name means n_embd.
_HIDDEN = re.compile(rf"(n|d|num)?hidden(s|units|layer)?{_DIM}?")
_N_EMBEDDINGS = re.compile(r"(n|num)embeddings")
_VALUES: dict[Meaning, Callable[[GPT2Config], Any]] = {
    Meaning.VOCABULARY: lambda config: config.vocab_size,
    Meaning.POSITIONS: lambda config: config.n_positions,
    Meaning.WIDTH: lambda config: config.n_embd,
    Meaning.HEADS: lambda config: config.n_head,
    Meaning.LAYERS: lambda config: config.n_layer,
    Meaning.HEAD_WIDTH: lambda config: config.n_embd // config.n_head,
    Meaning.INNER: lambda config: 4 * config.n_embd,
    Meaning.RATIO: lambda config: 4,
    Meaning.EPSILON: lambda config: config.layer_norm_epsilon,
    Meaning.DROPOUT: lambda config: 0.0,
    Meaning.USES_DROPOUT: lambda config: False,
    Meaning.BIAS: lambda config: True,
    Meaning.HEAD_BIAS: lambda config: False,
    Meaning.TIED: lambda config: True,
    Meaning.CAUSAL: lambda config: True,
    Meaning.LOGITS: lambda config: True,
    Meaning.RANK: lambda config: 1,
    Meaning.ROTARY: lambda config: 10000.0,
    Meaning.OPTION: lambda config: False,
    Meaning.DEVICE: lambda config: torch.device("cpu"),
    Meaning.DTYPE: lambda config: torch.get_default_dtype(),
    Meaning.ACTIVATION: lambda config: "gelu_new",
    Meaning.PADDING: lambda config: -1,
    Meaning.END: lambda config: config.vocab_size - 1,
    Meaning.BATCH: lambda config: 1,
    Meaning.DEVIATION: lambda config: 0.02,
    Meaning.KIND: lambda config: None,
}


def value_of(meaning: Meaning, config: GPT2Config) -> Any:
    """What GPT-2 with this architecture has."""
    return _VALUES[meaning](config)


def meaning_of(name: str, beside: Iterable[str] = ()) -> Meaning | None:
    """What a name means; None if that is not known. `beside` are the names that are used together with it."""
    found, plain = _meaning(name), _plain(name)
    if found is Meaning.WIDTH:
        others = [_plain(other) for other in beside if other != name and _meaning(other) is Meaning.WIDTH]
        is_beside_inner = any(_meaning(other) is Meaning.INNER for other in beside)
        if _HIDDEN.fullmatch(plain) and any(not _HIDDEN.fullmatch(other) for other in others) and not is_beside_inner:
            return Meaning.INNER
        if _N_EMBEDDINGS.fullmatch(plain) and others:
            return Meaning.VOCABULARY
    return found


def meaning_of_letter(letter: str) -> Meaning | None:
    """What a name of one letter means among the parameters of a function, or among the sizes of a config."""
    return _LETTERS.get(letter)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@cache
def _meaning(name: str) -> Meaning | None:
    plain = _plain(name)
    if len(plain) < 2:
        return None
    if _KV_HEADS.fullmatch(plain):
        return Meaning.HEADS
    for meaning, patterns in _PATTERNS.items():
        if any(re.fullmatch(pattern, plain) for pattern in patterns):
            return meaning
    if _OF_GLOBALS.match(name):
        return _meaning(name[2:])
    close = difflib.get_close_matches(plain, _SPELLINGS, n=1, cutoff=0.85)
    return _SPELLINGS[close[0]] if close else None
