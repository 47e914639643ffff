"""Changes to norms: epsilon, variance, bias, and torch's own LayerNorm in the place of another formula."""

import ast
from collections.abc import Iterator

from gpt2x.parity.suggesting.code import Change, Code, Node, argument, is_forward, library, with_argument

_VARIANCES = ("var", "std", "var_mean", "std_mean")


def to_right_eps(code: Code) -> Iterator[Change]:
    """Another epsilon: in the calls, defaults and constants that hold one, or added to a LayerNorm that has none."""
    right = repr(code.eps).replace("e-0", "e-")
    (wrong,) = code.cause.numbers
    numbers = [node for node in code.of(ast.Constant) if node.tree.value == wrong and node.tree.value is not False]
    yield from ((node.replaced(right),) for node in numbers if "eps" in _named(node))
    for call in code.calls("LayerNorm", "layer_norm"):
        if argument(call.tree, "eps", 1 if "LayerNorm" in call.text else 4) is None:
            yield (with_argument(call, "eps", right),)
    yield from ((node.replaced(right),) for node in numbers if wrong)
    for call in code.calls("var"):
        yield (call.replaced(f"({call.text} + {right})"),)
    yield from to_layer_norm(code)


def to_biased_variance(code: Code) -> Iterator[Change]:
    """The variance with 1 / n: `unbiased=False`, or `correction=0` where that is given."""
    for call in code.calls(*_VARIANCES):
        if argument(call.tree, "correction") is not None:
            yield (with_argument(call, "correction", "0"),)
        else:
            yield (with_argument(call, "unbiased", "False"),)
    yield from to_layer_norm(code)


def to_norm_with_bias(code: Code) -> Iterator[Change]:
    """A LayerNorm that has a bias."""
    calls = [call for call in code.calls("LayerNorm") if argument(call.tree, "bias") is not None]
    edits = tuple(with_argument(call, "bias", "True") for call in calls)
    if len(edits) > 1:
        yield edits
    yield from ((edit,) for edit in edits)
    yield from to_layer_norm(code)


def to_layer_norm(code: Code) -> Iterator[Change]:
    """torch's layer_norm in the place of all that the forward function of a norm returns."""
    weight, bias = code.parameters.get("weight"), code.parameters.get("bias")
    for definition in code.own if weight and bias else []:
        for node in definition.inside:
            tree = node.tree
            if not is_forward(node, definition):
                continue
            _, functional = library(node)
            names = [each.arg for each in tree.args.args]
            returned = tree.body if isinstance(tree, ast.Lambda) else getattr(tree.body[-1], "value", None)
            if functional and len(names) == 2 and returned is not None and not _is_assigned(tree, names[1]):
                m, x = names
                text = f"{functional}.layer_norm({x}, {x}.shape[-1:], {m}.{weight}, {m}.{bias}, {code.eps!r})"
                yield (node.at(returned).replaced(text),)


def _is_assigned(tree: ast.AST, name: str) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store) for node in ast.walk(tree)
    )


def _named(node: Node) -> str:
    """The name of the argument, default, field or variable that has this value; empty if it has none."""
    parent = node.parent
    if parent is None:
        return ""
    tree = parent.tree
    if isinstance(tree, ast.keyword):
        return (tree.arg or "").lower()
    if isinstance(tree, ast.Assign | ast.AnnAssign):
        targets = tree.targets if isinstance(tree, ast.Assign) else [tree.target]
        return ast.unparse(targets[0]).lower()
    if isinstance(tree, ast.arguments):
        with_default = [*(tree.posonlyargs + tree.args)[::-1]]
        defaults = dict(zip(map(id, tree.defaults[::-1]), with_default, strict=False))
        defaults |= dict(zip(map(id, tree.kw_defaults), tree.kwonlyargs, strict=True))
        return defaults[id(node.tree)].arg.lower() if id(node.tree) in defaults else ""
    if isinstance(tree, ast.Dict):
        keys = {id(value): key for key, value in zip(tree.keys, tree.values, strict=True)}
        return str(getattr(keys.get(id(node.tree)), "value", "")).lower()
    return ""
