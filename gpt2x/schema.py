"""Types and invariants of the configuration; values and their one-line comments are in conf/*.yaml.

Only this module and cli know OmegaConf; tasks get these dataclasses, converted once. Torch-free.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from gpt2x.errors import UserError, nearest
from gpt2x.paths import bundled


def _choose(key: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise UserError(f"{key}={value}: not one of {', '.join(options)}{nearest(value, options)}")


def _at_least(key: str, value: float | None, least: float) -> None:
    if value is not None and not value >= least:  # not >=: NaN fails too
        raise UserError(f"{key}={value}: must be at least {least}")


def _check_seed(key: str, value: int) -> None:
    if not 0 <= value < 2**63:  # what torch's generators take
        raise UserError(f"{key}={value}: must be at least 0 and below 2**63")


STAGES = (
    *("config", "tokenizer", "weights", "layers", "logits", "loss", "gradients"),
    *("cache", "padding", "sampling", "generation"),
)
ENGINES = ("gpt2x", "transformers", "ctranslate2", "openvino")


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


@dataclass
class DecodeConfig:
    greedy: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    max_new_tokens: int = 50
    num_samples: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise UserError(
                f"decode.temperature={self.temperature}: must be above 0 and finite "
                "(for the likeliest token: decode.greedy=true)"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"decode.top_p={self.top_p}: must be above 0 and at most 1")
        _at_least("decode.top_k", self.top_k, 1)
        _at_least("decode.max_new_tokens", self.max_new_tokens, 1)
        _at_least("decode.num_samples", self.num_samples, 1)
        key = self.sampling_key()
        if self.greedy and key is not None:
            raise UserError(f"decode.greedy=true and decode.{key}={getattr(self, key)} contradict each other")

    def sampling_key(self) -> str | None:
        """The first setting that says how to sample, if one does: greedy decoding has no use for it."""
        neutral = {"temperature": 1.0, "top_k": None, "top_p": None, "num_samples": 1}
        return next((key for key, value in neutral.items() if getattr(self, key) != value), None)


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
    batch_size: int = 8

    def __post_init__(self) -> None:
        _choose("dtype", self.dtype, ("float32", "float64", "bfloat16", "float16"))
        _check_seed("seed", self.seed)
        _at_least("batch_size", self.batch_size, 1)
        for key in ("prompt", "gen_prompt"):
            value = getattr(self, key)
            texts = value if isinstance(value, list) else [value]
            for text in texts:
                if text is not None and not isinstance(text, str):
                    raise UserError(f"{key}={text}: not text; put quotes inside the quotes: '{key}=\"{text}\"'")
