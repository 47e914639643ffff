"""The settings of task=generate: most of them are shared ones, such as `prompt` and `decode`."""

from dataclasses import dataclass
from typing import ClassVar

from gpt2x.config.checks import choose
from gpt2x.config.objective import Objective

SCORES = (Objective("logprob", maximize=True), Objective("distinct_2", maximize=True), Objective("repetition"))
"""What a search can optimize; gpt2x/decoding/scores.py computes it."""


@dataclass
class GenerateTask:
    """Continues prompts, each num_samples times."""

    uses: ClassVar[tuple[str, ...]] = (
        *("model", "weights", "device", "dtype", "seed"),
        *("prompt", "prompt_file", "prompts_file", "prompt_id", "shard", "batch_size", "deterministic", "decode"),
    )
    neutral: ClassVar[tuple[str, ...]] = ("batch_size", "task.score")

    name: str = "generate"
    score: str = "logprob"

    def __post_init__(self) -> None:
        choose("task.score", self.score, tuple(score.name for score in SCORES))
