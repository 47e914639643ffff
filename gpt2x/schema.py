"""Types and invariants of the configuration; values and their one-line comments are in conf/*.yaml.

Only this module and cli know OmegaConf; tasks get these dataclasses, converted once. Torch-free.
"""

import re
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING

from gpt2x.errors import UserError, nearest
from gpt2x.paths import bundled, is_utf8


def _choose(key: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise UserError(f"{key}={value}: not one of {', '.join(options)}{nearest(value, options)}")


def _at_least(key: str, value: float | None, least: float) -> None:
    if value is not None and not value >= least:  # not >=: NaN fails too
        raise UserError(f"{key}={value}: must be at least {least}")


def _check_seed(key: str, value: int) -> None:
    if not 0 <= value < 2**63:  # what torch's generators take
        raise UserError(f"{key}={value}: must be at least 0 and below 2**63")


def _check_text(key: str, value: Any) -> None:
    if not isinstance(value, str):
        raise UserError(f"{key}={value}: not text; put quotes inside the quotes: '{key}=\"{value}\"'")


STAGES = (
    *("config", "tokenizer", "weights", "layers", "logits", "loss", "gradients"),
    *("cache", "padding", "sampling", "generation"),
)
ENGINES = ("gpt2x", "gpt2x_lookup", "transformers", "ctranslate2", "openvino")


@dataclass
class TaskConfig:
    name: str = MISSING
    stages: list[str] = field(default_factory=list)
    save_reference: str | None = None
    reference: str | None = None
    engines: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    prompt_tokens: int = 32
    new_tokens: int = 64
    rounds: int = 5

    def __post_init__(self) -> None:
        _choose("task", self.name, tuple(sorted(file.stem for file in bundled("conf").glob("task/*.yaml"))))
        for stage in self.stages:
            _choose("task.stages", stage, STAGES)
        if self.reference is not None and self.save_reference is not None:
            raise UserError("task.reference and task.save_reference contradict each other: give one of them")
        if self.name == "benchmark":
            self._check_benchmark()

    def _check_benchmark(self) -> None:
        for key in ("engines", "dtypes", "batch_sizes"):
            if not getattr(self, key):
                raise UserError(f"task.{key} is empty: leave it out, or name some")
        for engine in self.engines:
            _choose("task.engines", engine, ENGINES)
        for dtype in self.dtypes:
            _choose("task.dtypes", dtype, ("float32", "bfloat16", "float16", "int8"))
        for batch in self.batch_sizes:
            _at_least("task.batch_sizes", batch, 1)
        _at_least("task.prompt_tokens", self.prompt_tokens, 1)
        _at_least("task.new_tokens", self.new_tokens, 2)  # the first is apart from the steps
        _at_least("task.rounds", self.rounds, 1)


@dataclass
class SubjectConfig:
    """The model that validate looks at; with no target, ours."""

    target: str | None = None
    weights: str = MISSING
    rename: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        _choose("subject.weights", self.weights, ("copy", "own"))
        for rule in self.rename:
            if len(rule) != 2:
                raise UserError(f"subject.rename: {rule} is not a pair [regex, replacement]")
            try:
                re.compile(rule[0])
            except re.error as error:
                raise UserError(f"subject.rename: {rule[0]!r} is no regular expression: {error}") from None


@dataclass(unsafe_hash=True)  # the key under which a loaded model is kept
class ModelConfig:
    """Architecture; what is null is taken from the checkpoint."""

    name: str = MISSING
    vocab_size: int | None = None
    n_positions: int | None = None
    n_embd: int | None = None
    n_layer: int | None = None
    n_head: int | None = None
    tokenizer: str | None = None
    hub: str | None = None

    def __post_init__(self) -> None:
        for key in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            _at_least(f"model.{key}", getattr(self, key), 1)
        if self.n_embd and self.n_head and self.n_embd % self.n_head:
            raise UserError(f"model.n_embd={self.n_embd}: not a multiple of model.n_head={self.n_head}")
        if self.tokenizer is not None:
            _choose("model.tokenizer", self.tokenizer, ("gpt2", "own"))


@dataclass
class WeightsConfig:
    source: str = MISSING
    path: str | None = None
    revision: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _choose("weights.source", self.source, ("local", "auto", "random"))
        if self.path is not None and self.source == "random":
            raise UserError("weights.path and weights=random contradict each other: give one of them")
        if self.revision is not None and self.source != "auto":
            raise UserError("weights.revision is of the hub: add weights=auto")
        _check_seed("weights.seed", self.seed)


@dataclass
class DeviceConfig:
    name: str = MISSING

    def __post_init__(self) -> None:
        _choose("device", self.name, ("auto", "cpu", "cuda", "mps"))


_MOST = 1_000_000  # more is a slip of the finger, and fills the memory
_FILTERS = ("temperature", "top_k", "top_p", "min_p", "typical_p")


@dataclass
class DecodeConfig:
    greedy: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int | None = None
    max_new_tokens: int = 50
    min_new_tokens: int = 0
    stop: Any = None  # null, a string or a list of strings, which OmegaConf cannot type; then list[str]
    num_samples: int = 1
    num_beams: int = 1
    length_penalty: float = 1.0
    on_overflow: str = "refuse"
    lookup: bool = False
    logprobs: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise UserError(
                f"decode.temperature={self.temperature}: must be above 0 and finite "
                "(for the likeliest token: decode.greedy=true)"
            )
        for key in ("top_p", "min_p", "typical_p"):
            value = getattr(self, key)
            if value is not None and not 0 < value <= 1:
                raise UserError(f"decode.{key}={value}: must be above 0 and at most 1")
        if not 1e-3 <= self.repetition_penalty <= 1e3:
            raise UserError(f"decode.repetition_penalty={self.repetition_penalty}: must be from 0.001 to 1000")
        if not abs(self.length_penalty) <= 100:
            raise UserError(f"decode.length_penalty={self.length_penalty}: must be from -100 to 100")
        for key in ("top_k", "no_repeat_ngram_size", "max_new_tokens", "num_samples", "num_beams", "logprobs"):
            _at_least(f"decode.{key}", getattr(self, key), 1)
        for key in ("max_new_tokens", "num_samples", "num_beams"):
            if getattr(self, key) > _MOST:
                raise UserError(f"decode.{key}={getattr(self, key)}: must be at most {_MOST}")
        _at_least("decode.min_new_tokens", self.min_new_tokens, 0)
        _choose("decode.on_overflow", self.on_overflow, ("refuse", "crop"))
        self.stop = [] if self.stop is None else self.stop if isinstance(self.stop, list) else [self.stop]
        for text in self.stop:
            _check_text("decode.stop", text)
            if not text:
                raise UserError("decode.stop: an empty text would stop everywhere; leave it out")
            if not is_utf8(text):
                raise UserError("decode.stop: not UTF-8")
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        if self.min_new_tokens > self.max_new_tokens:
            raise UserError(
                f"decode.min_new_tokens={self.min_new_tokens} is more than decode.max_new_tokens={self.max_new_tokens}"
            )
        key = self.first_set(*_FILTERS, "num_samples")
        if self.greedy and key is not None:
            raise UserError(f"decode.greedy=true and decode.{key}={getattr(self, key)} contradict each other")
        if self.num_beams == 1:
            if self.first_set("length_penalty"):
                raise UserError(
                    f"decode.length_penalty={self.length_penalty} is of beams: add decode.num_beams, 2 or more"
                )
            return
        key = self.first_set("greedy", *_FILTERS)
        if key is not None:
            value = str(getattr(self, key)).lower()
            raise UserError(f"decode.num_beams={self.num_beams} and decode.{key}={value} contradict each other")
        if self.num_samples > self.num_beams:
            raise UserError(
                f"decode.num_samples={self.num_samples} is more than decode.num_beams={self.num_beams}: "
                "each sample is one of the beams"
            )
        key = self.first_set("lookup", "logprobs", "on_overflow", "stop")
        if key is not None:
            raise UserError(f"decode.num_beams={self.num_beams}: beams are not combined with decode.{key}")

    def first_set(self, *keys: str) -> str | None:
        """The first of these settings that is not at its neutral value, if one is not."""
        return next((key for key in keys if getattr(self, key) not in (getattr(DecodeConfig, key), [])), None)

    def first_set_but(self, *allowed: str) -> str | None:
        """The first of all other settings that is not at its neutral value, if one is not."""
        return self.first_set(*(each.name for each in fields(self) if each.name not in allowed))


@dataclass
class TrainConfig:
    data: str | None = None
    steps: int = MISSING
    batch_size: int = MISSING
    lr: float = MISSING
    min_lr: float = MISSING
    warmup_steps: int = MISSING
    weight_decay: float = MISSING
    beta2: float = MISSING
    grad_clip: float = MISSING
    dropout: float = MISSING
    eval_every: int = MISSING
    save_dtype: str = MISSING

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "eval_every"):
            _at_least(f"train.{key}", getattr(self, key), 1)
        for key in ("min_lr", "warmup_steps", "weight_decay"):
            _at_least(f"train.{key}", getattr(self, key), 0)
        for key in ("lr", "grad_clip"):
            if not getattr(self, key) > 0:
                raise UserError(f"train.{key}={getattr(self, key)}: must be above 0")
        for key in ("beta2", "dropout"):
            if not 0 <= getattr(self, key) < 1:
                raise UserError(f"train.{key}={getattr(self, key)}: must be at least 0 and below 1")
        _choose("train.save_dtype", self.save_dtype, ("float32", "float16", "bfloat16"))


@dataclass
class Config:
    task: TaskConfig = MISSING
    subject: SubjectConfig = MISSING
    model: ModelConfig = MISSING
    weights: WeightsConfig = MISSING
    device: DeviceConfig = MISSING
    decode: DecodeConfig = MISSING
    train: TrainConfig = MISSING
    dtype: str = "float32"
    seed: int = 0
    prompt: Any = None  # a string or a list of strings, which OmegaConf cannot type
    gen_prompt: Any = None
    prompts_file: str | None = None
    batch_size: Any = "auto"  # or an int, at least 1

    def __post_init__(self) -> None:
        _choose("dtype", self.dtype, ("float32", "float64", "bfloat16", "float16", "int8"))
        _check_seed("seed", self.seed)
        if self.batch_size != "auto" and (type(self.batch_size) is not int or self.batch_size < 1):
            raise UserError(f"batch_size={self.batch_size}: must be auto, or a whole number of at least 1")
        for key in ("prompt", "gen_prompt"):
            value = getattr(self, key)
            texts = value if isinstance(value, list) else [value]
            for text in texts:
                if text is not None:
                    _check_text(key, text)
