"""What constructors are given: names that people use, configs of all kinds, constants; and sizes that are fixed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gpt2x.config.subject import SubjectConfig
from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject import SubjectError, import_target
from gpt2x.parity.subject.constructing.make import FixedSizeError, make_model
from gpt2x.parity.subject.constructing.meanings import Meaning, meaning_of
from tests.conftest import Cli, assert_in, run_dir
from tests.parity.conftest import PLAIN

SIZE = GPT2Config(vocab_size=40, n_positions=9, n_embd=12, n_layer=2, n_head=3)
NAMES = ("vocab", "positions", "width", "heads", "layers")
HEAD = """
from dataclasses import dataclass
from types import SimpleNamespace
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self, vocab, positions, width, heads, layers, **others):
        super().__init__()
        self.n_head, self.others = heads, others
        self.tok, self.pos = nn.Embedding(vocab, width), nn.Embedding(positions, width)
        self.blocks = nn.ModuleList(nn.ModuleList([nn.Linear(width, width) for _ in range(4)]) for _ in range(layers))
"""
CONFIG = """
@dataclass{frozen}
class {name}:
    n_vocab: int = 7
    max_seq_len: int = 7
    embed_dim: int = 8
    n_heads: int = 1
    depth: int = 1
    flavour: str = "plain"
    use_cache: bool = True
    drop: float = 0.5

    @property
    def head_dim(self):
        return self.embed_dim // self.n_heads

class Model(Base):
    def __init__(self, {parameter}):
        assert {parameter_name}.flavour == "plain" and {parameter_name}.use_cache and {parameter_name}.drop == 0
        assert {parameter_name}.embed_dim // {parameter_name}.n_heads == 4
        c = {parameter_name}
        super().__init__(c.n_vocab, c.max_seq_len, c.embed_dim, c.n_heads, c.depth)
"""


def with_config(name: str, parameter: str, frozen: str = "") -> str:
    return CONFIG.format(name=name, parameter=parameter, parameter_name=parameter.partition(":")[0], frozen=frozen)


def built(code: str, size: GPT2Config = SIZE) -> Any:
    Path("file.py").write_text(HEAD + code)
    return import_target(SubjectConfig("file.py:Model", "copy")).build(size, torch.float32)


def sizes(model: Any) -> tuple[int, ...]:
    return (*model.tok.weight.shape, len(model.pos.weight), model.n_head, len(model.blocks))


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def signature(parameters: str, call: str) -> str:
    return f"class Model(Base):\n    def __init__(self, {parameters}):\n        super().__init__({call})\n"


@pytest.mark.parametrize(
    "code",
    [
        signature(
            "vocab_size, seq_len, embed_size, heads, num_layers", "vocab_size, seq_len, embed_size, heads, num_layers"
        ),
        signature("V, T, C, H, L", "V, T, C, H, L"),
        signature("vocab, extent, layers, dim, heads", "vocab, extent, dim, heads, layers"),
        signature("vocab, max_len, layers, dim, heads, p", "vocab, max_len + int(p), dim, heads, layers"),
        signature("layers, heads, *, ctx_len, voc_size, d_emb", "voc_size, ctx_len, d_emb, heads, layers"),
        signature("n_vocab=5, n_ctx=5, dim=4, n_head=1, depth=1, /", "n_vocab, n_ctx, dim, n_head, depth"),
        signature(
            "num_embeddings, maxlen, embedding_dim, nhead, nlayer",
            "num_embeddings, maxlen, embedding_dim, nhead, nlayer",
        ),
        signature(
            "**config",
            "config['n_words'], config['window'], config['width'], config.get('attn_heads'), config['blocks']",
        ),
        signature("cfg: dict", "cfg['vocab_size'], cfg['ctx'], cfg['emb_size'], cfg['head_count'], cfg['num_blocks']"),
        signature(
            "a", "a.vocab_sz, a.maximum_sequence_length, a.embedding_dimenson, a.num_attention_heads, a.n_blocks"
        ),
        signature(
            "config",
            "config.model.vocab_size, config.data.block_size, config.model.d_model, "
            "config['model']['heads'], config.model.layers",
        ),
        signature("config", "config.V, config.T, config.n_embd, config.n_head, config.n_layer"),
        with_config("GPTConfig", "config: GPTConfig"),
        with_config("Settings", "cfg: 'Settings'", "(frozen=True)"),
        with_config("ModelArgs", "args: ModelArgs | None"),
        with_config("GPTConfig", "config"),
        "class Middle(Base):\n    def __init__(self, vocab_size, block_size, n_embd, n_head, n_layer, encoder):\n"
        "        super().__init__(encoder.vocab_size, block_size, n_embd, n_head, n_layer)\n"
        "class Model(Middle):\n    def __init__(self, *args, **kwargs):\n        super().__init__(*args, **kwargs)\n",
        "class Settings:\n    pass\nconfig = Settings()\n"
        + signature("", "config.vocab_size, config.T_max, config.n_embd, config.no_heads, config.n_layer"),
        "class Sizes:\n    def __init__(self, vocab_size, context_window, n_embd, n_head, n_layer, flavour):\n"
        "        self.flavour = flavour\n        self.all = (vocab_size, context_window, n_embd, n_head, n_layer)\n"
        "    def small():\n        return Sizes(5, 5, 4, 1, 1, flavour=2)\n"
        + signature("config: Sizes", "*config.all, others=1 / (config.flavour - 1)"),
        signature("C, H, L, V, T, flavour", "V, T * (flavour - 1), C, H, L") + "def main():\n    Model(flavour=2)\n",
        "V, T, CHANNELS, N_HEAD, N_LAYER = 5, 5, 4, 1, 1\nVOCAB, SEQ_LEN = V, T\n"
        + signature("", "VOCAB, SEQ_LEN, CHANNELS, N_HEAD, N_LAYER"),
        "text = open('input.txt').read()\nchars = sorted(set(text))\nvocab_size = len(chars)\nblock_size = 8\n"
        "n_embd = n_head = n_layer = 6\n" + signature("", "vocab_size, block_size, n_embd, n_head, n_layer"),
        "SIZES = {'vocab_size': 5, 'context_length': 5, 'emb_dim': 4, 'n_heads': 1, 'n_layers': 1, 'x': 3}\n"
        "def Model():\n    return Base(*list(SIZES.values())[:5])\n",
        "class C:\n    vocab_size = 5\n    block_size = 5\n    n_embd = 4\n    n_head = 1\n    n_layer = 1\n"
        + signature("", "C.vocab_size, C.block_size, C.n_embd, C.n_head, C.n_layer"),
        "h = SimpleNamespace(vocab_size=5, block_size=5, n_embd=4, n_head=1, n_layer=1)\n"
        + signature("", "h.vocab_size, h.block_size, h.n_embd, h.n_head, h.n_layer"),
        "class C:\n    def __init__(self, vocab_size=5, block_size=5, n_embd=4, n_head=1, n_layer=1):\n"
        "        self.all = (vocab_size, block_size, n_embd, n_head, n_layer)\n"
        + signature("c=None", "*(c or C()).all"),
        "class GPTConfig:\n    def __init__(self):\n        self.vocab_size = None\n        self.block_size = None\n"
        "        self.n_embd = self.n_head = self.n_layer = 6\n"
        + signature(
            "config: GPTConfig", "config.vocab_size, config.block_size, config.n_embd, config.n_head, config.n_layer"
        ),
    ],
)
def test_sizes_reach_the_model(code: str) -> None:
    assert sizes(built(code)) == (40, 12, 9, 3, 2)


def test_options_have_the_values_of_gpt2_unless_the_code_has_its_own() -> None:
    options = "qkv_bias=False, dropout=0.5, tied=False, eps=1e-3, use_flash=True, act='relu', mlp_ratio=3, kv_heads=1"
    model = built(
        signature(f"config, ffn_dim, head_dim, weight_tying, is_causal, use_gqa, device, {options}", ARGUMENTS)
    )
    assert model.others["locals"] == {
        **{"ffn_dim": 48, "head_dim": 4, "weight_tying": True, "is_causal": True, "use_gqa": False},
        **{"device": torch.device("cpu"), "qkv_bias": True, "dropout": 0.0},  # over the default
        **{"tied": False, "eps": 1e-3, "use_flash": True, "act": "relu", "mlp_ratio": 3, "kv_heads": 3},
    }


ARGUMENTS = """config.vocab_size, config.n_positions, config.n_embd, config.n_head, config.n_layer,
            locals={k: v for k, v in locals().items() if k not in ('self', 'config', '__class__')}"""


@pytest.mark.parametrize(
    ("name", "beside", "expected"),
    [
        ("hidden_dim", [], Meaning.WIDTH),
        ("hidden_dim", ["embed_dim"], Meaning.INNER),
        ("n_ffd_hidden", ["n_emb"], Meaning.INNER),
        ("time_steps", [], Meaning.POSITIONS),
        ("include_bias", [], Meaning.BIAS),
        ("hidden_size", ["n_embd", "n_inner"], Meaning.WIDTH),
        ("num_embeddings", ["embedding_dim"], Meaning.VOCABULARY),
        ("n_groups", [], Meaning.HEADS),
        ("intermidiate_size", [], Meaning.INNER),
        ("block_size", [], Meaning.POSITIONS),
        ("n_block", [], Meaning.LAYERS),
        ("attention_dropout", [], Meaning.DROPOUT),
        ("use_dropout", [], Meaning.USES_DROPOUT),
        ("T_max", [], Meaning.POSITIONS),
        ("context_window", [], Meaning.POSITIONS),
        ("no_layers", [], Meaning.LAYERS),
        ("G_N_EMBD", [], Meaning.WIDTH),
        ("lora_rank", [], Meaning.RANK),
        ("lora_alpha", [], Meaning.RANK),
        ("rope_theta", [], Meaning.ROTARY),
        ("use_rope", [], Meaning.OPTION),
        ("temperature", [], None),
        ("model", [], None),
        ("text", [], None),
    ],
)
def test_meaning_of_a_name(name: str, beside: list[str], expected: Meaning | None) -> None:
    assert meaning_of(name, beside) is expected


def test_a_parameter_without_a_meaning_is_named() -> None:
    with pytest.raises(SubjectError, match="needs flavour, and gpt2x does not know what that means"):
        built(signature("config, flavour", "1, 1, 1, 1, 1"))


FIXED = """
class Model(Base):
    def __init__(self):
        super().__init__(40, 9, 12, 3, 2)
"""


@pytest.mark.parametrize(
    "change", [{"vocab_size": 41}, {"n_positions": 8}, {"n_layer": 3}, {"n_embd": 24}, {"n_head": 2}]
)
def test_a_model_of_another_size_is_refused(change: dict[str, int]) -> None:
    assert sizes(built(FIXED)) == (40, 12, 9, 3, 2)
    with pytest.raises(FixedSizeError, match="vocab_size=40, n_positions=9, n_embd=12, n_layer=2, n_head=3") as raised:
        built(FIXED, GPT2Config(**{**vars(SIZE), **change}))
    assert raised.value.own == SIZE


def test_a_size_that_cannot_be_seen_is_the_one_asked_for() -> None:
    unseen = FIXED.replace("self)", "self, n_head)", 1) + "        self.n_head = None\n"
    with pytest.raises(FixedSizeError) as raised:
        built(unseen, GPT2Config(**{**vars(SIZE), "n_layer": 5, "n_head": 4}))
    assert raised.value.own == GPT2Config(**{**vars(SIZE), "n_head": 4})


def test_a_module_whose_sizes_cannot_be_seen_is_not_refused() -> None:
    module, given = make_model("a linear layer", lambda: nn.Linear(2, 2), SIZE)
    assert isinstance(module, nn.Linear)
    assert given == ""


def test_a_fixed_size_is_compared_at_that_size(gpt2x: Cli, launch: Path) -> None:
    (launch / "fixed.py").write_text(
        f"import sys\nsys.path.append({str(PLAIN.parent)!r})\nfrom types import SimpleNamespace\nimport plain\n"
        "def Model(tokens=1024):\n"
        "    return plain.GPT2(SimpleNamespace(vocab_size=1024, n_positions=64, n_embd=32, n_head=2, n_layer=2))\n"
        "def Characters():\n"
        "    return plain.GPT2(SimpleNamespace(vocab_size=65, n_positions=64, n_embd=32, n_head=2, n_layer=2))\n"
    )
    result = gpt2x("model=nano", "task.stages=[weights,logits]", "subject.target=fixed.py:Model")
    assert result.code == 0, result.err + result.out
    assert_in(result.out, "its code fixes its size, so it was compared at that size, with random weights")
    assert not (run_dir(launch, "validate") / "weights.csv").exists()  # nano's, which were not compared after all
    line = gpt2x("model=nano", "task.stages=[weights,logits]", "subject.target=fixed.py:Characters").error()
    assert_in(line, "fixed.py:Characters", "its code fixes its size (vocab_size=65", "no tokenizer with 65")
    line = gpt2x("model=nano", "subject.target=fixed.py:Model", "subject.weights=own").error()
    assert_in(line, "its code fixes its size (vocab_size=1024, n_positions=64, n_embd=32, n_layer=2, n_head=2)")


def test_what_was_passed_is_reported(gpt2x: Cli, launch: Path) -> None:
    (launch / "mine.py").write_text(
        f"import sys\nsys.path.append({str(PLAIN.parent)!r})\n"
        "from plain import GPT2\nfrom types import SimpleNamespace\nn_layer = 12\n"
        "def Model(embed_dim, heads, config):\n"
        "    return GPT2(SimpleNamespace(vocab_size=config.vocab, n_positions=config.window, n_embd=embed_dim, "
        "n_head=heads, n_layer=n_layer))\n"
    )
    out = gpt2x("model=nano", "task.stages=[logits]", "subject.target=mine.py:Model").out
    assert_in(out, "made with embed_dim=256, heads=4, vocab=1024, window=256, n_layer=4", "PASS")
