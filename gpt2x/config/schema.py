"""The whole configuration: a dataclass per group, and the settings that belong to no group.

Types and invariants live in this package, values and their one-line comments in conf/*.yaml. Only this package and
gpt2x/cli know OmegaConf; tasks receive these dataclasses, converted once. Importing it never imports torch.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from gpt2x.config.checks import at_least, check_seed, check_text, choose
from gpt2x.config.decode import DecodeConfig
from gpt2x.config.device import DeviceConfig
from gpt2x.config.model import ModelConfig
from gpt2x.config.subject import SubjectConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.paths import bundled

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
        choose("task", self.name, tuple(sorted(file.stem for file in bundled("conf").glob("task/*.yaml"))))
        for stage in self.stages:
            choose("task.stages", stage, STAGES)
        if self.reference is not None and self.save_reference is not None:
            raise UserError("task.reference and task.save_reference contradict each other: give one of them")
        if self.name == "benchmark":
            self._check_benchmark()

    def _check_benchmark(self) -> None:
        for key in ("engines", "dtypes", "batch_sizes"):
            if not getattr(self, key):
                raise UserError(f"task.{key} is empty: leave it out, or name some")
        for engine in self.engines:
            choose("task.engines", engine, ENGINES)
        for dtype in self.dtypes:
            choose("task.dtypes", dtype, ("float32", "bfloat16", "float16", "int8"))
        for batch in self.batch_sizes:
            at_least("task.batch_sizes", batch, 1)
        at_least("task.prompt_tokens", self.prompt_tokens, 1)
        at_least("task.new_tokens", self.new_tokens, 2)  # the first is apart from the steps
        at_least("task.rounds", self.rounds, 1)


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
            at_least(f"train.{key}", getattr(self, key), 1)
        for key in ("min_lr", "warmup_steps", "weight_decay"):
            at_least(f"train.{key}", getattr(self, key), 0)
        for key in ("lr", "grad_clip"):
            if not getattr(self, key) > 0:
                raise UserError(f"train.{key}={getattr(self, key)}: must be above 0")
        for key in ("beta2", "dropout"):
            if not 0 <= getattr(self, key) < 1:
                raise UserError(f"train.{key}={getattr(self, key)}: must be at least 0 and below 1")
        choose("train.save_dtype", self.save_dtype, ("float32", "float16", "bfloat16"))


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
        choose("dtype", self.dtype, ("float32", "float64", "bfloat16", "float16", "int8"))
        check_seed("seed", self.seed)
        if self.batch_size != "auto" and (type(self.batch_size) is not int or self.batch_size < 1):
            raise UserError(f"batch_size={self.batch_size}: must be auto, or a whole number of at least 1")
        for key in ("prompt", "gen_prompt"):
            value = getattr(self, key)
            texts = value if isinstance(value, list) else [value]
            for text in texts:
                if text is not None:
                    check_text(key, text)
