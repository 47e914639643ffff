"""The syntax tree of the user's code, in which changes are proposed as replaced pieces of text."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gpt2x.parity.causes import Cause
from gpt2x.parity.subject.importing.statements import read_source
from gpt2x.parity.suggesting.places import Place


class SourceFile:
    """A file as it was when it was read, and its syntax tree."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, UnicodeDecodeError or SyntaxError."""
        self.path = path
        self.data = path.read_bytes()
        self.data.decode()  # offsets are right only if it is UTF-8
        source = read_source(path)
        self.statements = [statement.node for statement in source.statements]
        self.bound = {name: statement.node for statement in source.statements for name in statement.binds}
        lines = self.data.split(b"\n")
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._starts[0] = 3 if self.data.startswith(b"\xef\xbb\xbf") else 0

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        return {
            child: node
            for statement in self.statements
            for node in ast.walk(statement)
            for child in ast.iter_child_nodes(node)
        }

    def span(self, tree: Any) -> tuple[int, int]:
        """The offsets of a node in the file's bytes."""
        starts = self._starts
        return starts[tree.lineno - 1] + tree.col_offset, starts[tree.end_lineno - 1] + tree.end_col_offset

    def find(self, place: Place) -> ast.AST | None:
        """The definition at a place."""
        if place.line == 0:
            top, *rest = place.name.split(".")
            found: ast.AST | None = self.bound.get(top)
            for name in rest:
                found = next((each for each in getattr(found, "body", []) if getattr(each, "name", "") == name), None)
            return found
        functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
        for statement in self.statements:
            for node in ast.walk(statement):
                if isinstance(node, functions) and _first_line(node) == place.line:
                    return node
        return None


def _first_line(node: Any) -> int:
    return min(each.lineno for each in (node, *getattr(node, "decorator_list", [])))


@dataclass(frozen=True)
class Edit:
    """A piece of a file that is replaced."""

    file: SourceFile
    start: int
    """With `end`: offsets in the file's bytes."""
    end: int
    text: str


Change = tuple[Edit, ...]
"""What mends a mistake: edits that are made together."""


@dataclass(frozen=True)
class Node:
    """A node of a syntax tree, with its file."""

    file: SourceFile
    tree: Any

    @cached_property
    def text(self) -> str:
        start, end = self.file.span(self.tree)
        return self.file.data[start:end].decode()

    @property
    def parent(self) -> "Node | None":
        above = self.file.parents.get(self.tree)
        return None if above is None else Node(self.file, above)

    @property
    def above(self) -> Iterator["Node"]:
        """The nodes around it, the innermost first."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    @property
    def inside(self) -> Iterator["Node"]:
        """Itself and all nodes in it."""
        return (Node(self.file, tree) for tree in ast.walk(self.tree))

    def at(self, tree: ast.AST) -> "Node":
        """Another node of the same file."""
        return Node(self.file, tree)

    def replaced(self, text: str) -> Edit:
        """The edit that replaces it; a generator that is an argument has its parentheses in its range."""
        return Edit(self.file, *self.file.span(self.tree), text)

    @property
    def function(self) -> "Node | None":
        """The innermost function or lambda around it."""
        return next((node for node in self.above if isinstance(node.tree, ast.FunctionDef | ast.Lambda)), None)

    @property
    def receiver(self) -> str:
        """The name of the first parameter of the function around it, `self` in a method; empty if there is none."""
        function = self.function
        parameters = function.tree.args.args if function is not None else []
        return parameters[0].arg if parameters else ""


@dataclass(frozen=True)
class Code:
    """The code in which the cause of a wrong module is sought, the most likely definitions first."""

    cause: Cause
    own_name: str
    """The user's name of the module, dotted; empty for the whole model."""
    parameters: dict[str, str]
    """weight or bias -> the name of that attribute of the module."""
    names: dict[str, str]
    """Hugging Face's name of a module -> the user's."""
    eps: float
    """The epsilon that norms should have."""
    own: list[Node]
    """The definitions of the module itself."""
    roots: list[Node]
    """All definitions, those of the module first."""

    @property
    def attribute(self) -> str:
        """The attribute that holds the module."""
        return self.own_name.rpartition(".")[2]

    def name_in(self, whole: str, part: str) -> str:
        """The user's name of a part of a module, both given by Hugging Face's names; empty if it is not known."""
        outer = self.names.get(whole, "") if whole else ""
        inner = self.names.get(f"{whole}.{part}" if whole else part, "")
        prefix = f"{outer}." if outer else ""
        return inner[len(prefix) :] if inner.startswith(prefix) else ""

    @cached_property
    def nodes(self) -> list[Node]:
        """All nodes of the definitions."""
        found = {(node.file.path, id(node.tree)): node for root in self.roots for node in root.inside}
        return list(found.values())

    def calls(self, *names: str) -> Iterator[Node]:
        """Calls of functions and methods of these names, whatever they are attributes of."""
        return (node for node in self.nodes if isinstance(node.tree, ast.Call) and called(node.tree) in names)

    def of(self, *kinds: type[ast.AST]) -> Iterator[Node]:
        return (node for node in self.nodes if isinstance(node.tree, kinds))


def called(call: ast.Call) -> str:
    """The last part of the name of what is called: `gelu` for `F.gelu(x)`, `softmax` for `x.softmax(-1)`."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def library(node: Node) -> tuple[str, str]:
    """How a file calls torch.nn and torch.nn.functional; empty texts if it imports neither them nor torch."""
    bound = node.file.bound
    if "torch" not in bound and "nn" not in bound and "F" not in bound:
        return "", ""
    modules = "nn" if "nn" in bound else "torch.nn"
    return modules, "F" if "F" in bound else f"{modules}.functional"


def is_method(call: ast.Call) -> bool:
    """Whether it is called as the method of a tensor, `x.softmax(-1)`, and not as a function of a module."""
    function = call.func
    if not isinstance(function, ast.Attribute):
        return False
    return ast.unparse(function.value) not in ("torch", "F", "nn", "nn.functional", "torch.nn", "torch.nn.functional")


def is_forward(node: Node, definition: Node) -> bool:
    """Whether a node of a definition of a module is its forward function: a method, or a function given to it."""
    if node.tree is definition.tree:
        return isinstance(node.tree, ast.FunctionDef | ast.Lambda)
    return isinstance(node.tree, ast.FunctionDef) and node.tree.name == "forward"


def with_argument(call: Node, name: str, value: str, position: int | None = None) -> Edit:
    """The edit that gives an argument of a call another value, or adds it by its keyword.

    `position` is its index among the positional arguments, where it may be one.
    """
    for keyword in call.tree.keywords:
        if keyword.arg == name:
            return call.at(keyword.value).replaced(value)
    if position is not None and position < len(call.tree.args):
        return call.at(call.tree.args[position]).replaced(value)
    given = [*call.tree.args, *call.tree.keywords]
    _, end = call.file.span(call.tree)
    if not given:
        return Edit(call.file, end - 1, end - 1, f"{name}={value}")
    last = max(call.file.span(each.value if isinstance(each, ast.keyword) else each)[1] for each in given)
    return Edit(call.file, last, last, f", {name}={value}")


def argument(call: ast.Call, name: str, position: int | None = None) -> ast.expr | None:
    """The value of an argument of a call, if it is given."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[position] if position is not None and position < len(call.args) else None
