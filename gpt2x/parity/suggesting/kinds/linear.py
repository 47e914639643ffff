"""Changes to linear layers: biases."""

import ast
from collections.abc import Iterator

from gpt2x.parity.suggesting.code import Change, Code, Edit, Node, argument, with_argument

_LINEAR = ("Linear", "Conv1D", "LazyLinear")


def to_bias(code: Code) -> Iterator[Change]:
    """Linear layers that have a bias: the one that is the module, those of its class, or all but the head."""
    calls = [call for call in code.calls(*_LINEAR) if _says_bias(call)]
    named = [call for call in calls if code.attribute in _attributes(call)]
    head = code.name_in("", "lm_head")
    others = [call for call in calls if head not in _attributes(call)]
    classes = [_class_of(call) for call in named]
    alike = [call for call in others if _class_of(call) in classes]
    seen: list[list[Node]] = []
    for group in (named, alike, others, *([call] for call in others)):
        if group and group not in seen:
            seen.append(group)
            yield tuple(_with_bias(call) for call in group)
    for node in code.of(ast.Assign):
        is_none = isinstance(node.tree.value, ast.Constant) and node.tree.value.value is None
        if is_none and all(isinstance(each, ast.Attribute) and each.attr == "bias" for each in node.tree.targets):
            yield (node.replaced("pass"),)


def to_no_bias(code: Code) -> Iterator[Change]:
    """A head without a bias."""
    head = code.name_in("", "lm_head")
    for call in code.calls(*_LINEAR):
        if head and head in _attributes(call):
            yield (with_argument(call, "bias", "False", 2),)
    for node in code.of(ast.Assign):
        if any(ast.unparse(target).endswith(f".{head}.bias") for target in node.tree.targets):
            yield (node.replaced("pass"),)


def _says_bias(call: Node) -> bool:
    value = argument(call.tree, "bias", 2)
    return value is not None and not (isinstance(value, ast.Constant) and value.value is True)


def _with_bias(call: Node) -> Edit:
    return with_argument(call, "bias", "True", 2)


def _attributes(call: Node) -> list[str]:
    """The attributes, or the keys of a dictionary of modules, that the statement around a call assigns to."""
    for node in call.above:
        if isinstance(node.tree, ast.Assign):
            targets = [inner for target in node.tree.targets for inner in ast.walk(target)]
            return [each.attr for each in targets if isinstance(each, ast.Attribute)] + _keys(call)
    return []


def _keys(call: Node) -> list[str]:
    """`lm_head` for `nn.ModuleDict(dict(lm_head=nn.Linear(...)))`."""
    parent = call.parent
    return [parent.tree.arg] if parent is not None and isinstance(parent.tree, ast.keyword) and parent.tree.arg else []


def _class_of(call: Node) -> ast.AST | None:
    return next((node.tree for node in call.above if isinstance(node.tree, ast.ClassDef)), None)
