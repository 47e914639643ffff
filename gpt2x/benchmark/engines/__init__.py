"""The engines that benchmark compares: one module per engine, imported only in the process of that engine.

To add an engine: write a module that fits EngineModule, add it to REGISTRY, and its name to gpt2x.config's ENGINES.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable


class Engine(Protocol):
    """The weights of a checkpoint, loaded in one dtype."""

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        """The greedy continuations of prompts of equal length, exactly new_tokens each.

        The end-of-text token does not end a continuation.
        """


@runtime_checkable
class Baseline(Protocol):
    """An engine that others are compared with."""

    def margin(self, ids: list[int]) -> float:
        """The difference between the two largest logits of the token after `ids`."""


@runtime_checkable
class Timed(Protocol):
    """An engine that computes the first token of a long text in another way than a text of one token."""

    first_seconds: float
    """From the last call of `generate` until all prompts had their first new token."""


class EngineModule(Protocol):
    """A module of this package."""

    def dtypes(self) -> Collection[str]:
        """The names of the dtypes that the engine computes in on this machine."""

    @property
    def Engine(self) -> Callable[[Path, str, int], Engine]:  # noqa: N802
        """Engine(directory, dtype, threads) loads the checkpoint in a directory in Hugging Face's format."""


@runtime_checkable
class Converter(Protocol):
    """A module of an engine that has its own file format."""

    def convert(self, directory: Path, dtype: str) -> None:
        """Writes the checkpoint in `directory` there a second time, in the engine's format."""


@dataclass(frozen=True)
class Entry:
    """An engine in the registry."""

    name: str
    """The name in task.engines and in benchmark.csv, and of its module here."""
    package: str
    """The package that it drives, whose version is reported."""

    def load(self) -> EngineModule:
        """Imports the module. Raises ImportError if the package is not installed, and whatever its import raises."""
        return cast(EngineModule, import_module(f"{__name__}.{self.name}"))

    def version(self) -> str:
        """The version of the package, without the build that OpenVINO adds."""
        version: str = import_module(self.package).__version__
        return version.partition("-")[0]


REGISTRY = (
    Entry("gpt2x", package="gpt2x"),
    Entry("gpt2x_lookup", package="gpt2x"),
    Entry("transformers", package="transformers"),
    Entry("ctranslate2", package="ctranslate2"),
    Entry("openvino", package="openvino"),
    Entry("llamacpp", package="xllamacpp"),
)


@dataclass(frozen=True)
class Variant:
    """An engine in a dtype: what is measured."""

    engine: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.engine} {self.dtype}"

    @property
    def entry(self) -> Entry:
        return next(entry for entry in REGISTRY if entry.name == self.engine)


if TYPE_CHECKING:  # lets a type checker see that each module fits
    from gpt2x.benchmark.engines import ctranslate2, gpt2x, gpt2x_lookup, llamacpp, openvino, transformers

    _MODULES: tuple[EngineModule, ...] = (gpt2x, gpt2x_lookup, transformers, ctranslate2, openvino, llamacpp)
    _CONVERTERS: tuple[Converter, ...] = (ctranslate2, openvino, llamacpp)
