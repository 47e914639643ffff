"""Changes to activations: the tanh approximation of GELU in the place of other functions and constants."""

import ast
import re
from collections.abc import Iterator

from gpt2x.parity.suggesting.code import Change, Code, Node, called, is_forward, is_method, library

_MODULES = ("GELU", "ReLU", "SiLU", "Sigmoid", "Tanh", "LeakyReLU", "ReLU6", "Softplus", "ELU", "Identity")
_FUNCTIONS = ("gelu", "relu", "silu", "leaky_relu", "sigmoid", "tanh", "quick_gelu", "swish")
_TWO_OVER_PI = re.compile(r"[\w.]*\(?[\w.]*\(?2(\.0)?/\w+\.pi\)?\)?")


def to_tanh_gelu(code: Code) -> Iterator[Change]:
    """GELU in the place of what computes the activation."""
    for call in code.calls(*_MODULES):
        modules, _ = library(call)
        if modules and not _has_gelu(call):
            prefix = ast.unparse(call.tree.func)[: -len(called(call.tree))]
            kept = called(call.tree) == "GELU" or prefix
            yield (call.replaced(f'{prefix if kept else modules + "."}GELU(approximate="tanh")'),)
    for call in code.calls(*_FUNCTIONS):
        argument = _argument(call)
        if argument and not _has_gelu(call):
            for whole in (*reversed(_formula(call)), call):
                yield from _computed(whole, argument)
    for node in code.of(ast.Attribute):
        modules, _ = library(node)
        is_called = node.parent is not None and getattr(node.parent.tree, "func", None) is node.tree
        if node.tree.attr in _FUNCTIONS and modules and not is_called:
            yield (node.replaced(f'{modules}.GELU(approximate="tanh")'),)
    for function in code.own:
        yield from _whole(function)


def to_right_constants(code: Code) -> Iterator[Change]:
    """The constants of the tanh approximation: sqrt(2 / pi) in full, and 0.044715."""
    wrong, right = code.cause.numbers
    yield from ((node.replaced(repr(right)),) for node in code.of(ast.Constant) if node.tree.value == wrong)
    for node in code.of(ast.Call, ast.BinOp):
        text = node.text.replace(" ", "")
        is_quotient = isinstance(node.tree, ast.BinOp) and isinstance(node.tree.op, ast.Div)
        if _TWO_OVER_PI.fullmatch(text) and (is_quotient or "tensor" in text):
            yield (node.replaced(repr(right)),)
    yield from to_tanh_gelu(code)


def _has_gelu(call: Node) -> bool:
    """Whether a call is right already."""
    return any(isinstance(inner.tree, ast.Constant) and inner.tree.value == "tanh" for inner in call.inside)


def _argument(call: Node) -> str:
    """What the activation is computed of: `x` in `F.relu(x)`, `x.relu()` and `torch.sigmoid(1.702 * x)`."""
    tree = call.tree.func.value if is_method(call.tree) and not call.tree.args else None
    tree = call.tree.args[0] if call.tree.args else tree
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Mult):
        tree = tree.right if isinstance(tree.left, ast.Constant) else tree.left
    return call.at(tree).text if tree is not None else ""


def _formula(call: Node) -> list[Node]:
    """The expressions around a call that compute one activation with it: products, powers and squares."""
    found: list[Node] = []
    inner = call
    for node in call.above:
        is_product = isinstance(node.tree, ast.BinOp) and isinstance(node.tree.op, ast.Mult | ast.Pow | ast.Add)
        is_square = isinstance(node.tree, ast.Call) and node.tree.func is inner.tree
        is_attribute = isinstance(node.tree, ast.Attribute) and node.tree.attr in ("square", "pow")
        if not (is_product or is_square or is_attribute):
            break
        if not is_attribute:
            found.append(node)
        inner = node
    return found


def _computed(node: Node, argument: str) -> Iterator[Change]:
    _, functional = library(node)
    if functional:
        yield (node.replaced(f'{functional}.gelu({argument}, approximate="tanh")'),)


def _whole(definition: Node) -> Iterator[Change]:
    """GELU in the place of all that the function of an activation module returns."""
    for node in definition.inside:
        tree = node.tree
        if not is_forward(node, definition):
            continue
        parameters = [each.arg for each in tree.args.args]
        returned = tree.body if isinstance(tree, ast.Lambda) else getattr(tree.body[-1], "value", None)
        if len(parameters) == 2 and returned is not None:
            yield from _computed(node.at(returned), parameters[1])
