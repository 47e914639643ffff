"""A config that answers to the names that people use, by item and by attribute."""

from collections.abc import Iterable, Mapping
from typing import Any

from gpt2x.errors import nearest
from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject.constructing.meanings import OVER_DEFAULTS, meaning_of, meaning_of_letter, value_of

# The keys that it shows when it is iterated over: Hugging Face's names, and those of nanoGPT, minGPT and the book
# "Build a Large Language Model (From Scratch)" (Raschka, 2024).
_KEYS = (
    *("vocab_size", "n_positions", "block_size", "context_length", "n_ctx", "n_embd", "emb_dim", "d_model"),
    *("hidden_size", "n_head", "n_heads", "num_heads", "n_layer", "n_layers", "num_layers", "layer_norm_epsilon"),
    *("dropout", "drop_rate", "embd_pdrop", "attn_pdrop", "resid_pdrop", "bias", "qkv_bias", "model_type"),
)


class Architecture(dict[str, Any]):
    """The sizes and options of a GPT-2, under all names whose meaning is known."""

    def __init__(
        self,
        config: GPT2Config,
        defaults: Mapping[str, Any] | None = None,
        beside: Iterable[str] = (),
        sections: Iterable[str] = (),
    ) -> None:
        """`defaults` has values for names without a known meaning; `beside` are the names that the code asks for.

        `sections` are names of parts, as `model` in `config.model.n_layer`: each is the whole.
        """
        beside = frozenset(beside) - frozenset(sections)
        meanings = {name: meaning_of(name, beside) for name in (*_KEYS, *beside)}
        super().__init__({name: value_of(meaning, config) for name, meaning in meanings.items() if meaning})
        self.__dict__.update(_config=config, _beside=beside, _asked={})
        self.__dict__["_defaults"] = {**(defaults or {}), **dict.fromkeys(sections, self)}

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked for, name -> value."""
        return {name: value for name, value in self.__dict__["_asked"].items() if value is not self}

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        self.__dict__["_asked"][name] = value
        return value

    def __missing__(self, name: str) -> Any:
        state = self.__dict__
        meaning = meaning_of(name, state["_beside"]) if isinstance(name, str) else None
        default = state["_defaults"].get(name)
        if meaning is None and default is None:
            meaning = meaning_of_letter(name)
        if meaning is None and name not in state["_defaults"]:
            raise KeyError(f"gpt2x does not know what {name!r} means{nearest(str(name), self)}")
        keeps = default is self or (default is not None and meaning not in OVER_DEFAULTS)
        value = value_of(meaning, state["_config"]) if meaning and not keeps else default
        self[name] = value
        return value

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]
