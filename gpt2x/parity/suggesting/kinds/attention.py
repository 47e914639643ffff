"""Changes to attention: the scale of the scores, the order of q, k and v, masks, and the axis of the softmax."""

import ast
from collections.abc import Iterator
from itertools import permutations

from gpt2x.parity.suggesting.code import Change, Code, Node, argument, called, is_method, with_argument

_INFINITE = 'float("-inf")'
_SDPA = "scaled_dot_product_attention"


def to_right_scale(code: Code) -> Iterator[Change]:
    """Scores divided by the square root of the head width, which is that of the queries that are multiplied."""
    scaled = [node for node in code.of(ast.BinOp) if isinstance(node.tree.op, ast.Mult | ast.Div)]
    for product, query in _products(code):
        right = f"{product.text} / {query}.shape[-1] ** 0.5"
        whole = product
        for node in product.above:
            if not (isinstance(node.tree, ast.BinOp) and isinstance(node.tree.op, ast.Mult | ast.Div)):
                break
            whole = node
        yield (whole.replaced(right),)
        if whole is not product:
            continue
        names = _assigned(product)
        for node in scaled:
            left = node.tree.left
            if isinstance(left, ast.Name) and left.id in names:
                yield (node.replaced(f"{left.id} / {query}.shape[-1] ** 0.5"),)
        for node in scaled:
            if isinstance(node.tree.left, ast.Name) and not _overlap(node, product):
                yield node.replaced(node.tree.left.id), product.replaced(right)
    for call in code.calls(_SDPA):
        if argument(call.tree, "scale") is not None:
            yield (with_argument(call, "scale", "None"),)


def to_right_order(code: Code) -> Iterator[Change]:
    """Three names, or three indices, in the order of queries, keys and values."""
    order = tuple(int(i) for i in code.cause.numbers)
    for node in code.of(ast.Tuple, ast.List):
        parts = [node.at(each) for each in node.tree.elts]
        if len(parts) != 3:
            continue
        names = [part.tree.id for part in parts if isinstance(part.tree, ast.Name)]
        if _are_q_k_v(names) and isinstance(node.tree.ctx, ast.Store):
            yield tuple(part.replaced(parts[i].text) for part, i in zip(parts, order, strict=True))
        values = [getattr(part.tree, "value", None) for part in parts]
        if sorted(map(str, values)) == ["0", "1", "2"]:
            yield tuple(part.replaced(str(i)) for i, part in enumerate(parts))
    for target in code.of(ast.Assign):  # q = qkv[1]
        index = target.tree.value.slice if isinstance(target.tree.value, ast.Subscript) else None
        if isinstance(index, ast.Constant) and index.value in (0, 1, 2):
            yield from _indices(code, order)
            break


def _are_q_k_v(names: list[str]) -> bool:
    """Whether each of three names has another one of the letters q, k and v, as in `queries, keys, values`."""
    return any(all(map(str.__contains__, map(str.lower, each), "qkv")) for each in permutations(names, 3))


def _indices(code: Code, order: tuple[int, ...]) -> Iterator[Change]:
    """Subscripts [0], [1], [2] of one name, each in a statement of its own."""
    edits = [
        node.at(node.tree.value.slice).replaced(str(order.index(node.tree.value.slice.value)))
        for node in code.of(ast.Assign)
        if isinstance(node.tree.value, ast.Subscript)
        and isinstance(node.tree.value.slice, ast.Constant)
        and node.tree.value.slice.value in (0, 1, 2)
    ]
    if len(edits) == 3:
        yield tuple(edits)


def to_right_diagonal(code: Code) -> Iterator[Change]:
    """A triangle in which a token sees itself and what comes before it."""
    variable: list[Change] = []
    for call in code.calls("tril", "triu", "tril_", "triu_"):
        right = "0" if called(call.tree).startswith("tril") else "1"
        position = 0 if is_method(call.tree) else 1
        given = argument(call.tree, "diagonal", position)
        change = (with_argument(call, "diagonal", right, position),)
        if isinstance(given, ast.Name):
            variable.append(change)
        elif ast.unparse(given or ast.Constant(0)) != right:
            yield change
    for node in code.nodes:  # a function of the user's that takes the diagonal
        if isinstance(node.tree, ast.Call) and any(word in called(node.tree).lower() for word in ("mask", "causal")):
            for each in (*node.tree.args, *(keyword.value for keyword in node.tree.keywords)):
                if ast.unparse(each) in ("1", "-1"):
                    yield (node.at(each).replaced("0"),)
    for node in code.of(ast.Compare):
        swapped = {ast.Gt: ">=", ast.GtE: ">", ast.Lt: "<=", ast.LtE: "<"}.get(type(node.tree.ops[0]))
        if len(node.tree.ops) == 1 and swapped:
            left, right_side = node.at(node.tree.left).text, node.at(node.tree.comparators[0]).text
            yield (node.replaced(f"{left} {swapped} {right_side}"),)
    yield from variable


def to_infinite_fill(code: Code) -> Iterator[Change]:
    """Scores of what a token must not see are minus infinity."""
    for call in code.calls("masked_fill", "masked_fill_", "where"):
        position = len(call.tree.args) - 1
        value = argument(call.tree, "value", position)
        if value is not None and "inf" not in ast.unparse(value):
            yield (with_argument(call, "value", _INFINITE, position),)
    for node in code.of(ast.Constant):
        if isinstance(node.tree.value, float) and 0 < abs(node.tree.value) < 1e-6:
            outer = node.parent
            negative = outer is not None and isinstance(outer.tree, ast.UnaryOp)
            yield ((outer if outer is not None and negative else node).replaced(_INFINITE),)


def to_causal(code: Code) -> Iterator[Change]:
    """A causal mask where there is none."""
    for call in code.calls(_SDPA):
        yield (with_argument(call, "is_causal", "True", 5),)
    for call in code.calls("softmax"):
        scores = _softmax_of(call)
        if scores is not None and scores.text.isidentifier() and "torch" in call.file.bound:
            x = scores.text
            later = f"torch.ones({x}.shape[-2:], dtype=torch.bool, device={x}.device).triu(1)"
            yield (scores.replaced(f"{x}.masked_fill({later}, {_INFINITE})"),)


def to_other_way_round(code: Code) -> Iterator[Change]:
    """A mask that hides what it has shown, or the other triangle."""
    for call in code.calls("masked_fill", "masked_fill_", "where"):
        mask = argument(call.tree, "mask", 0)
        if isinstance(mask, ast.UnaryOp) and isinstance(mask.op, ast.Invert):
            yield (call.at(mask).replaced(call.at(mask.operand).text),)
        elif isinstance(mask, ast.Compare) and isinstance(mask.ops[0], ast.Eq | ast.NotEq):
            left, right = call.at(mask.left).text, call.at(mask.comparators[0]).text
            yield (call.at(mask).replaced(f"{left} {'!=' if isinstance(mask.ops[0], ast.Eq) else '=='} {right}"),)
        elif mask is not None:
            yield (call.at(mask).replaced(f"({call.at(mask).text}) == 0"),)
    for call in code.calls("tril", "triu"):
        other, diagonal = ("triu", "1") if called(call.tree) == "tril" else ("tril", "0")
        position = 0 if is_method(call.tree) else 1
        given = argument(call.tree, "diagonal", position)
        head = call.at(call.tree.func)
        renamed = head.replaced(head.text[: -len(called(call.tree))] + other)
        for keep in (True, False):
            moved = () if keep and given is not None else (with_argument(call, "diagonal", diagonal, position),)
            yield (renamed, *moved)


def to_last_axis(code: Code) -> Iterator[Change]:
    """A softmax over the keys, the last axis."""
    for call in code.calls("softmax", "Softmax"):
        position = 0 if called(call.tree) == "Softmax" or is_method(call.tree) else 1
        name = "axis" if argument(call.tree, "axis") is not None else "dim"
        if ast.unparse(argument(call.tree, name, position) or ast.Constant(None)) != "-1":
            yield (with_argument(call, name, "-1", position),)


def to_transposed_heads(code: Code) -> Iterator[Change]:
    """Heads that are moved beside their width before both are joined."""
    for call in code.calls("reshape", "view", "flatten"):
        base = call.tree.func.value if isinstance(call.tree.func, ast.Attribute) else None
        if isinstance(base, ast.Name) and base.id not in ("torch", "F"):
            text = call.text[len(base.id) :].replace(".view(", ".reshape(", 1)
            yield (call.replaced(f"{base.id}.transpose(1, 2){text}"),)


def _products(code: Code) -> Iterator[tuple[Node, str]]:
    """Products of queries and keys, with the name of the queries."""
    for node in code.of(ast.BinOp, ast.Call):
        if isinstance(node.tree, ast.BinOp):
            factors = [node.tree.left, node.tree.right] if isinstance(node.tree.op, ast.MatMult) else []
        elif called(node.tree) in ("matmul", "bmm", "einsum"):
            factors = list(node.tree.args)
            if is_method(node.tree):
                factors.insert(0, node.tree.func.value)
        else:
            factors = []
        if len(factors) == 3 and called(node.tree) == "einsum":
            factors = factors[1:]
        elif not any(_is_transposed(each) for each in factors):
            continue
        if len(factors) == 2 and isinstance(factors[0], ast.Name):
            yield node, factors[0].id


def _is_transposed(tree: ast.expr) -> bool:
    if isinstance(tree, ast.Call):
        return called(tree) in ("transpose", "permute", "swapaxes", "t", "rearrange")
    return isinstance(tree, ast.Attribute) and tree.attr in ("T", "mT")


def _assigned(node: Node) -> list[str]:
    statement = next((above.tree for above in node.above if isinstance(above.tree, ast.stmt)), None)
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _softmax_of(call: Node) -> Node | None:
    if is_method(call.tree):
        return call.at(call.tree.func.value)
    return call.at(call.tree.args[0]) if call.tree.args else None


def _overlap(a: Node, b: Node) -> bool:
    if a.file is not b.file:
        return False
    (start, end), (other_start, other_end) = a.file.span(a.tree), b.file.span(b.tree)
    return start < other_end and other_start < end
