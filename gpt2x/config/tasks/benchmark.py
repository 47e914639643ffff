"""The settings of task=benchmark."""

from dataclasses import dataclass, field
from typing import ClassVar

from gpt2x.config.checks import at_least, choose
from gpt2x.errors import UserError

ENGINES = ("gpt2x", "gpt2x_lookup", "transformers", "ctranslate2", "openvino", "llamacpp")


@dataclass
class BenchmarkTask:
    """How fast does gpt2x generate, beside other engines on the same weights?"""

    uses: ClassVar[tuple[str, ...]] = ("model", "weights", "seed")
    neutral: ClassVar[tuple[str, ...]] = ()

    name: str = "benchmark"
    engines: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    prompt_tokens: int = 32
    new_tokens: int = 64
    rounds: int = 5

    def __post_init__(self) -> None:
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
        at_least("task.new_tokens", self.new_tokens, 2)  # the first token is not part of the steps
        at_least("task.rounds", self.rounds, 1)
