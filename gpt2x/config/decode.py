"""The group `decode`: how text is generated."""

from dataclasses import dataclass, fields
from typing import Annotated, Any

from gpt2x.config.checks import at_least, check_texts, choose
from gpt2x.errors import UserError
from gpt2x.paths import is_utf8

_MOST = 1_000_000  # a larger number is a typing error, and would exhaust the memory
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
    stop: Annotated[Any, "text or list of text"] = None  # OmegaConf cannot type it; after the checks, list[str]
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
            at_least(f"decode.{key}", getattr(self, key), 1)
        for key in ("max_new_tokens", "num_samples", "num_beams"):
            if getattr(self, key) > _MOST:
                raise UserError(f"decode.{key}={getattr(self, key)}: must be at most {_MOST}")
        at_least("decode.min_new_tokens", self.min_new_tokens, 0)
        choose("decode.on_overflow", self.on_overflow, ("refuse", "crop"))
        self.stop = [] if self.stop is None else self.stop if isinstance(self.stop, list) else [self.stop]
        check_texts("decode.stop", self.stop)
        for text in self.stop:
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
                    f"decode.length_penalty={self.length_penalty} is only for beam search: "
                    "add decode.num_beams, 2 or more"
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
        """The first of these settings that does not have its neutral value; None if all have it."""
        return next((key for key in keys if getattr(self, key) not in (getattr(DecodeConfig, key), [])), None)

    def first_set_but(self, *allowed: str) -> str | None:
        """The first of all other settings that does not have its neutral value; None if all have it."""
        return self.first_set(*(each.name for each in fields(self) if each.name not in allowed))
