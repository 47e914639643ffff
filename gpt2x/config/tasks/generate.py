"""The settings of task=generate: all of them are shared ones, such as `prompt` and `decode`."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass
class GenerateTask:
    """Continues prompts, each num_samples times."""

    uses: ClassVar[tuple[str, ...]] = (
        *("model", "weights", "device", "dtype", "seed"),
        *("prompt", "prompt_file", "prompts_file", "prompt_id", "shard", "batch_size", "decode"),
    )
    neutral: ClassVar[tuple[str, ...]] = ("batch_size",)

    name: str = "generate"
