"""subject.target: from `path/to/file.py:name` or `package.module:name` to a function that makes a model.

Importing a file executes it. There is no other way to get at the model in it.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from gpt2x.errors import UserError, nearest
from gpt2x.memory import is_out_of_memory
from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject.code import SubjectError, contained, in_one_line, subject_code
from gpt2x.paths import expanded, shown

# Hugging Face's name -> the names that people use for it, as found in nanoGPT, minGPT, the book "Build a Large
# Language Model (From Scratch)" (Raschka, 2024) and Hugging Face's own aliases.
_NAMES = {
    "vocab_size": ("vocab_size",),
    "n_positions": ("n_positions", "block_size", "context_length", "n_ctx"),
    "n_embd": ("n_embd", "emb_dim", "d_model", "hidden_size"),
    "n_head": ("n_head", "n_heads", "num_heads"),
    "n_layer": ("n_layer", "n_layers", "num_layers"),
    "layer_norm_epsilon": ("layer_norm_epsilon",),
}
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("dropout", "drop_rate", "embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0),
    **dict.fromkeys(("bias", "qkv_bias"), True),
    "model_type": None,  # minGPT requires the key, and None if the sizes are given
}


class Architecture(dict[str, Any]):
    """The sizes that a subject is built from, by item and by attribute, under all the names that people use."""

    def __init__(self, config: GPT2Config) -> None:
        sizes = {alias: getattr(config, name) for name, aliases in _NAMES.items() for alias in aliases}
        super().__init__(sizes | _CONSTANTS)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the architecture that gpt2x gives has no {name!r}{nearest(name, self)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


@dataclass(frozen=True)
class Target:
    """What subject.target names: a class or function that makes the subject's model."""

    name: str
    """The text of subject.target."""
    make: Callable[..., Any]
    root: Path
    """The folder that its sibling modules are imported from."""

    def build(self, config: GPT2Config, dtype: torch.dtype) -> nn.Module:
        """The subject's model. Raises SubjectError if its code fails or returns anything but an nn.Module.

        For float64 the file is imported again, as it may make constants when it is imported.
        """
        make = import_target(self.name).make if dtype == torch.float64 else self.make
        with _importable(self.root):
            return call(make, config)


def call(make: Callable[..., Any], config: GPT2Config) -> nn.Module:
    """The model that a class or function makes, given the architecture or, if it takes no argument, nothing.

    Raises SubjectError if its code fails or returns anything but an nn.Module.
    """
    with subject_code():
        module = make(Architecture(config)) if _takes_an_argument(make) else make()
    if not isinstance(module, nn.Module):
        raise SubjectError(f"makes a {type(module).__name__}, not a torch.nn.Module")
    return module


def import_target(target: str) -> Target:
    """Imports the file or module, which executes it. Raises UserError if it cannot be imported or lacks the name."""
    where, _, name = target.rpartition(":")
    if not where or not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"subject.target={target}: write path/to/file.py:name or package.module:name")
    file, root, dotted = _located(where, target)
    _forget_last()
    before = set(sys.modules)
    try:
        with _importable(root), contained():
            module = _from_file(file) if file and "." not in dotted else importlib.import_module(dotted)
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"subject.target={target}: cannot be imported: {in_one_line(error)}") from error
    finally:
        _imported.update(
            key for key in set(sys.modules) - before if _lies_in(root, getattr(sys.modules[key], "__file__", None))
        )
    make: Any = module
    for part in name.split("."):
        if not hasattr(make, part):
            raise UserError(f"subject.target={target}: no {part!r} in {where}{nearest(part, dir(make))}")
        make = getattr(make, part)
    if isinstance(make, nn.Module) or not callable(make):
        raise UserError(f"subject.target={target}: a {type(make).__name__}; name a class, or a function that makes it")
    return Target(target, make, root)


def _located(where: str, target: str) -> tuple[Path | None, Path, str]:
    """The file (None for a module), the folder to import from, and the dotted name of the module in it."""
    if not where.endswith(".py"):
        return None, Path.cwd(), where
    file = expanded(where, "subject.target").resolve()
    if not file.is_file():
        raise UserError(f"subject.target={target}: no file {shown(file)}")
    root, dotted = file.parent, file.stem
    while (root / "__init__.py").is_file():  # a file inside a package is imported as a part of the package
        dotted, root = f"{root.name}.{dotted}", root.parent
    return file, root, dotted


# Names of the modules that the last subject imported. The next subject's siblings may have the same names.
_imported: set[str] = set()


def _forget_last() -> None:
    for name in _imported:
        sys.modules.pop(name, None)
    _imported.clear()
    importlib.invalidate_caches()


def _from_file(file: Path) -> ModuleType:
    # The prefix keeps a subject in `tokenizers.py` from taking the place of the library of that name.
    spec = importlib.util.spec_from_file_location(f"_subject_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up the module that they are defined in
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(root: Path) -> Iterator[None]:
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))


def _lies_in(root: Path, file: str | None) -> bool:
    return file is not None and Path(file).is_relative_to(root) and "site-packages" not in file


def _takes_an_argument(make: Callable[..., Any]) -> bool:
    parameters = inspect.signature(make).parameters.values()
    return any(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD) for parameter in parameters
    )
