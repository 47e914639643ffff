"""What the user's code asks configs for, found in its syntax tree."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from gpt2x.parity.subject.constructing.meanings import meaning_of
from gpt2x.parity.subject.importing.module import LazyModule
from gpt2x.parity.subject.importing.statements import Statement

CONFIG = re.compile(r"(?i)\w*(conf|cfg|args|param|hyper|setting|option)\w*")
"""Names of configs."""


def asked_of_configs(make: Callable[..., Any] | None = None) -> tuple[set[str], set[str]]:
    """The attributes and items that the subject's code asks objects for that have the name of a config.

    The second set are those that are asked in turn, as `model` in `config.model.n_layer`. Where the code comes from no
    file, that of `make` is looked at.
    """
    trees: list[ast.AST] = [statement.node for statement in _statements() if statement.is_definition]
    if not trees:
        trees = [tree for tree in [_tree(sys.modules.get(getattr(make, "__module__", "")) or make)] if tree]
    names, sections = set(), set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        name = _key(node)
        owner = getattr(node, "value", None)
        if name and _is_config(owner):
            names.add(name)
        elif name and (section := _key(owner)) and _is_config(getattr(owner, "value", None)) and meaning_of(name):
            names.add(name)
            sections.add(section)
    return names - sections, sections


def is_own(cls: type) -> bool:
    """Whether a class is defined in the subject's code."""
    return isinstance(sys.modules.get(cls.__module__), LazyModule)


def given_in_code() -> dict[str, Any]:
    """Name -> the constant that the subject's code gives it, as a keyword or in a dictionary; the first of several."""
    found: dict[str, Any] = {}
    for node in (node for statement in _statements() for node in ast.walk(statement.node)):
        pairs: list[tuple[Any, ast.expr]] = []
        if isinstance(node, ast.Call):
            pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
        elif isinstance(node, ast.Dict):
            pairs = [(getattr(key, "value", None), value) for key, value in zip(node.keys, node.values, strict=True)]
        for name, value in pairs:
            if isinstance(name, str) and isinstance(value, ast.Constant):
                found.setdefault(name, value.value)
    return found


def _statements() -> Iterator[Statement]:
    """The top-level statements of all files of the subject that have been imported."""
    for module in list(sys.modules.values()):
        if isinstance(module, LazyModule):
            yield from module.__gpt2x__.source.statements


def _key(node: ast.AST | None) -> str:
    """The name that an attribute or an item has; empty if the node is neither."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        return node.slice.value
    return ""


def _is_config(node: ast.AST | None) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return bool(CONFIG.fullmatch(name)) and not name.endswith("parameters")


def items_of(make: Callable[..., Any], name: str) -> set[str]:
    """The keys that the code of a function, or of a class, asks `**name` for."""
    tree = _tree(make)
    found = set()
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == name:
            found |= {str(node.slice.value)} if isinstance(node.slice, ast.Constant) else set()
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            owner, key = node.func.value, node.args[0]
            if isinstance(owner, ast.Name) and owner.id == name and isinstance(key, ast.Constant):
                found.add(str(key.value))
    return found


def _tree(thing: Any) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):
        return None
