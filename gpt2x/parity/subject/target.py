"""subject.target: from `path/to/file.py:name` or `package.module:name` to a function that makes a model.

Importing a file executes it: there is no other way to get at the model in it.
"""

import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from gpt2x.errors import UserError, nearest
from gpt2x.model.config import GPT2Config
from gpt2x.paths import shown

# The names people use for each of Hugging Face's, as found in nanoGPT, minGPT, the book "Build a Large
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
    "model_type": None,  # minGPT wants it named, and None where the numbers are given
}


class Architecture(dict):
    """The numbers that a subject is built from, by item and by attribute, under all the names people use."""

    def __init__(self, config: GPT2Config) -> None:
        numbers = {alias: getattr(config, name) for name, aliases in _NAMES.items() for alias in aliases}
        super().__init__(numbers | _CONSTANTS)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the architecture that gpt2x gives has no {name!r}{nearest(name, self)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class SubjectError(Exception):
    """The subject's own code failed, or answered with what is no GPT-2: one line, with the place."""


@contextmanager
def subject_code() -> Iterator[None]:
    """Around every call into the subject: what it raises becomes a SubjectError, and it changes nothing for others."""
    try:
        with _contained():
            yield
    except (Exception, SystemExit) as error:
        if isinstance(error, SubjectError):
            raise
        raise SubjectError(_in_one_line(error)) from error


@contextmanager
def _contained() -> Iterator[None]:
    """Puts back what the subject's code may set for the whole process; what it prints goes to stderr."""
    folder, grad, threads = Path.cwd(), torch.is_grad_enabled(), torch.get_num_threads()
    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.chdir(folder)
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_default_device() != device:
            torch.set_default_device(device)


@dataclass(frozen=True)
class Target:
    """What subject.target names."""

    make: Callable[..., Any]
    root: Path
    """The folder its siblings are imported from."""

    def build(self, config: GPT2Config) -> nn.Module:
        """The subject's model. Raises SubjectError if its code fails or makes something else."""
        with _importable(self.root), subject_code():
            module = self.make(Architecture(config)) if _takes_an_argument(self.make) else self.make()
        if not isinstance(module, nn.Module):
            raise SubjectError(f"makes a {type(module).__name__}, not a torch.nn.Module")
        return module


def import_target(target: str) -> Target:
    """Imports the file or module, which executes it. Raises UserError if there is no such name to be had from it."""
    where, _, name = target.rpartition(":")
    if not where or not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"subject.target={target}: write path/to/file.py:name or package.module:name")
    if where.endswith(".py"):
        file = Path(where).expanduser().resolve()
        if not file.is_file():
            raise UserError(f"subject.target={target}: no file {shown(file)}")
        root, dotted = file.parent, file.stem
        while (root / "__init__.py").is_file():  # a file inside a package is imported as a part of it
            dotted, root = f"{root.name}.{dotted}", root.parent
    else:
        root, dotted, file = Path.cwd(), where, None
    _forget_last()
    before = set(sys.modules)
    try:
        with _importable(root), _contained():
            module = _from_file(file) if file and "." not in dotted else importlib.import_module(dotted)
    except (Exception, SystemExit) as error:
        raise UserError(f"subject.target={target}: cannot be imported: {_in_one_line(error)}") from error
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
    return Target(make, root)


# Modules that the last subject brought in. The next one's siblings may have the same names.
_imported: set[str] = set()


def _forget_last() -> None:
    for name in _imported:
        sys.modules.pop(name, None)
    _imported.clear()
    importlib.invalidate_caches()


def _from_file(file: Path) -> ModuleType:
    # Under a name of its own, so that a `tokenizers.py` is not taken for the library.
    spec = importlib.util.spec_from_file_location(f"_subject_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
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


def _in_one_line(error: BaseException) -> str:
    """`KeyError: 'emb' (model.py, line 12)`: the innermost place that is in nobody's library."""
    libraries = ("<", sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), str(Path(__file__).parents[1]))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(libraries)]
    place = f" ({shown(Path(frames[-1].filename))}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f" ({shown(Path(error.filename))}, line {error.lineno})"
    said = str(error.msg if isinstance(error, SyntaxError) else error).strip()
    return f"{type(error).__name__}: {' '.join(said.split())[:300]}{place}"
