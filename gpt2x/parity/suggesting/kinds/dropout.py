"""Changes to dropout that is active in eval mode, and to values that pass through a smaller dtype."""

import ast
from collections.abc import Iterator

from gpt2x.parity.suggesting.code import Change, Code, Edit, called, is_method, library, with_argument

_HALVES = ("float16", "bfloat16", "half")


def to_training_only(code: Code) -> Iterator[Change]:
    """Dropout only while the model is trained. Many calls may be meant, so that all of them are changed at once."""
    edits: list[Edit] = []
    for call in code.calls("dropout", "dropout_"):
        is_function = not is_method(call.tree)
        if is_function and call.receiver and "training" not in call.text:
            edits.append(with_argument(call, "training", f"{call.receiver}.training", 2))
        elif is_function and call.receiver and f"{call.receiver}.training" not in call.text:
            edits.append(with_argument(call, "training", f"{call.receiver}.training"))
    for call in code.calls("scaled_dot_product_attention"):
        given = next((keyword.value for keyword in call.tree.keywords if keyword.arg == "dropout_p"), None)
        if given is not None and "training" not in ast.unparse(given) and call.receiver:
            text = call.at(given).text
            edits.append(call.at(given).replaced(f"{text} if {call.receiver}.training else 0.0"))
    for call in code.of(ast.Call):
        inner = call.tree.func
        if isinstance(inner, ast.Call) and called(inner) == "Dropout" and call.tree.args and call.receiver:
            _, functional = library(call)
            x, p = call.at(call.tree.args[0]).text, call.at(inner.args[0]).text if inner.args else "0.5"
            edits.append(call.replaced(f"{functional}.dropout({x}, {p}, {call.receiver}.training)"))
    if len(edits) > 1:
        yield tuple(edits)
    yield from ((edit,) for edit in edits)


def to_full_precision(code: Code) -> Iterator[Change]:
    """Values in the dtype that they have."""
    for call in code.of(ast.Call):
        base, method, args = call.tree.func, called(call.tree), call.tree.args
        halves = [each for each in args if isinstance(each, ast.Attribute) and each.attr in _HALVES]
        to_half = (method in ("to", "type") and halves) or (method in ("half", "bfloat16") and not args)
        if to_half and isinstance(base, ast.Attribute):
            yield (call.replaced(call.at(base.value).text),)
        elif len(args) == 2 and halves == args[1:]:
            yield (call.replaced(call.at(args[0]).text),)
