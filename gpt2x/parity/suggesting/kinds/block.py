"""Changes to blocks: which norm comes where, and the residuals."""

import ast
from collections.abc import Iterator
from itertools import takewhile

from gpt2x.parity.suggesting.code import Change, Code, Edit, Node, is_forward

_ATTN, _MLP, _LN_1, _LN_2 = "attn", "mlp", "ln_1", "ln_2"


class _Names:
    """The attributes of a block, as the user calls them."""

    def __init__(self, code: Code) -> None:
        parts = (_ATTN, _MLP, _LN_1, _LN_2)
        self.attn, self.mlp, self.ln_1, self.ln_2 = (code.name_in("h.0", part) for part in parts)


def to_right_norms(code: Code) -> Iterator[Change]:
    """ln_1 before attention and ln_2 before the MLP, where both are called, but not so."""
    own = _Names(code)
    other = {own.ln_1: own.ln_2, own.ln_2: own.ln_1}
    edits = []
    for call in code.of(ast.Call):
        if _attribute(call) in other and own.ln_1 and own.ln_2:
            function = call.at(call.tree.func)
            edits.append(function.replaced(f"{function.text[: -len(_attribute(call))]}{other[_attribute(call)]}"))
    if len(edits) > 1:
        yield tuple(edits)
    yield from ((edit,) for edit in edits)
    yield from to_gpt2_block(code)


def to_norm_before(code: Code) -> Iterator[Change]:
    """The norm that is skipped."""
    own = _Names(code)
    for branch, norm in ((own.attn, own.ln_1), (own.mlp, own.ln_2)):
        for call in code.of(ast.Call):
            if branch and norm and _attribute(call) == branch and call.tree.args and _named_in(call, norm) == 0:
                x = call.at(call.tree.args[0])
                yield (x.replaced(f"{ast.unparse(call.tree.func.value)}.{norm}({x.text})"),)
    yield from to_gpt2_block(code)


def to_residual(code: Code) -> Iterator[Change]:
    """The residual that is left out, or added twice."""
    own = _Names(code)
    for call in code.of(ast.Call):
        if _attribute(call) not in (own.attn, own.mlp) or not _attribute(call):
            continue
        sums = list(takewhile(_is_sum, call.above))
        x = _innermost(call)
        if x:
            yield ((sums[-1] if sums else call).replaced(f"{x} + {call.text}"),)
    yield from to_gpt2_block(code)


def to_gpt2_block(code: Code) -> Iterator[Change]:
    """The body of the forward function of a block, as GPT-2 has it, if the branches take and return one tensor."""
    own = _Names(code)
    for definition in code.own:
        for node in definition.inside:
            tree = node.tree
            if not is_forward(node, definition) or isinstance(tree, ast.Lambda) or len(tree.args.args) < 2:
                continue
            calls = {_attribute(node.at(each)): each for each in ast.walk(tree) if isinstance(each, ast.Call)}
            if not {own.attn, own.mlp} <= set(calls) or not all((own.attn, own.mlp, own.ln_1, own.ln_2)):
                continue
            m, x = (each.arg for each in tree.args.args[:2])
            returns = [each for each in ast.walk(tree) if isinstance(each, ast.Return)]
            if len(returns) != 1 or isinstance(returns[0].value, ast.Tuple):
                continue
            lines = []
            for branch, norm in ((own.attn, own.ln_1), (own.mlp, own.ln_2)):
                more = [*calls[branch].args[1:], *calls[branch].keywords]
                rest = "".join(f", {ast.unparse(each)}" for each in more)
                lines.append(f"{x} = {x} + {m}.{branch}({m}.{norm}({x}){rest})")
            first = tree.body[1] if ast.get_docstring(tree) and len(tree.body) > 1 else tree.body[0]
            start, _ = node.file.span(first)
            _, end = node.file.span(tree.body[-1])
            body = ("\n" + " " * first.col_offset).join([*lines, f"return {x}"])
            yield (Edit(node.file, start, end, body),)


def _attribute(call: Node) -> str:
    """`attn` for `self.attn(...)`, and `m.attn(...)`."""
    function = call.tree.func
    is_attribute = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)
    return function.attr if is_attribute else ""


def _named_in(node: Node, attribute: str) -> int:
    return sum(isinstance(each.tree, ast.Attribute) and each.tree.attr == attribute for each in node.inside)


def _innermost(call: Node) -> str:
    """`x` for `self.attn(self.ln_1(x), mask)`."""
    tree = call.tree
    while isinstance(tree, ast.Call) and tree.args:
        tree = tree.args[0]
    return tree.id if isinstance(tree, ast.Name) else ""


def _is_sum(node: Node) -> bool:
    return isinstance(node.tree, ast.BinOp) and isinstance(node.tree.op, ast.Add | ast.Sub)
