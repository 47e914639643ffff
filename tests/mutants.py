"""Mutants: correct models of tests/subjects in which one operator has changed one node of the syntax tree."""

import ast
import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from gpt2x.parity.suggesting.code import Edit, Node, SourceFile
from gpt2x.parity.suggesting.patch import edited

SUBJECTS = Path(__file__).parent / "subjects"


@dataclass(frozen=True)
class Style:
    """A correct model, and the definitions that it consists of."""

    target: str
    """FILE:NAME in tests/subjects."""
    definitions: tuple[str, ...]


STYLES = {
    "nanoGPT": Style("nanogpt.py:GPT", ("CausalSelfAttention", "MLP", "Block", "GPT")),
    "formulas": Style("plain.py:GPT2", ("Norm", "Activation", "Attention", "causal", "MLP", "Block", "GPT2")),
    "per head": Style("styles.py:PerHead", ("attend", "Head", "Heads", "Sequence", "Layer", "Model")),
    "projections": Style("styles.py:Model", ("attend", "Projections", "Sequence", "ScaledNorm", "Layer", "Model")),
    "einsum": Style("styles.py:WithEinsum", ("attend", "Einsum", "MatrixMLP", "ScaledNorm", "Layer", "Model")),
}


@dataclass(frozen=True)
class Mutant:
    """A model with one change."""

    style: str
    operator: str
    place: str
    """Where the change is: `Block.forward`."""
    edit: Edit
    """The change; its text is the new one."""

    @property
    def path(self) -> Path:
        return self.edit.file.path

    @property
    def target(self) -> str:
        return f"{self.path}:{STYLES[self.style].target.partition(':')[2]}"

    @cached_property
    def text(self) -> str:
        """The whole file after the change."""
        return edited(self.edit.file.data, [self.edit]).decode()

    def __str__(self) -> str:
        data = self.edit.file.data
        line = data[: self.edit.start].count(b"\n") + 1
        old = " ".join(data[self.edit.start : self.edit.end].decode().split())
        return f"{self.style}, {self.operator}: {self.path.name}:{line} {self.place}: {old} -> {self.edit.text}"


def mutants() -> list[Mutant]:
    """All of them, in the order of the styles and of their code."""
    return [
        Mutant(style, operator, place, edit)
        for style, each in STYLES.items()
        for file in [SourceFile(SUBJECTS / each.target.partition(":")[0])]
        for name in each.definitions
        for place, node in _nodes(Node(file, file.bound[name]), name)
        for operator, change in OPERATORS.items()
        for edit in change(node)
        if _tree(edit.text) != _tree(file.data[edit.start : edit.end].decode())
    ]


def sample(seed: int) -> list[Mutant]:
    """All in a random order, but each style and each operator in turn."""
    draw = random.Random(seed)
    groups: dict[tuple[str, str], list[Mutant]] = {}
    for mutant in mutants():
        groups.setdefault((mutant.operator, mutant.style), []).append(mutant)
    for group in groups.values():
        draw.shuffle(group)
    turns = max(map(len, groups.values()))
    return [group[turn] for turn in range(turns) for group in groups.values() if turn < len(group)]


def _tree(text: str) -> str:
    return ast.dump(ast.parse(text))


def _nodes(node: Node, place: str) -> Iterator[tuple[str, Node]]:
    """A definition and all nodes in it, each with the function that it is in, but for annotations and docstrings."""
    yield place, node
    for name, value in ast.iter_fields(node.tree):
        if name in ("annotation", "returns", "decorator_list", "bases", "ctx"):
            continue
        for child in value if isinstance(value, list) else [value]:
            is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not is_docstring:
                inner = f"{place}.{child.name}" if isinstance(child, ast.FunctionDef) else place
                yield from _nodes(node.at(child), inner)


# The operators: each yields the edits that change a node.

Operator = Callable[[Node], Iterator[Edit]]
_ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
}


def _changed(node: Node, **fields: Any) -> Edit:
    """The edit that gives a node other fields."""
    tree = copy.copy(node.tree)
    for name, value in fields.items():
        setattr(tree, name, value)
    return _replaced(node, ast.unparse(tree))


def _replaced(node: Node, text: str) -> Edit:
    """In parentheses where the expression around it could bind its parts otherwise."""
    inside_operation = node.parent is not None and isinstance(
        node.parent.tree, ast.BinOp | ast.UnaryOp | ast.Attribute | ast.Subscript | ast.Compare
    )
    is_simple = isinstance(ast.parse(text).body[0], ast.Pass) or text.isidentifier()
    return node.replaced(f"({text})" if inside_operation and not is_simple else text)


def _constant(node: Node) -> Iterator[Edit]:
    value = getattr(node.tree, "value", None)
    if not isinstance(node.tree, ast.Constant) or isinstance(node.tree.value, str | None):
        return
    if isinstance(value, bool):
        yield node.replaced(str(not value))
    elif isinstance(value, int):
        yield from (node.replaced(str(value + step)) for step in (1, -1) if value + step >= 0)
    elif isinstance(value, float):
        yield from (node.replaced(repr(value * factor)) for factor in (2.0, 0.1))


def _text(node: Node) -> Iterator[Edit]:
    if isinstance(node.tree, ast.Constant) and node.tree.value == "tanh":
        yield node.replaced('"none"')
    if isinstance(node.tree, ast.Constant) and isinstance(node.tree.value, str) and "->" in node.tree.value:
        left, right = node.tree.value.split("->")
        first, second = left.split(",")
        yield node.replaced(repr(f"{first},{second[0]}{second[2]}{second[1]}{second[3:]}->{right}"))
        yield node.replaced(repr(f"{left}->{right[0]}{right[2]}{right[1]}{right[3:]}"))


def _operator(node: Node) -> Iterator[Edit]:
    if isinstance(node.tree, ast.BinOp):
        yield from (_changed(node, op=new()) for new in _ARITHMETIC.get(type(node.tree.op), ()))


def _term(node: Node) -> Iterator[Edit]:
    if isinstance(node.tree, ast.BinOp) and type(node.tree.op) in _ARITHMETIC:
        yield from (_replaced(node, node.at(side).text) for side in (node.tree.left, node.tree.right))


def _operands(node: Node) -> Iterator[Edit]:
    if isinstance(node.tree, ast.BinOp) and isinstance(node.tree.op, ast.Sub | ast.Div | ast.Pow | ast.MatMult):
        yield _changed(node, left=node.tree.right, right=node.tree.left)


def _arguments(node: Node) -> Iterator[Edit]:
    """Two neighbours among the arguments of a call, or among the names or values that are taken apart."""
    tree = node.tree
    parts = tree.args if isinstance(tree, ast.Call) else tree.elts if isinstance(tree, ast.Tuple | ast.List) else []
    if any(isinstance(part, ast.Slice) for part in parts):
        return
    for i in range(len(parts) - 1):
        swapped = [*parts[:i], parts[i + 1], parts[i], *parts[i + 2 :]]
        if isinstance(tree, ast.Call):
            yield _changed(node, args=swapped)
        else:
            text = ", ".join(map(ast.unparse, swapped))
            yield node.replaced(text if node.text[0] not in "([" else f"{node.text[0]}{text}{node.text[-1]}")


def _call(node: Node) -> Iterator[Edit]:
    """A call is left out: its argument, or what it is a method of, remains."""
    tree = node.tree
    if not isinstance(tree, ast.Call):
        return
    base = tree.func.value if isinstance(tree.func, ast.Attribute) else None
    is_module = isinstance(base, ast.Name) and base.id in ("torch", "F", "nn", "math", "self")
    if base is not None and not is_module and not ast.unparse(base).startswith(("self.", "super()", "nn.")):
        yield _replaced(node, node.at(base).text)
    elif tree.args and not isinstance(tree.args[0], ast.Starred | ast.GeneratorExp):
        yield _replaced(node, node.at(tree.args[0]).text)


def _keyword(node: Node) -> Iterator[Edit]:
    if isinstance(node.tree, ast.Call) and ast.unparse(node.tree.func) != "dict":
        keywords = node.tree.keywords
        yield from (_changed(node, keywords=keywords[:i] + keywords[i + 1 :]) for i in range(len(keywords)))


def _layers(node: Node) -> Iterator[Edit]:
    """A loop over modules leaves one out, or turns round; a chain of modules does without one of them."""
    if isinstance(node.tree, ast.For | ast.comprehension) and isinstance(node.tree.iter, ast.Attribute | ast.Call):
        over = node.at(node.tree.iter)
        yield from (over.replaced(f"list({over.text}){part}") for part in ("[1:]", "[:-1]", "[::-1]"))
    if isinstance(node.tree, ast.Call) and ast.unparse(node.tree.func) == "nn.Sequential" and len(node.tree.args) > 1:
        args = node.tree.args
        yield from (_changed(node, args=[*args[:i], *args[i + 1 :]]) for i in range(len(args)))


def _condition(node: Node) -> Iterator[Edit]:
    if isinstance(node.tree, ast.UnaryOp) and isinstance(node.tree.op, ast.Invert | ast.Not | ast.USub):
        yield _replaced(node, node.at(node.tree.operand).text)
    if isinstance(node.tree, ast.Call) and ast.unparse(node.tree.func).endswith("masked_fill"):
        mask = node.at(node.tree.args[0])
        yield mask.replaced(f"~({mask.text})")


def _module(node: Node) -> Iterator[Edit]:
    """Another module of the same object is called."""
    function = next((each for each in node.above if isinstance(each.tree, ast.FunctionDef)), None)
    if not _is_call_of_module(node.tree) or function is None:
        return
    called = {ast.unparse(each.func) for each in ast.walk(function.tree) if _is_call_of_module(each)}
    own = node.at(node.tree.func)
    yield from (own.replaced(name) for name in sorted(called - {own.text}))


def _is_call_of_module(tree: ast.AST) -> bool:
    return isinstance(tree, ast.Call) and ast.unparse(tree.func).startswith("self.")


def _statement(node: Node) -> Iterator[Edit]:
    if isinstance(node.tree, ast.Assign | ast.AugAssign):
        yield node.replaced("pass")


def _variable(node: Node) -> Iterator[Edit]:
    """Another variable that the statement reads."""
    if isinstance(node.tree, ast.Name) and isinstance(node.tree.ctx, ast.Load) and len(node.tree.id) == 1:
        statement = next(each for each in chain([node], node.above) if isinstance(each.tree, ast.stmt))
        names = {each.id for each in ast.walk(statement.tree) if isinstance(each, ast.Name) and len(each.id) == 1}
        yield from (node.replaced(name) for name in sorted(names - {node.tree.id, "F"}))


OPERATORS: dict[str, Operator] = {
    "constant": _constant,
    "text": _text,
    "operator": _operator,
    "term left out": _term,
    "operands swapped": _operands,
    "arguments swapped": _arguments,
    "call left out": _call,
    "keyword left out": _keyword,
    "layers": _layers,
    "condition": _condition,
    "other module": _module,
    "statement left out": _statement,
    "other variable": _variable,
}
